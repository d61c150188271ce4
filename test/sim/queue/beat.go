package queue

import (
	"slices"
	"time"

	"gpuqd/test/sim/world"
)

// The two ends of a connection.
const (
	clientEnd = iota
	serverEnd
)

// beat looks at every connection twice per heartbeat: an end that has heard
// nothing for long gives it up, and one whose other end was closed unheard hears
// of it when it can. Within the instant.
func (s *Server) beat() {
	if s.beating || s.closed {
		return
	}
	s.beating = true
	time.AfterFunc(s.Heartbeat/2, func() {
		s.w.Do(func() {
			s.beating = false
			for _, c := range slices.Clone(s.clients) {
				c.beat()
			}
			s.clients = slices.DeleteFunc(s.clients, func(c *Client) bool { return c.ended && len(c.conns) == 0 })
			if len(s.clients) > 0 {
				s.beat()
			}
		})
	})
}

// beat looks at one client's connections. Within the instant.
func (c *Client) beat() {
	link := c.s.w.LinkOf(c.host, Part)
	for _, k := range slices.Clone(c.conns) {
		k.beat(link)
	}
	for _, l := range c.links() {
		if k := l.cur; k != nil && k.closed {
			k.beat(link)
		}
	}
	if !c.p.Frozen() {
		c.flushRings()
	}
}

func (k *conn) beat(link world.Link) {
	c := k.c
	frozen, crashed := c.p.Frozen(), c.ended && !c.p.Host().Up()
	if link == world.Refused {
		k.close()
		if !frozen {
			k.lose(world.ErrRefused)
		}
		return
	}
	silent := link != world.Up || k.torn
	if !k.lost {
		k.listen(clientEnd, silent, func() {
			if c.p.Frozen() {
				k.deaf[clientEnd] = time.Time{} // it counts anew when it goes on
			} else {
				k.lose(errSilent)
			}
		})
	}
	if !k.closed {
		k.listen(serverEnd, silent && link != world.Frozen || frozen || crashed, k.close)
	}
	if silent || frozen || crashed {
		return
	}
	if k.lost {
		k.close()
	} else if k.closed {
		k.lose(errServerClosed)
	}
	k.timeOut()
}

// Within how many heartbeats an end gives up a silent other end, less the half
// that may pass before a beat finds it silent. Measured (3.10.8, amqp091-go
// 1.16): the client after 1 to 1.5 heartbeats, the server after 2 to 3.
var patience = [2][2]float64{clientEnd: {0.75, 1}, serverEnd: {1.75, 2.5}}

// listen lets an end give the connection up once it has heard nothing for long.
// Within the instant.
func (k *conn) listen(end int, silent bool, giveUp func()) {
	if !silent {
		k.deaf[end] = time.Time{}
		return
	}
	if !k.deaf[end].IsZero() {
		return
	}
	s, since := k.c.s, time.Now()
	k.deaf[end] = since
	least, most := s.Heartbeat.Seconds()*patience[end][0], s.Heartbeat.Seconds()*patience[end][1]
	words := [2]string{"client gives up", "server gives up"}
	time.AfterFunc(s.w.Between(seconds(least), seconds(most), k.c.host, k.l.duty, k.opened, words[end]), func() {
		s.w.Do(func() {
			if k.deaf[end].Equal(since) {
				giveUp()
			}
		})
	})
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

// timeOut closes the connection over a delivery that has not been settled for
// too long. Within the instant.
func (k *conn) timeOut() {
	most := k.c.s.faults.consumer
	if most <= 0 || len(k.unacked) == 0 || k.closed {
		return
	}
	if h := k.unacked[0]; h.by == nil && time.Since(h.at) > most {
		k.close()
	}
}
