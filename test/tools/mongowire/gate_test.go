package main

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// opMessage returns an OP_MSG of the given flags and body.
func opMessage(flags uint32, body string) message {
	m := make(message, headerBytes+4, headerBytes+4+len(body))
	binary.LittleEndian.PutUint32(m, uint32(headerBytes+4+len(body)))
	binary.LittleEndian.PutUint32(m[12:], opMsg)
	binary.LittleEndian.PutUint32(m[headerBytes:], flags)
	return append(m, body...)
}

// startServer answers each message with itself, as two replies of which the
// first says that more is to come, and calls seen between them.
func startServer(t *testing.T, seen func(message)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for {
					m, err := readMessage(conn)
					if err != nil {
						return
					}
					body := string(m[headerBytes+4:])
					conn.Write(opMessage(flagMoreToCome, body))
					seen(m)
					conn.Write(opMessage(0, body))
				}
			}()
		}
	}()
	return l.Addr().String()
}

func startGate(t *testing.T, server string) string {
	t.Helper()
	l, err := listenLoopback("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- newGate(l, server, false).serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestGate(t *testing.T) {
	t.Run("OneRequestAtATimeOverAllConnections", func(t *testing.T) {
		var under, most atomic.Int32
		address := startGate(t, startServer(t, func(message) {
			if n := under.Add(1); n > most.Load() {
				most.Store(n)
			}
			under.Add(-1)
		}))
		var clients sync.WaitGroup
		for range 16 {
			conn := dial(t, address)
			clients.Go(func() {
				for range 50 {
					if _, err := conn.Write(opMessage(0, "question")); err != nil {
						t.Error(err)
						return
					}
					for range 2 { // both replies come through, whole
						if m, err := readMessage(conn); err != nil || string(m[headerBytes+4:]) != "question" {
							t.Errorf("got %q, %v", m, err)
							return
						}
					}
				}
			})
		}
		clients.Wait()
		if most.Load() != 1 {
			t.Errorf("%d requests were under way at once", most.Load())
		}
	})
	t.Run("AClientThatLeavesDoesNotEndItsRequest", func(t *testing.T) {
		entered, release := make(chan struct{}), make(chan struct{})
		var first sync.Once
		address := startGate(t, startServer(t, func(message) {
			first.Do(func() {
				close(entered)
				<-release
			})
		}))
		leaving := dial(t, address)
		if _, err := leaving.Write(opMessage(0, "first")); err != nil {
			t.Fatal(err)
		}
		<-entered
		leaving.Close()
		next := dial(t, address)
		if _, err := next.Write(opMessage(0, "second")); err != nil {
			t.Fatal(err)
		}
		answered := make(chan error, 1)
		go func() { _, err := readMessage(next); answered <- err }()
		select {
		case <-answered:
			t.Fatal("the second request passed the first")
		case <-time.After(100 * time.Millisecond): // nothing can show that it never would
		}
		close(release)
		if err := <-answered; err != nil {
			t.Fatal(err)
		}
	})
	t.Run("RequestsWithoutAVisibleEndAreRefused", func(t *testing.T) {
		compressed := opMessage(0, "x")
		binary.LittleEndian.PutUint32(compressed[12:], opCompressed)
		for name, m := range map[string]message{"unacknowledged": opMessage(flagMoreToCome, "x"), "compressed": compressed, "oversized": {0xff, 0xff, 0xff, 0x7f, 15: 0}} {
			conn := dial(t, startGate(t, startServer(t, func(message) { t.Errorf("%s went through", name) })))
			if _, err := conn.Write(m); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%s: got %v, want the connection closed", name, err)
			}
		}
	})
}

func TestListenLoopbackRefusesOthers(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "example.org:80", "127.0.0.1"} {
		if l, err := listenLoopback(address); err == nil {
			l.Close()
			t.Errorf("%q was taken", address)
		}
	}
}
