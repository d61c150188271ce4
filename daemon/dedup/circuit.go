package dedup

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// How often the probe asks while Redis does not answer, and while it does.
const (
	probeEveryDown = time.Second
	probeEveryUp   = 15 * time.Second
)

// circuit keeps callers from a Redis that fails. One failure opens it; the probe
// closes it. Each change is logged once.
type circuit struct {
	what string // what it guards, for people
	log  *slog.Logger

	mu    sync.Mutex
	err   error     // why it is open; nil when closed
	since time.Time // when it opened
}

func newCircuit(what string, log *slog.Logger) *circuit { return &circuit{what: what, log: log} }

// closed reports whether Redis may be asked.
func (c *circuit) closed() bool { return c.trouble() == nil }

// trouble returns why the circuit is open; nil when it is closed.
func (c *circuit) trouble() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail opens the circuit. Calls that were under way fail too and change nothing.
func (c *circuit) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err, c.since = err, time.Now()
	c.log.Warn("done-cache is out of use, the ledger is asked instead", "reason", c.what, "err", err)
}

// mend closes the circuit.
func (c *circuit) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		return
	}
	c.err = nil
	c.log.Info("done-cache is in use again", "reason", c.what, "duration_seconds", time.Since(c.since).Seconds())
}

// watch probes Redis until ctx ends: often while a circuit is open, so that the
// cache comes back, else now and then, so that Healthy tells the truth of an idle
// host.
func (c *Cache) watch(ctx context.Context) {
	probed := time.Time{}
	tick := time.NewTicker(probeEveryDown)
	defer tick.Stop()
	for {
		down := !c.reads.closed() || !c.writes.closed()
		if c.ledgerID() != "" && (down || time.Since(probed) >= probeEveryUp) {
			probed = time.Now()
			c.ping(ctx)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// ping tries one write and one read, of the kind that the cache makes and under
// the same prefix, where an account restricted to it may go.
func (c *Cache) ping(ctx context.Context) {
	key, ok := c.key("probe")
	if !ok {
		return
	}
	try := func(circuit *circuit, operation string, question func(context.Context) error) {
		err := c.ask(ctx, circuit, operation, question)
		if err == nil || errors.Is(err, redis.Nil) {
			circuit.mend()
		}
	}
	try(c.writes, "set", func(ctx context.Context) error {
		return c.client.Set(ctx, key, "", 2*probeEveryUp).Err()
	})
	try(c.reads, "get", func(ctx context.Context) error { return c.client.Get(ctx, key).Err() })
}
