package cache

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/dedup"
	"gpuqd/daemon/job"
	"gpuqd/test/services"
	"gpuqd/test/sim/world"
)

// redisSite is a Redis, real or simulated, as the scenario needs it.
type redisSite struct {
	open        func() agent.DoneCache // a process's cache
	flush       func()
	stop, start func()
}

// scenario is what the agent may expect of any done-cache.
func scenario(t *testing.T, r redisSite) {
	ctx := t.Context()
	hit := func(c agent.DoneCache, id job.ID, want job.State) {
		t.Helper()
		if got, ok := c.Done(ctx, id); !ok || got != want {
			t.Errorf("got %q, %v; want a hit of %q", got, ok, want)
		}
	}
	miss := func(c agent.DoneCache, id job.ID) {
		t.Helper()
		if got, ok := c.Done(ctx, id); ok || got != "" {
			t.Errorf("got %q, %v; want a miss", got, ok)
		}
	}
	healthy := func(c agent.DoneCache, want bool, words string) {
		t.Helper()
		if ok, why := c.Healthy(); ok != want || !strings.Contains(why, words) {
			t.Errorf("healthy %v (%s), want %v with the words %q", ok, why, want, words)
		}
	}
	job1, job2 := job.NewID(), job.NewID()
	a, b := r.open(), r.open()

	// Idle until the ledger is known.
	healthy(a, true, "idle")
	a.Store(ctx, job1, job.Succeeded)
	a.SetLedger("ledger-1")
	miss(a, job1)
	healthy(a, true, "ok")

	// A hit after a store, by each process; a miss for others.
	a.Store(ctx, job1, job.Succeeded)
	hit(a, job1, job.Succeeded)
	miss(a, job2)
	b.SetLedger("ledger-1")
	hit(b, job1, job.Succeeded)

	// Every terminal state is remembered, and no other.
	for _, state := range append(job.States, "nonsense", "") {
		id := job.NewID()
		a.Store(ctx, id, state)
		if state.Terminal() {
			hit(b, id, state)
		} else {
			miss(b, id)
		}
	}

	// Ledgers are apart.
	b.SetLedger("ledger-2")
	miss(b, job1)
	b.Store(ctx, job1, job.Killed)
	hit(a, job1, job.Succeeded)
	b.SetLedger("ledger-1")
	hit(b, job1, job.Succeeded)

	// It may forget.
	r.flush()
	miss(a, job1)
	a.Store(ctx, job1, job.Failed)
	hit(b, job1, job.Failed)

	// A caller who gives up is no outage.
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, ok := a.Done(gone, job1); ok {
		t.Error("a hit without asking")
	}
	a.Store(gone, job2, job.Dead)
	healthy(a, true, "ok")

	// Absent, it misses, and quickly: not each call pays for it.
	r.stop()
	began := time.Now()
	for range 500 {
		miss(a, job1)
		a.Store(ctx, job1, job.Failed)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("1000 calls without a server took %s", took)
	}
	healthy(a, false, "fail")

	// It is back by itself.
	r.start()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if ok, _ := a.Healthy(); ok {
			break
		}
	}
	healthy(a, true, "ok")
	a.Store(ctx, job2, job.Dead)
	hit(a, job2, job.Dead)
}

func TestScenarioOnRedis(t *testing.T) {
	server, err := services.NewRedis(services.RedisOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	start := func() {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := server.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	start()
	t.Cleanup(server.Kill)
	direct := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { direct.Close() })
	scenario(t, redisSite{
		open: func() agent.DoneCache {
			c := dedup.New(dedup.Config{Addrs: []string{server.Addr}, Timeout: time.Second})
			t.Cleanup(c.Close)
			return c
		},
		flush: func() {
			if err := direct.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		},
		stop: server.Kill, start: start,
	})
}

func TestScenarioOnSimulation(t *testing.T) {
	for name, link := range map[string]world.Link{"Refused": world.Refused, "Cut": world.Cut, "Frozen": world.Frozen} {
		t.Run(name, func(t *testing.T) {
			inSite(t, func(t *testing.T, w *world.World, s *Server, h *world.Host) {
				scenario(t, redisSite{
					open:  func() agent.DoneCache { return NewClient(s, h.Start("gpuqd", nil), 0) },
					flush: s.Flush,
					stop:  func() { w.SetLink(world.Everyone, Part, link) },
					start: func() { w.SetLink(world.Everyone, Part, world.Up) },
				})
			})
		})
	}
}

func inSite(t *testing.T, f func(*testing.T, *world.World, *Server, *world.Host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := world.New(1)
		w.SetRates(Part, world.Rates{Fast: 100 * time.Microsecond, Slow: time.Millisecond})
		h := w.NewHost("h1")
		f(t, w, NewServer(w), h)
		h.Crash()
		time.Sleep(time.Minute) // what is on its way arrives
	})
}

func client(s *Server, h *world.Host) *Client {
	c := NewClient(s, h.Start("gpuqd", nil), 0)
	c.SetLedger("ledger-1")
	return c
}

func TestFailOverLosesTheLastWrites(t *testing.T) {
	inSite(t, func(t *testing.T, w *world.World, s *Server, h *world.Host) {
		ctx := t.Context()
		c := client(s, h)
		next := func(want int64) {
			t.Helper()
			if n, err := c.NextFence(ctx, "a"); err != nil || n != want {
				t.Errorf("counted %d (%v), want %d", n, err, want)
			}
		}
		c.Store(ctx, "a", job.Succeeded)
		next(1)
		time.Sleep(10 * time.Second)
		c.Store(ctx, "b", job.Succeeded)
		c.Store(ctx, "a", job.Killed)
		next(2)
		next(3)
		s.FailOver(5 * time.Second)
		if state, hit := c.Done(ctx, "a"); !hit || state != job.Succeeded {
			t.Errorf("the early write reads %q, %v", state, hit)
		}
		if _, hit := c.Done(ctx, "b"); hit {
			t.Error("the late write is there")
		}
		next(2) // once more: a fence that two claims have
		s.Flush()
		next(1)
	})
}

func TestJobIsForgottenAfterItsTime(t *testing.T) {
	inSite(t, func(t *testing.T, w *world.World, s *Server, h *world.Host) {
		c := client(s, h)
		c.Store(t.Context(), "a", job.Succeeded)
		time.Sleep(ttl - time.Minute)
		if _, hit := c.Done(t.Context(), "a"); !hit {
			t.Error("forgotten too early")
		}
		time.Sleep(time.Hour)
		if _, hit := c.Done(t.Context(), "a"); hit {
			t.Error("remembered for too long")
		}
	})
}

func TestSlowServerIsAMissWithinItsTime(t *testing.T) {
	inSite(t, func(t *testing.T, w *world.World, s *Server, h *world.Host) {
		c := client(s, h)
		c.Store(t.Context(), "a", job.Succeeded)
		w.SetRates(Part, world.Rates{LoseAnswer: 1})
		began := time.Now()
		if _, hit := c.Done(t.Context(), "a"); hit {
			t.Error("a hit without an answer")
		}
		if took := time.Since(began); took < TimeoutDefault || took > TimeoutDefault+2*time.Millisecond {
			t.Errorf("it took %s", took)
		}
		if ok, why := c.Healthy(); ok || !strings.HasPrefix(why, "reads fail") {
			t.Errorf("healthy %v (%s)", ok, why)
		}
		w.SetRates(Part, world.Rates{Fast: time.Second, Slow: 2 * time.Second})
		time.Sleep(10 * time.Second)
		if _, hit := c.Done(t.Context(), "a"); hit {
			t.Error("a late answer was taken")
		}
		if _, err := c.NextFence(t.Context(), "a"); err != nil && !errors.Is(err, world.ErrNoAnswer) {
			t.Errorf("the count failed: %v", err)
		}
	})
}

// A dead process's probe ends with it, else the bubble would never end.
func TestProbeEndsWithItsProcess(t *testing.T) {
	inSite(t, func(t *testing.T, w *world.World, s *Server, h *world.Host) {
		c := client(s, h)
		w.SetLink(h.Name(), Part, world.Cut)
		c.Done(t.Context(), "a")
		time.Sleep(1100 * time.Millisecond) // a probe is under way
		h.Crash()
		time.Sleep(time.Minute)
		probes := 0
		w.OnStep(func(world.Step) { probes++ })
		time.Sleep(time.Minute)
		if probes != 0 {
			t.Errorf("%d probes of a dead process", probes)
		}
	})
}
