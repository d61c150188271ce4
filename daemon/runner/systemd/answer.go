package systemd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// answerPipe is a FIFO in an attempt's directory, through which a shim that is no
// child of the daemon's answers. Each start has one of its own: a shim of another
// start cannot answer for it.
type answerPipe struct {
	path string
	file *os.File // open for both, so that it never reads as ended
	read *bufio.Reader
}

// listenForAnswer makes the FIFO.
func listenForAnswer(dir string) (*answerPipe, error) {
	path := fmt.Sprintf("%s/answer.%s", dir, uuid.NewString())
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, &os.PathError{Op: "make fifo", Path: path, Err: err}
	}
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return &answerPipe{path, file, bufio.NewReaderSize(file, 4096)}, nil
}

// wait returns the answer; "" where none came within d. A line is written at once,
// so it is never read in part.
func (p *answerPipe) wait(ctx context.Context, d time.Duration) (string, error) {
	if err := p.file.SetReadDeadline(time.Now().Add(d)); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	text, err := p.read.ReadString('\n')
	switch {
	case err == nil:
		return text, nil
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return "", err
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	}
	return "", nil
}

func (p *answerPipe) close() {
	_ = p.file.Close()
	_ = os.Remove(p.path) // it goes with the attempt's directory at the latest
}
