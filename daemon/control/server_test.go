package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/test/wait"
)

func TestStop(t *testing.T) {
	t.Run("BeforeStart", func(t *testing.T) {
		s := NewServer(newRecorder(), Options{Socket: socketPath(t)})
		s.Stop()
		s.Stop()
		if err := s.Start(); err == nil {
			t.Error("it started after its stop")
		}
		if _, err := os.Lstat(s.opts.Socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a socket is left: %v", err)
		}
	})
	t.Run("HundredsOfTimes", func(t *testing.T) {
		path := socketPath(t)
		for range 300 {
			s := NewServer(newRecorder(), Options{Socket: path})
			if err := s.Start(); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = clientOf(path).Hosts(context.Background()) })
			wg.Go(s.Stop)
			wg.Go(s.Stop)
			wg.Wait()
		}
	})
	t.Run("EndsIdleConnectionsAndRemovesTheSocket", func(t *testing.T) {
		s := serve(t, newRecorder(), nil)
		c := rawConn(t, s.opts.Socket)
		c.send(askHosts)
		c.response()
		s.Stop()
		if !c.ended() {
			t.Error("the connection goes on")
		}
		if _, err := os.Lstat(s.opts.Socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	})
	t.Run("EndsAHeldRead", func(t *testing.T) {
		h := newRecorder()
		s := serve(t, h, nil)
		sub := submissionOf("sleep")
		if _, err := clientOf(s.opts.Socket).Submit(t.Context(), sub); err != nil {
			t.Fatal(err)
		}
		held := make(chan struct{}, 1000)
		h.gate = func(context.Context) error { held <- struct{}{}; return nil }
		failure := make(chan error, 1)
		go func() {
			_, err := clientOf(s.opts.Socket).States(context.Background(), []job.ID{sub.ID}, StatesWaitMax)
			failure <- err
		}()
		<-held
		began := time.Now()
		s.Stop()
		if took := time.Since(began); took > StatesWaitMax/2 {
			t.Errorf("the stop took %s", took)
		}
		wantErr(t, <-failure, ErrUnavailable)
	})
	for name, ask := range map[string]func(*Client) error{
		"LetsASubmissionFinish": func(c *Client) error {
			_, err := c.Submit(context.Background(), submissionOf("true"))
			return err
		},
		"LetsADrainFinish": func(c *Client) error {
			_, err := c.Drain(context.Background(), DrainArgs{Host: "a", Reason: "r"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newRecorder()
			s := serve(t, h, nil)
			entered, proceed := make(chan struct{}), make(chan struct{})
			h.gate = func(ctx context.Context) error {
				close(entered)
				select {
				case <-proceed:
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			outcome := make(chan error, 1)
			go func() {
				outcome <- ask(clientOf(s.opts.Socket))
			}()
			<-entered
			stopped := make(chan struct{})
			go func() { s.Stop(); close(stopped) }()
			wait.Until(t, "the stop under way", s.isStopping)
			close(proceed)
			if err := <-outcome; err != nil {
				t.Errorf("what was under way got %v", err)
			}
			<-stopped
		})
	}
	t.Run("DoesNotWaitForASubmissionWithoutEnd", func(t *testing.T) {
		h := newRecorder()
		s := serve(t, h, func(s *Server) { s.limits.stopGrace = 50 * time.Millisecond })
		entered := make(chan struct{})
		h.gate = func(ctx context.Context) error { close(entered); <-ctx.Done(); return context.Cause(ctx) }
		outcome := make(chan error, 1)
		go func() {
			_, err := clientOf(s.opts.Socket).Submit(context.Background(), submissionOf("true"))
			outcome <- err
		}()
		<-entered
		s.Stop()
		wantErr(t, <-outcome, ErrUnavailable)
	})
}

func TestHeldDeliveriesLeaveWorkersToOthers(t *testing.T) {
	h := newRecorder()
	s := NewServer(h, Options{})
	defer s.Stop()
	sub := submissionOf("sleep")
	h.jobs[sub.ID] = job.New(sub.ID, "ada", sub.Spec, job.At(time.Now()))
	ask := fmt.Appendf(nil, `{"schema":1,"verb":"states","args":{"ids":[%q],"wait":"10s"}}`, sub.ID)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range s.limits.holds {
		wg.Go(func() { s.ServeDelivery(ctx, "ada", ask) })
	}
	wait.Until(t, "as many held as may be", func() bool { return len(s.holds) == s.limits.holds })
	began := time.Now()
	var res Response
	if err := json.Unmarshal(s.ServeDelivery(ctx, "ada", ask), &res); err != nil || res.Error != nil || time.Since(began) > StatesWaitMax/2 {
		t.Errorf("one more got %+v, %v after %s: want an answer at once", res, err, time.Since(began))
	}
	cancel()
	wg.Wait()
	if len(s.holds) != 0 {
		t.Errorf("%d still count as held", len(s.holds))
	}
}

// BenchmarkRequest is one request over the socket, with a connection of its own.
func BenchmarkRequest(b *testing.B) {
	dir := b.TempDir()
	s := NewServer(newRecorder(), Options{Socket: dir + "/s"})
	if err := s.Start(); err != nil {
		b.Fatal(err)
	}
	defer s.Stop()
	c := clientOf(s.opts.Socket)
	for b.Loop() {
		if _, err := c.Hosts(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
