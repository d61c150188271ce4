package queue

import (
	"context"
	"fmt"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/test/sim/world"
)

// DeclareShape implements agent.Broker.
func (c *Client) DeclareShape(ctx context.Context, queue string) error {
	name := plain(queue)
	k, err := c.current(ctx, &c.look, c.s.DeclareTimeout)
	if err != nil {
		return fmt.Errorf("declare queue %s: %w", name, err)
	}
	known := false
	c.s.w.Do(func() { known = k.shapes[name] })
	if known {
		return nil
	}
	err = c.asks(ctx, k, "broker declare", name, func() {
		c.s.declare(name, work)
		c.s.declare(again(name), work)
	})
	if err != nil {
		return fmt.Errorf("declare queue %s: %w", name, err)
	}
	c.s.w.Do(func() {
		if k.shapes == nil {
			k.shapes = map[string]bool{}
		}
		k.shapes[name] = true
	})
	return nil
}

// noteMissing makes the next DeclareShape ask again. Within the instant.
func (c *Client) noteMissing(queue string) {
	if k := c.look.cur; k != nil {
		delete(k.shapes, plain(queue))
	}
}

// Depth implements agent.Broker.
func (c *Client) Depth(ctx context.Context, queue string) (int, error) {
	k, err := c.current(ctx, &c.look, c.s.DeclareTimeout)
	if err != nil {
		return 0, fmt.Errorf("look at queue %s: %w", queue, err)
	}
	depth, missing, headless := 0, false, false
	err = c.asks(ctx, k, "broker depth", queue, func() {
		q := c.s.queues[queue]
		if missing = q == nil; missing {
			return
		}
		if headless = c.s.headless(q); !headless {
			depth = q.depth()
		}
	})
	if err == nil && headless { // in this order: a late answer is nobody's
		time.Sleep(leaderWait)
		err = c.p.Wait()
	}
	if err != nil {
		return 0, fmt.Errorf("look at queue %s: %w", queue, err)
	}
	if missing {
		c.s.w.Do(func() { c.noteMissing(queue) })
		return 0, fmt.Errorf("look at queue %s: %w", queue, broker.ErrNoQueue)
	}
	return depth, nil
}

// leaderWait is how long the broker asks for a queue's leader before it says 0
// (measured on 3.10.8).
const leaderWait = 250 * time.Millisecond

// asks makes one call on the look connection. What effect writes is the caller's
// when it returns nil.
func (c *Client) asks(ctx context.Context, k *conn, step, key string, effect func()) error {
	both := k.both(ctx)
	defer both.release()
	err := k.call(both, world.Call{Step: step, Key: key, Timeout: c.s.DeclareTimeout, Effect: effect}, false)
	if err == nil || err == world.ErrDead {
		return err
	}
	return fmt.Errorf("%w: the broker does not answer: %w", broker.ErrUnreachable, err)
}
