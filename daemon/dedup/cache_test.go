package dedup

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"gpuqd/daemon/job"
	"gpuqd/test/services"
	"gpuqd/test/wait"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) count(what string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), what)
}

// What the log says of an outage of one direction, and of its end.
const (
	readsDown  = "is out of use, the ledger is asked instead\" reason=reads"
	writesDown = "is out of use, the ledger is asked instead\" reason=writes"
	readsUp    = "is in use again\" reason=reads"
	writesUp   = "is in use again\" reason=writes"
)

// fixture is a Redis with one cache on it and a client to look behind the scenes.
type fixture struct {
	*Cache
	server *services.Redis
	direct *redis.Client
	log    *logBuffer
}

func start(t *testing.T, password string) *fixture {
	t.Helper()
	server, err := services.NewRedis(services.RedisOptions{Dir: t.TempDir(), Password: password})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := server.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Kill)
	f := &fixture{server: server, log: &logBuffer{}}
	f.direct = redis.NewClient(&redis.Options{Addr: server.Addr, Password: password})
	t.Cleanup(func() { f.direct.Close() })
	f.Cache = f.another(t, "ledger-1")
	return f
}

// another returns a further cache on the same server.
func (f *fixture) another(t *testing.T, ledger string) *Cache {
	c := New(Config{
		Addrs:    []string{f.server.Addr},
		Password: f.server.Password,
		LedgerID: ledger,
		TTL:      time.Hour,
		Timeout:  time.Second, // of a server that is there, on a busy machine
		Logger:   slog.New(slog.NewTextHandler(f.log, nil)),
	})
	t.Cleanup(c.Close)
	return c
}

func (f *fixture) wantHit(t *testing.T, id job.ID, want job.State) {
	t.Helper()
	if got, hit := f.Done(t.Context(), id); !hit || got != want {
		t.Errorf("got %q, %v; want a hit of %q", got, hit, want)
	}
}

func wantMiss(t *testing.T, c *Cache, id job.ID) {
	t.Helper()
	if got, hit := c.Done(t.Context(), id); hit || got != "" {
		t.Errorf("got %q, %v; want a miss", got, hit)
	}
}

func TestCache(t *testing.T) {
	f := start(t, "secret")

	t.Run("RemembersEveryTerminalStateAndNoOther", func(t *testing.T) {
		for _, state := range append(job.States, "nonsense", "") {
			id := job.NewID()
			wantMiss(t, f.Cache, id)
			f.Store(t.Context(), id, state)
			if state.Terminal() {
				f.wantHit(t, id, state)
			} else {
				wantMiss(t, f.Cache, id)
			}
		}
	})

	t.Run("KeyNamesTheLedgerAndExpires", func(t *testing.T) {
		id := job.NewID()
		f.Store(t.Context(), id, job.Failed)
		key := "gpuq:done:ledger-1:" + string(id)
		ttl, err := f.direct.PTTL(t.Context(), key).Result()
		if err != nil || ttl <= 59*time.Minute || ttl > time.Hour {
			t.Errorf("%s lives for %s (%v), want an hour", key, ttl, err)
		}
	})

	t.Run("ValueThatIsNoTerminalStateIsAMiss", func(t *testing.T) {
		for _, value := range []string{"running", "queued", "", "SUCCEEDED", "succeeded\n"} {
			id := job.NewID()
			if err := f.direct.Set(t.Context(), "gpuq:done:ledger-1:"+string(id), value, time.Minute).Err(); err != nil {
				t.Fatal(err)
			}
			wantMiss(t, f.Cache, id)
		}
	})

	t.Run("OtherLedgersJobIsAMiss", func(t *testing.T) {
		id := job.NewID()
		other := f.another(t, "")
		f.Store(t.Context(), id, job.Succeeded)
		other.Store(t.Context(), id, job.Killed) // no ledger yet: goes nowhere
		wantMiss(t, other, id)
		other.SetLedger("ledger-2")
		wantMiss(t, other, id)
		other.SetLedger("ledger-1")
		if got, hit := other.Done(t.Context(), id); !hit || got != job.Succeeded {
			t.Errorf("got %q, %v once the ledger is the same; want succeeded", got, hit)
		}
	})

	t.Run("ForgottenOrFlushedIsAMiss", func(t *testing.T) {
		one, two := job.NewID(), job.NewID()
		f.Store(t.Context(), one, job.Succeeded)
		f.Store(t.Context(), two, job.Succeeded)
		f.Forget(t.Context(), one)
		wantMiss(t, f.Cache, one)
		f.wantHit(t, two, job.Succeeded)
		if err := f.direct.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		wantMiss(t, f.Cache, two)
		f.Store(t.Context(), two, job.Succeeded)
		f.wantHit(t, two, job.Succeeded)
	})

	t.Run("CallerWhoGivesUpIsNoOutage", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, hit := f.Done(ctx, job.NewID()); hit {
			t.Error("a hit without asking")
		}
		f.Store(ctx, job.NewID(), job.Dead)
	})

	t.Run("ManyAtOnceGetTheirOwnAnswers", func(t *testing.T) {
		var wg sync.WaitGroup
		for worker := range 16 {
			wg.Go(func() {
				for i := range 50 {
					id := job.KeyID("worker", fmt.Sprint(worker, i))
					want := []job.State{job.Succeeded, job.Failed, job.Killed, job.Dead}[(worker+i)%4]
					f.Store(t.Context(), id, want)
					if got, hit := f.Done(t.Context(), id); !hit || got != want {
						t.Errorf("got %q, %v; want %q", got, hit, want)
					}
				}
			})
		}
		wg.Wait()
	})

	if ok, what := f.Healthy(); !ok || what != "ok" || f.log.count("done-cache") != 0 {
		t.Errorf("healthy %v (%s) and %d log lines; want ok and none", ok, what, f.log.count("done-cache"))
	}
}

// TestOutage defends: while Redis does not answer, jobs are taken as fast as
// without it, and the cache comes back by itself.
func TestOutage(t *testing.T) {
	for _, c := range []struct {
		name      string
		fall, end func(*testing.T, *fixture)
	}{
		{
			"Stopped",
			func(_ *testing.T, f *fixture) { f.server.Stop(patience) },
			func(t *testing.T, f *fixture) {
				if err := f.server.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			},
		},
		{
			"Frozen",
			func(t *testing.T, f *fixture) { signal(t, f, syscall.SIGSTOP) },
			func(t *testing.T, f *fixture) { signal(t, f, syscall.SIGCONT) },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, "")
			id := job.NewID()
			f.Store(t.Context(), id, job.Succeeded)
			f.wantHit(t, id, job.Succeeded)

			c.fall(t, f)
			began := time.Now()
			for range 2000 {
				wantMiss(t, f.Cache, id)
				f.Store(t.Context(), id, job.Succeeded)
			}
			// One read and one write may pay the timeout of a second; without the
			// circuit it would be each of 4000.
			if took := time.Since(began); took > patience {
				t.Errorf("4000 calls took %s with Redis away", took)
			}
			if ok, what := f.Healthy(); ok || !strings.Contains(what, "fail") {
				t.Errorf("healthy %v (%s) with Redis away", ok, what)
			}

			c.end(t, f)
			wait.Until(t, "the cache is in use again", func() bool { ok, _ := f.Healthy(); return ok })
			f.Store(t.Context(), id, job.Killed)
			f.wantHit(t, id, job.Killed)
			for _, line := range []string{readsDown, writesDown, readsUp, writesUp} {
				if n := f.log.count(line); n != 1 {
					t.Errorf("logged %d times, want once: %s", n, line)
				}
			}
		})
	}
}

func signal(t *testing.T, f *fixture, s syscall.Signal) {
	t.Helper()
	if err := f.server.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// A full server refuses writes; what it knows must still be read.
func TestFullServerIsStillRead(t *testing.T) {
	f := start(t, "")
	id := job.NewID()
	f.Store(t.Context(), id, job.Succeeded)
	if err := f.direct.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		f.Store(t.Context(), job.NewID(), job.Failed)
		f.wantHit(t, id, job.Succeeded)
	}
	if f.log.count(writesDown) != 1 || f.log.count(readsDown) != 0 || f.log.count("OOM") != 1 {
		t.Error("want one line on writes, with the server's words, and none on reads")
	}
	if err := f.direct.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "writes work again", func() bool { ok, _ := f.Healthy(); return ok })
}

func TestCacheThatCannotWork(t *testing.T) {
	t.Run("OffNeverHitsAndIsHealthy", func(t *testing.T) {
		c := New(Config{LedgerID: "ledger-1"})
		id := job.NewID()
		c.Store(t.Context(), id, job.Succeeded)
		c.Forget(t.Context(), id)
		wantMiss(t, c, id)
		if ok, what := c.Healthy(); !ok || !strings.Contains(what, "off") {
			t.Errorf("healthy %v (%s), want off", ok, what)
		}
		c.Close()
		c.Close()
	})

	t.Run("ClosedNeverHits", func(t *testing.T) {
		f := start(t, "")
		id := job.NewID()
		f.Store(t.Context(), id, job.Succeeded)
		f.Close()
		f.Close()
		wantMiss(t, f.Cache, id)
	})

	t.Run("NobodyThereFromTheStartIsFoundOutByTheProbe", func(t *testing.T) {
		ports, err := services.FreePorts(1)
		if err != nil {
			t.Fatal(err)
		}
		c := New(Config{Addrs: []string{fmt.Sprintf("127.0.0.1:%d", ports[0])}, LedgerID: "ledger-1"})
		defer c.Close()
		wait.Until(t, "the probe fails", func() bool { ok, _ := c.Healthy(); return !ok })
		wantMiss(t, c, job.NewID())
	})

	t.Run("WrongPasswordIsAnOutageWithItsReason", func(t *testing.T) {
		f := start(t, "secret")
		c := New(Config{Addrs: []string{f.server.Addr}, Password: "guess", LedgerID: "ledger-1", Timeout: time.Second})
		defer c.Close()
		wantMiss(t, c, job.NewID())
		if ok, what := c.Healthy(); ok || !strings.Contains(what, "WRONGPASS") {
			t.Errorf("healthy %v (%s), want WRONGPASS", ok, what)
		}
	})
}
