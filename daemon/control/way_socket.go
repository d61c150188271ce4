package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// dialTimeout bounds the connect to a socket. A daemon that is stopped in a
// debugger still has a backlog, so this strikes only when that is full.
const dialTimeout = 2 * time.Second

// socketWay asks over a Unix socket, with a connection per request: one that
// was kept would be that of a daemon long restarted.
type socketWay struct{ path string }

var _ Way = socketWay{}

// SocketWay returns the way to the daemon that listens at path.
func SocketWay(path string) Way { return socketWay{path: path} }

// Name implements Way.
func (w socketWay) Name() string { return w.path }

// Close implements Way.
func (socketWay) Close() {}

// Ask implements Way.
func (w socketWay) Ask(ctx context.Context, _ Verb, request []byte) ([]byte, error) {
	nc, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", w.path)
	if err != nil {
		return nil, shortNetError(err)
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Now()) })()
	_, writeErr := nc.Write(append(request, '\n'))
	// A daemon that refuses the connection says so and does not read: there is
	// an answer even though the write failed.
	body, err := boundedLine(bufio.NewReaderSize(nc, 64<<10), ResponseBytesMax)
	switch {
	case err == nil:
		return body, nil
	case writeErr != nil:
		// The line end leaves last, and without it the daemon does nothing.
		return nil, shortNetError(writeErr)
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: the daemon closed the connection", errSent)
	case errors.Is(err, errOversized):
		return nil, fmt.Errorf("%w that can be taken: it has more than %d bytes", errSent, ResponseBytesMax)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w in time", errSent)
	}
	return nil, fmt.Errorf("%w: %w", errSent, shortNetError(err))
}

// shortNetError leaves out what the name of the way says already.
func shortNetError(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
