package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// gate passes MongoDB wire messages between clients and one server, one request
// at a time over all connections. A request counts as under way until its last
// reply has been read from the server, whether or not its client is still there.
type gate struct {
	listener net.Listener
	server   string // address
	open     bool   // let requests race

	turn sync.Mutex // held by the request under way

	mu      sync.Mutex
	clients map[net.Conn]struct{} // open connections, to be closed at the end; guarded by mu
	closed  bool                  // guarded by mu
}

func newGate(l net.Listener, server string, open bool) *gate {
	return &gate{listener: l, server: server, open: open, clients: make(map[net.Conn]struct{})}
}

// serve accepts clients until ctx ends, then closes their connections and waits
// until the request under way, if any, has been answered.
func (g *gate) serve(ctx context.Context) error {
	var clients sync.WaitGroup
	stop := context.AfterFunc(ctx, func() {
		g.listener.Close()
		g.closeClients()
	})
	defer stop()
	for {
		conn, err := g.listener.Accept()
		if err != nil {
			g.closeClients()
			clients.Wait()
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		if !g.add(conn) {
			conn.Close()
			continue
		}
		clients.Go(func() {
			defer g.remove(conn)
			g.pass(conn)
		})
	}
}

func (g *gate) add(conn net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.clients[conn] = struct{}{}
	}
	return !g.closed
}

func (g *gate) remove(conn net.Conn) {
	conn.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.clients, conn)
}

func (g *gate) closeClients() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for conn := range g.clients {
		conn.Close()
	}
}

// pass serves one client until either side closes or breaks the protocol.
func (g *gate) pass(client net.Conn) {
	server, err := net.Dial("tcp", g.server)
	if err != nil {
		return
	}
	defer server.Close()
	for {
		request, err := readMessage(client)
		if err != nil {
			return
		}
		replies, err := g.ask(server, request)
		if err != nil {
			return
		}
		for _, reply := range replies {
			if _, err := client.Write(reply); err != nil {
				return
			}
		}
	}
}

// ask performs one request while all others wait. The client's connection is not
// touched here: a slow client holds nobody up.
func (g *gate) ask(server net.Conn, request message) ([]message, error) {
	if err := request.gateable(); err != nil {
		return nil, err
	}
	if !g.open {
		g.turn.Lock()
		defer g.turn.Unlock()
	}
	if _, err := server.Write(request); err != nil {
		return nil, err
	}
	var replies []message
	for {
		reply, err := readMessage(server)
		if err != nil {
			return nil, err
		}
		replies = append(replies, reply)
		if more, err := reply.moreToCome(); err != nil || !more {
			return replies, err
		}
	}
}

// Parts of the MongoDB wire protocol. Source: the MongoDB manual, "MongoDB Wire
// Protocol".
const (
	headerBytes     = 16
	messageBytesMax = 48_000_000 // maxMessageSizeBytes
	opCompressed    = 2012
	opMsg           = 2013
	flagMoreToCome  = 1 << 1
)

// message is one wire message with its header: length, request ID, response-to,
// opcode, each 32 bits little-endian.
type message []byte

func readMessage(r io.Reader) (message, error) {
	header := make([]byte, headerBytes)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(header)
	if size < headerBytes || size > messageBytesMax {
		return nil, fmt.Errorf("a message of %d bytes is not between %d and %d", size, headerBytes, messageBytesMax)
	}
	m := make(message, size)
	copy(m, header)
	_, err := io.ReadFull(r, m[headerBytes:])
	return m, err
}

func (m message) opcode() uint32 { return binary.LittleEndian.Uint32(m[12:]) }

// moreToCome reports whether the sender says that another message follows
// without being asked for; in a request it means that no reply is expected.
func (m message) moreToCome() (bool, error) {
	if m.opcode() != opMsg {
		return false, nil
	}
	if len(m) < headerBytes+4 {
		return false, errors.New("a message without flags")
	}
	return binary.LittleEndian.Uint32(m[headerBytes:])&flagMoreToCome != 0, nil
}

// gateable refuses requests whose end cannot be seen: compressed ones (FerretDB
// never offers compression) and unacknowledged writes, which have no reply.
func (m message) gateable() error {
	if m.opcode() == opCompressed {
		return errors.New("compressed messages cannot be gated")
	}
	more, err := m.moreToCome()
	if err == nil && more {
		err = errors.New("unacknowledged writes cannot be gated")
	}
	return err
}
