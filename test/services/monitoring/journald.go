package monitoring

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"gpuqd/test/services"
)

// Journald is a journald of its own.
type Journald struct {
	*services.Process
	Socket string // where it takes entries
	Dir    string // where it keeps them: journalctl --directory=Dir

	streams string // where it takes streams of lines
	mu      sync.Mutex
	held    net.Conn // a stream, which says nothing; nil before it is ready
}

// journaldPath is where systemd has it on every distribution.
const journaldPath = "/lib/systemd/systemd-journald"

// NewJournald returns a journald, not yet started, with its sockets in one
// directory and its files in another.
func NewJournald(sockets, files string) (*Journald, error) {
	program, err := installed(journaldPath)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{sockets, files} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("prepare journald: %w", err)
		}
	}
	args := []string{"gpuq"} // the namespace, in _NAMESPACE
	if os.Geteuid() == 0 {
		// It would open the kernel's audit log, and can without these.
		args = append([]string{"--bounding-set", "-all", "--inh-caps", "-all", program}, args...)
		if program, err = exec.LookPath("setpriv"); err != nil {
			return nil, errors.New("setpriv is not installed: apt-get install util-linux")
		}
	}
	j := &Journald{Socket: filepath.Join(sockets, "socket"), Dir: files, streams: filepath.Join(sockets, "stdout")}
	j.Process = &services.Process{
		Name: "journald", Path: program, Args: args, LogPath: filepath.Join(files, "journald.log"),
		Env:   []string{"RUNTIME_DIRECTORY=" + sockets, "LOGS_DIRECTORY=" + files},
		Ready: j.hold,
	}
	return j, nil
}

// hold returns nil when journald answers, and leaves it with a stream. That of a
// namespace ends when it has had none, and nothing to do, for 30 s: whoever comes then
// would find nobody, where systemd would start it again.
//
// Source: seen with systemd 252; "server_is_idle" in its journald-server.c.
func (j *Journald) hold(ctx context.Context) error {
	// Nobody listens at the sockets that another one has left.
	entries, err := net.Dial("unixgram", j.Socket)
	if err != nil {
		return err
	}
	if err := entries.Close(); err != nil {
		return err
	}
	stream, err := (&net.Dialer{}).DialContext(ctx, "unix", j.streams)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.held != nil {
		_ = j.held.Close() // of the one before
	}
	j.held = stream
	return nil
}
