package campaign

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

// clients submits and kills jobs as people's programs do: some through one
// daemon's socket and then another's, some through the broker.
type clients struct {
	ways []*control.Client // each with another order of ways

	mu    sync.Mutex
	rand  *rand.Rand
	tally Outcomes
	told  map[job.ID]time.Time // when the submission was confirmed
}

// Outcomes counts what clients were told.
type Outcomes struct {
	Requests  int `json:"requests"`
	Confirmed int `json:"confirmed"`
	// Unknown outcomes: the request may have been carried out. It was repeated,
	// a submission with the same UUID.
	Unknown int `json:"unknown"`
	// Unavailable: nothing was done, said the daemons, or none answered.
	Unavailable int `json:"unavailable"`
	// Existing submissions had been carried out by a request with an unknown
	// outcome.
	Existing int `json:"existing"`
	Delayed  int `json:"delayed"` // confirmed with a warning, such as of a broker out of reach
}

func newClients(cfg config.Client, seed uint64) *clients {
	c := &clients{rand: source(seed, streamClients), told: map[job.ID]time.Time{}}
	for i := range cfg.Sockets {
		turned := cfg
		turned.Sockets = append(slices.Clone(cfg.Sockets[i:]), cfg.Sockets[:i]...)
		c.add(turned)
	}
	brokerOnly := cfg
	brokerOnly.Sockets = nil
	c.add(brokerOnly)
	return c
}

func (c *clients) add(cfg config.Client) {
	client := control.Dial(cfg)
	client.Patience = 0 // repetitions are counted here
	c.ways = append(c.ways, client)
}

func (c *clients) close() {
	for _, way := range c.ways {
		way.Close()
	}
}

// any picks one of the clients.
func (c *clients) any() *control.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ways[c.rand.IntN(len(c.ways))]
}

// repeatAfter is the pause before a request is repeated.
const repeatAfter = time.Second

// submit hands a job in and repeats that, with the same UUID, until it is
// confirmed or ctx ends. A refusal is an error.
func (c *clients) submit(ctx context.Context, id job.ID, spec job.Spec) error {
	err := c.repeat(ctx, func(client *control.Client) error {
		reply, err := client.Submit(ctx, job.Submission{ID: id, Spec: spec})
		if err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.told[id] = time.Now()
		if !reply.Created {
			c.tally.Existing++
		}
		if reply.Warning != "" {
			c.tally.Delayed++
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("submit job %s: %w", id, err)
	}
	return nil
}

// kill asks for a job's end until the request is confirmed.
func (c *clients) kill(ctx context.Context, id job.ID) error {
	err := c.repeat(ctx, func(client *control.Client) error {
		_, err := client.Kill(ctx, control.KillArgs{ID: id, Reason: "its owner wants it no more"})
		return err
	})
	if err != nil {
		return fmt.Errorf("kill job %s: %w", id, err)
	}
	return nil
}

// repeat makes a request until it is answered.
func (c *clients) repeat(ctx context.Context, request func(*control.Client) error) error {
	for {
		err := request(c.any())
		if again := c.count(err); !again {
			return err
		}
		if stopped := pause(ctx, repeatAfter); stopped != nil {
			return errors.Join(stopped, err)
		}
	}
}

// count notes an outcome and reports whether to repeat the request.
func (c *clients) count(err error) (again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tally.Requests++
	switch {
	case err == nil:
		c.tally.Confirmed++
	case errors.Is(err, control.ErrUnknownOutcome):
		c.tally.Unknown++
		return true
	case errors.Is(err, control.ErrUnavailable):
		c.tally.Unavailable++
		return true
	}
	return false
}

// confirmed returns when each submission was confirmed.
func (c *clients) confirmed() (Outcomes, map[job.ID]time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tally, c.told
}
