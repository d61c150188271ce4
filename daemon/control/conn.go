package control

import (
	"bufio"
	"context"
	"errors"
	"net"
	"slices"
	"time"
)

// conn is one client's connection to the socket.
type conn struct {
	*net.UnixConn
	server *Server
	caller Caller
}

// serve answers requests, one after another, until the client leaves, breaks a
// bound, or the server stops.
func (c *conn) serve() {
	defer c.server.forget(c)
	defer c.Close()
	lines := bufio.NewReaderSize(c, 32<<10)
	for {
		line, err := c.readLine(lines)
		if errors.Is(err, errOversized) {
			c.write(encode(fail(errOversized))) // where the next request would begin is unknown: the connection ends
			return
		}
		if err != nil {
			return
		}
		if !c.write(c.answer(line)) || c.server.isStopping() {
			return
		}
	}
}

// interrupt ends the wait for the next request; one under way goes on.
func (c *conn) interrupt() { _ = c.SetReadDeadline(time.Now()) }

// refuse says why the connection is not served, and ends it. The write cannot
// block for long: it fits into the socket's empty buffer.
func (c *conn) refuse(e *Error) {
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = c.Write(append(encode(fail(e)), '\n')) // whoever has left needs no reason
	_ = c.Close()
}

// readLine reads one request. The deadlines are set under the server's lock, so
// that they cannot undo an interrupt.
func (c *conn) readLine(r *bufio.Reader) ([]byte, error) {
	if err := c.allow(c.server.limits.idle); err != nil {
		return nil, err
	}
	if _, err := r.Peek(1); err != nil {
		return nil, err
	}
	if err := c.allow(c.server.limits.line); err != nil {
		return nil, err
	}
	return boundedLine(r, RequestBytesMax)
}

func (c *conn) allow(d time.Duration) error {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	if c.server.stopping {
		return errStopping
	}
	return c.SetReadDeadline(time.Now().Add(d))
}

func (c *conn) answer(line []byte) []byte {
	req, refusal := parseRequest(line)
	switch {
	case refusal != nil:
		return encode(fail(refusal))
	case req.Caller != nil:
		return encode(fail(errImpersonation))
	}
	parent := c.server.reads
	if slices.Contains(changing, req.Verb) {
		parent = c.server.changes
	}
	ctx, cancel := context.WithTimeout(parent, c.server.limits.request)
	defer cancel()
	return encode(c.server.dispatch(ctx, c.caller, req))
}

// write sends one response and reports whether the connection is still good.
func (c *conn) write(body []byte) bool {
	if err := c.SetWriteDeadline(time.Now().Add(c.server.limits.write)); err != nil {
		return false
	}
	_, err := c.Write(append(body, '\n'))
	return err == nil
}

// boundedLine reads up to a line end and returns the line without it. It
// returns errOversized, and stops reading, when the line has more than most bytes.
func boundedLine(r *bufio.Reader, most int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > most+1 {
			return nil, errOversized
		}
		line = append(line, part...)
		if err == nil {
			return line[:len(line)-1], nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}
