package queue

import (
	"context"
	"slices"

	"gpuqd/test/sim/world"
)

// ringsWaiting bounds the queues with a ring not yet sent.
const ringsWaiting = 1024

// Ring implements agent.Broker.
func (c *Client) Ring(_ context.Context, queue string) {
	c.s.w.Do(func() {
		if !slices.Contains(c.rings, queue) && len(c.rings) < ringsWaiting {
			c.rings = append(c.rings, queue)
		}
		c.flushRings()
	})
}

// Bells implements agent.Broker.
func (c *Client) Bells() <-chan string { return c.bells }

// flushRings sends the rings that wait, where the broker takes them. Within the
// instant.
func (c *Client) flushRings() {
	k := c.publish.cur
	if c.ringing || len(c.rings) == 0 || k == nil || k.blocked || c.ended {
		return
	}
	c.ringing = true
	c.s.soon(func() {
		c.ringing = false
		if k.lost || k.blocked || c.ended || c.p.Frozen() {
			return // they wait for the next connection, ring or beat
		}
		rings := c.rings
		c.rings = nil
		if k.closed || !k.carries() {
			return // lost
		}
		for _, queue := range rings {
			c.s.toll(queue)
		}
	}, c.host, "ring")
}

// toll lets every client that listens hear a bell. Within the instant.
func (s *Server) toll(queue string) {
	for _, c := range s.clients {
		k := c.look.cur
		if k == nil || k.closed || k.torn || s.w.LinkOf(c.host, Part) != world.Up {
			continue
		}
		s.soon(func() {
			select {
			case c.bells <- queue:
			default: // it has more than it hears
			}
		}, c.host, queue, "bell")
	}
}
