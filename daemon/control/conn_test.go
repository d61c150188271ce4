package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/test/wait"
)

// raw is a connection that a test misuses.
type raw struct {
	t *testing.T
	net.Conn
	lines *bufio.Reader
}

func rawConn(t *testing.T, path string) *raw {
	t.Helper()
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &raw{t, nc, bufio.NewReader(nc)}
}

func (r *raw) send(text string) {
	r.t.Helper()
	if _, err := r.Write([]byte(text)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) response() Response {
	r.t.Helper()
	line, err := r.lines.ReadBytes('\n')
	if err != nil {
		r.t.Fatal(err)
	}
	var res Response
	if err := json.Unmarshal(line, &res); err != nil {
		r.t.Fatalf("%q: %v", line, err)
	}
	return res
}

// ended reports whether the daemon has closed the connection.
func (r *raw) ended() bool {
	_, err := r.lines.ReadByte()
	var timeout net.Error
	return err != nil && !(errors.As(err, &timeout) && timeout.Timeout())
}

const askHosts = `{"schema":1,"verb":"hosts"}` + "\n"

func TestConnection(t *testing.T) {
	h := newRecorder()
	s := serve(t, h, func(s *Server) { s.limits.line = 100 * time.Millisecond })
	path := s.opts.Socket

	t.Run("TakesOneRequestAfterAnother", func(t *testing.T) {
		c := rawConn(t, path)
		c.send(askHosts + askHosts)
		for range 2 {
			if res := c.response(); res.Error != nil {
				t.Error(res.Error)
			}
		}
	})
	t.Run("SurvivesGarbage", func(t *testing.T) {
		c := rawConn(t, path)
		for _, garbage := range []string{"\n", "\x00\xff\x13\n", "{\"schema\":1\n", "GET / HTTP/1.1\r\n"} {
			c.send(garbage)
			if res := c.response(); res.Error == nil || res.Error.Code != CodeBadRequest {
				t.Errorf("%q gave %+v", garbage, res)
			}
		}
		c.send(askHosts)
		if res := c.response(); res.Error != nil {
			t.Error(res.Error)
		}
	})
	t.Run("TakesTheLargestSubmission", func(t *testing.T) {
		sub := submissionOf("cmd", strings.Repeat("x", job.SpecBytesMax-1024))
		if _, err := clientOf(path).Submit(t.Context(), sub); err != nil {
			t.Error(err)
		}
	})
	t.Run("RefusesAnOversizedRequest", func(t *testing.T) {
		c := rawConn(t, path)
		c.send(strings.Repeat("x", RequestBytesMax) + "yy\n") // two more than may be, so that nothing is left unread
		if res := c.response(); res.Error == nil || !strings.Contains(res.Error.Error(), "put large inputs in a file") {
			t.Errorf("got %+v", res)
		}
		if !c.ended() {
			t.Error("the connection goes on, though where the next request begins is unknown")
		}
	})
	t.Run("ClientRefusesAnOversizedRequest", func(t *testing.T) {
		_, err := clientOf(path).Submit(t.Context(), submissionOf(strings.Repeat("x", RequestBytesMax)))
		wantErr(t, err, ErrBadRequest)
	})
	t.Run("OfASlowClientEnds", func(t *testing.T) {
		c := rawConn(t, path)
		c.send(`{"schema":1,`)
		if !c.ended() {
			t.Error("half a line keeps the connection open")
		}
	})
	t.Run("ThatLeavesHalfwayHarmsNobody", func(t *testing.T) {
		c := rawConn(t, path)
		c.send(`{"schema":1,`)
		_ = c.Close()
		if _, err := clientOf(path).Hosts(t.Context()); err != nil {
			t.Error(err)
		}
	})
	wait.Until(t, "every connection forgotten", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.conns) == 0 && len(s.perUser) == 0
	})
}

func TestConnectionOfAClientThatDoesNotRead(t *testing.T) {
	s := serve(t, newRecorder(), func(s *Server) { s.limits.write = 100 * time.Millisecond })
	c := rawConn(t, s.opts.Socket)
	// Answers pile up until the daemon's write blocks; then it must let go.
	_ = c.SetWriteDeadline(time.Now().Add(10 * time.Second))
	for {
		if _, err := c.Write([]byte(strings.Repeat(askHosts, 100))); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the daemon kept the connection")
			}
			return
		}
	}
}

func TestIdleConnectionEnds(t *testing.T) {
	s := serve(t, newRecorder(), func(s *Server) { s.limits.idle = 50 * time.Millisecond })
	if c := rawConn(t, s.opts.Socket); !c.ended() {
		t.Error("it goes on")
	}
}

func TestManyAtOnceEachGetTheirOwnAnswer(t *testing.T) {
	s := serve(t, newRecorder(), nil)
	c := clientOf(s.opts.Socket)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for n := range 20 {
				want := fmt.Sprintf("host-%d-%d", i, n)
				r, err := c.Devices(t.Context(), DevicesArgs{Host: want})
				if err != nil || r.Devices[0].Host != want {
					t.Errorf("got %+v, %v: want %s", r, err, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestTooManyConnectionsAreToldSo(t *testing.T) {
	s := serve(t, newRecorder(), func(s *Server) { s.limits.conns = 2 })
	for range 2 {
		c := rawConn(t, s.opts.Socket)
		c.send(askHosts)
		c.response()
	}
	_, err := clientOf(s.opts.Socket).Hosts(t.Context())
	if e := wantErr(t, err, ErrUnavailable); !strings.Contains(e.Error(), "serves 2 connections already: try again") {
		t.Errorf("got %v", e)
	}
}
