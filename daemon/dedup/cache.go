// Package dedup is the done-cache: the IDs of jobs that are terminal, kept in
// Redis, so that a duplicate delivery of a finished job is turned away without
// asking the ledger.
//
// It is a speed-up and nothing else. Whatever goes wrong reads as "not known",
// within a short timeout, and while Redis does not answer it is not asked: a
// background probe finds out when it is back, no job waits for that.
package dedup

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"gpuqd/daemon/job"
)

// Defaults of Config.
const (
	DefaultTTL     = 24 * time.Hour
	DefaultTimeout = 100 * time.Millisecond
)

// Config says where Redis is and how it is used.
type Config struct {
	// Addrs is the server (host:port), or all Sentinels when MasterName is set.
	// Several without MasterName are a Redis Cluster. None turns the cache off.
	Addrs            []string
	MasterName       string // as the Sentinels call the primary; "" for no Sentinel
	Username         string
	Password         string
	SentinelUsername string
	SentinelPassword string
	TLS              *tls.Config // nil is plain TCP

	LedgerID string        // names the keys; "" leaves the cache idle until SetLedger
	TTL      time.Duration // how long a job is remembered; 0 is DefaultTTL
	Timeout  time.Duration // bound of each question; 0 is DefaultTimeout
	Logger   *slog.Logger  // nil is silent
	// Observe is told of every question to Redis: get, set or del, those of the
	// probe too; its result (ok, miss, timeout, failed); and the time it took. It
	// must not block. Nil for none.
	Observe func(operation, result string, took time.Duration)
}

// Cache is a done-cache. The zero Cache is not valid, one without addresses is:
// it never hits. All methods may be called from any goroutine.
type Cache struct {
	client  redis.UniversalClient // nil when the cache is off
	ledger  atomic.Value          // string
	ttl     time.Duration
	timeout time.Duration
	observe func(operation, result string, took time.Duration)

	// Reads and writes fail apart: a full server, or a replica, answers reads.
	reads, writes *circuit

	// What Inspect asks the Sentinels with.
	addrs                          []string
	masterName                     string
	sentinelUser, sentinelPassword string
	tls                            *tls.Config

	stop  context.CancelFunc
	probe sync.WaitGroup
	close sync.Once
}

// New returns a cache and starts its probe; Close ends it. It does not wait for
// Redis.
func New(cfg Config) *Cache {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Cache{
		ttl:     cfg.TTL,
		timeout: cfg.Timeout,
		observe: cfg.Observe,
		reads:   newCircuit("reads", log),
		writes:  newCircuit("writes", log),
		stop:    func() {},

		addrs: cfg.Addrs, masterName: cfg.MasterName, tls: cfg.TLS,
		sentinelUser: cfg.SentinelUsername, sentinelPassword: cfg.SentinelPassword,
	}
	if c.ttl <= 0 {
		c.ttl = DefaultTTL
	}
	if c.timeout <= 0 {
		c.timeout = DefaultTimeout
	}
	c.SetLedger(cfg.LedgerID)
	if len(cfg.Addrs) == 0 {
		return c
	}
	hear(log)
	c.client = connect(cfg, c.timeout)
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	c.probe.Go(func() { c.watch(ctx) })
	return c
}

// connect makes the client; it connects when first used. Nothing is retried
// inside it: a late answer is worth nothing here.
func connect(cfg Config, timeout time.Duration) redis.UniversalClient {
	logging.Disable() // what the library would print comes back as an error too
	return redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs:                    cfg.Addrs,
		MasterName:               cfg.MasterName,
		Username:                 cfg.Username,
		Password:                 cfg.Password,
		SentinelUsername:         cfg.SentinelUsername,
		SentinelPassword:         cfg.SentinelPassword,
		TLSConfig:                cfg.TLS,
		ClientName:               "gpuqd",
		DisableIdentity:          true, // no CLIENT SETINFO: refused before Redis 7.2
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		MaxRetries:               -1,
		DialerRetries:            1,
		DialTimeout:              max(timeout, time.Second), // TLS may take longer than one answer; callers wait for timeout only
		ReadTimeout:              timeout,
		WriteTimeout:             timeout,
		PoolTimeout:              timeout,
		ContextTimeoutEnabled:    true,
	})
}

// SetLedger names the ledger whose jobs are remembered from now on; "" idles the
// cache. Jobs of another ledger that shares the Redis are never hits.
func (c *Cache) SetLedger(id string) { c.ledger.Store(id) }

// Done returns the terminal state of a job that the cache remembers as done. A
// miss means nothing: the ledger must be asked.
func (c *Cache) Done(ctx context.Context, id job.ID) (job.State, bool) {
	key, ok := c.key(id)
	if !ok || !c.reads.closed() {
		return "", false
	}
	var value string
	err := c.ask(ctx, c.reads, "get", func(ctx context.Context) (err error) {
		value, err = c.client.Get(ctx, key).Result()
		return err
	})
	state := job.State(value)
	if err != nil || !state.Terminal() {
		return "", false
	}
	return state, true
}

// Store remembers a job as done. A state that is not terminal is not stored.
func (c *Cache) Store(ctx context.Context, id job.ID, state job.State) {
	key, ok := c.key(id)
	if !ok || !state.Terminal() || !c.writes.closed() {
		return
	}
	_ = c.ask(ctx, c.writes, "set", func(ctx context.Context) error { // the circuit has taken note
		return c.client.Set(ctx, key, string(state), c.ttl).Err()
	})
}

// Forget drops a job from the cache, if Redis answers.
func (c *Cache) Forget(ctx context.Context, id job.ID) {
	key, ok := c.key(id)
	if !ok || !c.writes.closed() {
		return
	}
	_ = c.ask(ctx, c.writes, "del", func(ctx context.Context) error { // the circuit has taken note
		return c.client.Del(ctx, key).Err()
	})
}

// Healthy reports whether Redis answered last, and in words what the matter is.
// A cache that is off is healthy. It asks nobody.
func (c *Cache) Healthy() (bool, string) {
	if c.client == nil {
		return true, "off: no address is configured"
	}
	if c.ledgerID() == "" {
		return true, "idle: the ledger is not known yet"
	}
	for _, circuit := range []*circuit{c.reads, c.writes} {
		if err := circuit.trouble(); err != nil {
			return false, circuit.what + " fail: " + err.Error()
		}
	}
	return true, "ok"
}

// Close ends the probe and the connections. The cache never hits afterwards. It
// may be called twice.
func (c *Cache) Close() {
	c.close.Do(func() {
		c.SetLedger("")
		c.stop()
		c.probe.Wait()
		if c.client != nil {
			_ = c.client.Close() // nothing is buffered that could be lost
		}
	})
}

func (c *Cache) ledgerID() string { return c.ledger.Load().(string) }

// key returns the key of a job; false when there is nothing to ask.
func (c *Cache) key(id job.ID) (string, bool) {
	ledger := c.ledgerID()
	return "gpuq:done:" + ledger + ":" + string(id), c.client != nil && ledger != ""
}

// ask puts one question within the timeout, and tells the circuit of an answer
// that failed, unless it was the caller who gave up.
func (c *Cache) ask(ctx context.Context, circuit *circuit, operation string, question func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	began := time.Now()
	err := question(bounded)
	if c.observe != nil {
		c.observe(operation, resultOf(err), time.Since(began))
	}
	if err != nil && !errors.Is(err, redis.Nil) && ctx.Err() == nil {
		circuit.fail(err)
	}
	return err
}
