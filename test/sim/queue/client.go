package queue

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"gpuqd/daemon/agent"
	"gpuqd/test/sim/world"
)

// Client is one daemon run's access to the cluster. It ends with its process.
type Client struct {
	s    *Server
	p    *world.Process
	host string
	user string
	ctx  context.Context // ends with the client
	cut  context.CancelFunc

	look, publish, take, reply link

	taking chan struct{} // held by the one get under way; capacity 1
	bells  chan string

	// The instant's.
	conns   []*conn // those that the server has not closed
	begun   bool    // the look connection has been up
	ended   bool
	rings   []string
	ringing bool          // rings are on their way
	paused  bool          // PauseSubmit holds
	turned  chan struct{} // closed when paused changes; made for who waits
}

var _ agent.Broker = (*Client)(nil)

// bellBuffer is how many bells wait for the agent.
const bellBuffer = 256

// Connect starts the client of a process, under an account of the broker. It is
// there at once; its connections come up by themselves.
func (s *Server) Connect(p *world.Process, user string) *Client {
	c := &Client{
		s: s, p: p, host: p.Host().Name(), user: user,
		look:    link{duty: "look", gen: 1, wait: backoffMin},
		publish: link{duty: "publish", gen: 1, wait: backoffMin},
		take:    link{duty: "take", gen: 1, wait: backoffMin},
		reply:   link{duty: "reply", gen: 1, wait: backoffMin},
		taking:  make(chan struct{}, 1), bells: make(chan string, bellBuffer),
	}
	c.ctx, c.cut = context.WithCancel(context.Background())
	s.w.Do(func() {
		at, _ := slices.BinarySearchFunc(s.clients, c.host, func(other *Client, host string) int {
			return strings.Compare(other.host, host)
		})
		s.clients = slices.Insert(s.clients, at, c)
		s.beat()
		s.spawn(c.watch)
		s.spawn(func() { c.connect(&c.look, 0) })
	})
	return c
}

// Close ends the client in order, as its daemon does when it stops.
func (c *Client) Close() { c.s.w.Do(c.end) }

// watch ends the client at the death of its process.
func (c *Client) watch() {
	select {
	case <-c.p.Dead():
		c.Close()
	case <-c.ctx.Done():
	}
}

// end closes the client's ends; the server hears of it where it can: with its
// host up, the kernel tells. Within the instant.
func (c *Client) end() {
	if c.ended {
		return
	}
	c.ended = true
	c.cut()
	for _, l := range c.links() {
		if k := l.cur; k != nil {
			k.lost = true
			k.cut(errStopped)
			l.cur, l.why = nil, errStopped
			if c.p.Host().Up() {
				c.s.soon(func() {
					if k.carries() {
						k.close()
					}
				}, c.host, l.duty, "end")
			}
		}
		c.wake(l)
	}
}

func (c *Client) links() []*link { return []*link{&c.look, &c.publish, &c.take, &c.reply} }

// gone reports whether the process is dead.
func (c *Client) gone() (gone bool) {
	c.s.w.Do(func() { gone = c.p.Gone() })
	return gone
}

// pause waits for a while. It returns false when the client has ended.
func (c *Client) pause(d time.Duration) bool {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.ctx.Done():
		}
	}
	return c.ctx.Err() == nil
}

// Healthy implements agent.Broker.
func (c *Client) Healthy() (ok bool, why string) {
	var missing []string
	c.s.w.Do(func() {
		for _, l := range c.links() {
			switch {
			case l.cur != nil && l.cur.blocked:
				missing = append(missing, l.duty+" connection: the broker accepts no messages: "+alarmReason)
			case l.cur != nil:
			case l.why != nil:
				missing = append(missing, fmt.Sprintf("%s connection: %v", l.duty, l.why))
			default:
				missing = append(missing, l.duty+" connection: connecting")
			}
		}
	})
	return len(missing) == 0, strings.Join(missing, "; ")
}
