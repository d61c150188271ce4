package broker

import (
	"bufio"
	"encoding/binary"
	"log/slog"
	"net"
	"sync/atomic"
)

// The parts of a frame: type, channel, payload size, payload, end octet. The
// payload of a content header: class, weight, body size, flags, properties in
// the order of their flags. Source: AMQP 0-9-1, 2.3.5 and 4.2.6.1.
const (
	frameTypeHeader = 2
	frameHeadBytes  = 7
	frameEndBytes   = 1

	contentFlagsAt   = frameHeadBytes + 12
	contentHeadBytes = 14

	flagContentType     = 0x8000
	flagContentEncoding = 0x4000
	flagHeaders         = 0x2000
)

// headerGuard takes the header table out of messages over which the client
// library (1.16) would shut the whole connection down, and hands on everything
// else as it came. The broker passes such messages, so without it one message
// of any user would end the connection of each daemon in turn, for ever.
//
// Only Read is guarded, and one goroutine reads, as the library does. A stream
// that is not made of frames is handed on too: the library decides.
type headerGuard struct {
	net.Conn
	log      *slog.Logger
	frameMax atomic.Int64 // as negotiated; 0 where there is none, or not yet

	in   *bufio.Reader
	out  []byte // to be read first
	skip int    // then these are left out
	pass int    // then these are handed on
	err  error  // then this, for good
}

func newHeaderGuard(conn net.Conn, log *slog.Logger) *headerGuard {
	// One peek must hold all of a frame up to the end of the longest table judged.
	const peekMax = frameHeadBytes + contentHeadBytes + 2*256 + 4 + tableBytesMax
	return &headerGuard{Conn: conn, log: log, in: bufio.NewReaderSize(conn, peekMax)}
}

// Read implements net.Conn.
func (g *headerGuard) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(g.out) == 0 && g.skip == 0 && g.pass == 0 {
		if g.err != nil {
			return 0, g.err
		}
		if err := g.nextFrame(); err != nil {
			g.err, g.pass = err, g.in.Buffered() // what there is of the frame
			if g.pass == 0 {
				return 0, err
			}
		}
	}
	if len(g.out) > 0 {
		n := copy(p, g.out)
		g.out = g.out[n:]
		return n, nil
	}
	if g.skip > 0 {
		n, err := g.in.Discard(g.skip)
		g.skip -= n
		if err != nil {
			return 0, err
		}
	}
	n, err := g.in.Read(p[:min(len(p), g.pass)])
	g.pass -= n
	return n, err
}

// nextFrame looks at the start of a frame and decides what becomes of it.
func (g *headerGuard) nextFrame() error {
	head, err := g.in.Peek(frameHeadBytes)
	if err != nil {
		return err
	}
	size := int(binary.BigEndian.Uint32(head[3:]))
	g.pass = 0
	if head[0] == frameTypeHeader {
		if err := g.guardTable(size); err != nil {
			return err
		}
	}
	if g.pass == 0 {
		g.pass = frameHeadBytes + size + frameEndBytes
	}
	return nil
}

// guardTable leaves the header table out of a content header of size bytes
// where it has to go.
func (g *headerGuard) guardTable(size int) error {
	at, length, err := g.findTable(frameHeadBytes + size)
	if err != nil || at == 0 {
		return err
	}
	reason := ""
	frameMax := int(g.frameMax.Load())
	switch {
	case frameMax > 0 && frameHeadBytes+size+frameEndBytes > frameMax, length > tableBytesMax:
		reason = "too large"
	default:
		frame, err := g.in.Peek(at + length)
		if err != nil {
			return err
		}
		reason = judgeTable(frame[at:])
	}
	if reason == "" {
		return nil
	}
	g.log.Warn("a message's headers are left out: they would cost the connection to the broker", "reason", reason)
	lead := at - 4 // without the table's length
	frame, err := g.in.Peek(lead)
	if err != nil {
		return err
	}
	g.out = append([]byte(nil), frame...)
	left := size - 4 - length
	binary.BigEndian.PutUint32(g.out[3:], uint32(left))
	flags := binary.BigEndian.Uint16(g.out[contentFlagsAt:])
	binary.BigEndian.PutUint16(g.out[contentFlagsAt:], flags&^flagHeaders)
	g.skip = at + length
	g.pass = frameHeadBytes + left + frameEndBytes - lead
	return nil
}

// findTable returns where the content of the header table starts in the frame
// and its length; 0 where there is none, or none that ends with the payload.
func (g *headerGuard) findTable(payloadEnd int) (at, length int, err error) {
	at = frameHeadBytes + contentHeadBytes
	if at > payloadEnd {
		return 0, 0, nil
	}
	frame, err := g.in.Peek(at)
	if err != nil {
		return 0, 0, err
	}
	flags := binary.BigEndian.Uint16(frame[contentFlagsAt:])
	if flags&flagHeaders == 0 {
		return 0, 0, nil
	}
	for _, flag := range []uint16{flagContentType, flagContentEncoding} {
		if flags&flag == 0 {
			continue
		}
		if at+1 > payloadEnd {
			return 0, 0, nil
		}
		if frame, err = g.in.Peek(at + 1); err != nil {
			return 0, 0, err
		}
		at += 1 + int(frame[at])
	}
	if at+4 > payloadEnd {
		return 0, 0, nil
	}
	if frame, err = g.in.Peek(at + 4); err != nil {
		return 0, 0, err
	}
	length = int(binary.BigEndian.Uint32(frame[at:]))
	if at += 4; length > payloadEnd-at {
		return 0, 0, nil
	}
	return at, length, nil
}
