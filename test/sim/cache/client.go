package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/job"
	"gpuqd/test/sim/world"
)

// TimeoutDefault bounds one question of a client that is not told another.
const TimeoutDefault = 250 * time.Millisecond

// probeEvery is how often a server that failed is tried, as in package dedup.
const probeEvery = time.Second

// Client is the done-cache of one process.
type Client struct {
	server  *Server
	process *world.Process
	timeout time.Duration

	mu      sync.Mutex // never held over a call
	ledger  string
	reads   error // why reads are given up for now; nil where they are not
	writes  error
	probing bool // a probe is under way or set for later
}

var _ agent.DoneCache = (*Client)(nil)

// NewClient returns a process's cache on the server; a timeout of 0 is
// TimeoutDefault. It needs no end: what it starts ends with the process.
func NewClient(s *Server, p *world.Process, timeout time.Duration) *Client {
	if timeout <= 0 {
		timeout = TimeoutDefault
	}
	return &Client{server: s, process: p, timeout: timeout}
}

// SetLedger implements agent.DoneCache.
func (c *Client) SetLedger(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ledger = id
}

// Done implements agent.DoneCache.
func (c *Client) Done(ctx context.Context, id job.ID) (job.State, bool) {
	key, ok := c.key(id, &c.reads)
	if !ok {
		return "", false
	}
	var state job.State
	err := c.ask(ctx, &c.reads, "redis done", id, func() {
		value, _ := c.server.get(key)
		state = job.State(value)
	})
	if err != nil || !state.Terminal() {
		return "", false
	}
	return state, true
}

// Store implements agent.DoneCache.
func (c *Client) Store(ctx context.Context, id job.ID, state job.State) {
	key, ok := c.key(id, &c.writes)
	if !ok || !state.Terminal() {
		return
	}
	_ = c.ask(ctx, &c.writes, "redis store", id, func() { c.server.set(key, string(state), ttl) }) // ask has taken note
}

// Healthy implements agent.DoneCache.
func (c *Client) Healthy() (bool, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ledger == "":
		return true, "idle: the ledger is not known yet"
	case c.reads != nil:
		return false, "reads fail: " + c.reads.Error()
	case c.writes != nil:
		return false, "writes fail: " + c.writes.Error()
	}
	return true, "ok"
}

// NextFence counts the claims of a job in Redis and returns how many there are
// now. Nothing of gpuqd does so, since Redis forgets: it is for a defect that is
// planted on purpose.
func (c *Client) NextFence(ctx context.Context, id job.ID) (int64, error) {
	c.mu.Lock()
	key := "gpuq:fence:" + c.ledger + ":" + string(id)
	c.mu.Unlock()
	var n int64
	err := c.process.Do(ctx, world.Call{
		Part: Part, Step: "redis fence", Key: string(id), Timeout: c.timeout,
		Effect: func() { n = c.server.increment(key) },
	})
	if err != nil {
		return 0, fmt.Errorf("count the claims of job %s in redis: %w", id, err)
	}
	return n, nil
}

// key returns the key of a job, and false where there is nobody to ask.
func (c *Client) key(id job.ID, circuit *error) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ledger == "" || *circuit != nil {
		return "", false
	}
	return "gpuq:done:" + c.ledger + ":" + string(id), true
}

// ask puts one question. One that fails opens the circuit, unless it was the
// caller who gave up or the process that died.
func (c *Client) ask(ctx context.Context, circuit *error, step string, id job.ID, effect func()) error {
	began := c.server.world.Now()
	err := c.process.Do(ctx, world.Call{Part: Part, Step: step, Key: string(id), Timeout: c.timeout, Effect: effect})
	if err == nil && c.server.world.Now()-began > c.timeout {
		err = world.ErrNoAnswer // it came too late
	}
	if err == nil || ctx.Err() != nil || errors.Is(err, world.ErrDead) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if *circuit == nil {
		*circuit = err
	}
	if !c.probing {
		c.probing = true
		time.AfterFunc(probeEvery, c.probe)
	}
	return err
}

// probe tries one write and one read, and again in a while if either fails.
func (c *Client) probe() {
	try := func(circuit *error, step string, effect func()) bool {
		err := c.process.Do(context.Background(), world.Call{Part: Part, Step: step, Key: "probe", Timeout: c.timeout, Effect: effect})
		c.mu.Lock()
		defer c.mu.Unlock()
		*circuit = err
		return err == nil || errors.Is(err, world.ErrDead)
	}
	key := "gpuq:done:probe"
	wrote := try(&c.writes, "redis probe", func() { c.server.set(key, "", time.Minute) })
	read := try(&c.reads, "redis probe", func() { c.server.get(key) })
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.probing = !wrote || !read; c.probing {
		time.AfterFunc(probeEvery, c.probe)
	}
}
