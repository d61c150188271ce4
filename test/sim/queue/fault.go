package queue

import (
	"slices"
	"time"

	"gpuqd/test/sim/world"
)

// faults is what is broken, or can break. It is the instant's.
type faults struct {
	leaderless   bool // every queue
	alarm        bool
	unread       []unread
	downUntil    time.Time
	closeGets    map[string]int // by host: gets yet to be answered by closing their connection
	loseReturns  float64
	holdConfirms float64
	loseReplies  float64
	consumer     time.Duration // consumer_timeout; 0 is none
}

// unread is a message on a connection that the server does not read.
type unread struct {
	k    *conn
	read func()
}

const alarmReason = "low on memory"

// Leaderless takes a queue its leader, or has another elected; of all queues
// where the name is "". Without a leader a queue's depth reads 0, a get is not
// answered, and what is published waits without a confirm. A get that waits when
// the leader goes, or half of those that wait for the next, end in 541: their
// connection is closed.
func (s *Server) Leaderless(queue string, on bool) {
	s.w.Do(func() {
		for _, q := range slices.Clone(s.inOrder) {
			if queue == "" || q.name == queue {
				s.failGets(q, on)
			}
		}
		s.setLeader(queue, on)
	})
}

// Freeze stops the leader of a queue, or of all where the name is "", or lets it
// go on. Gets that wait are answered then.
func (s *Server) Freeze(queue string, on bool) {
	s.w.Do(func() { s.setLeader(queue, on) })
}

func (s *Server) setLeader(queue string, gone bool) {
	if queue == "" {
		s.faults.leaderless = gone
	} else if q := s.queues[queue]; q != nil {
		q.leaderless = gone
	}
	for _, q := range slices.Clone(s.inOrder) {
		if !s.headless(q) {
			s.lead(q)
		}
	}
}

// failGets ends gets that wait in 541. Within the instant.
func (s *Server) failGets(q *fifo, all bool) {
	waiting := q.gets
	q.gets = nil
	for _, g := range waiting {
		if !all && s.w.Chance(0.5, q.name, g.k.c.host, "elected") {
			q.gets = append(q.gets, g)
			continue
		}
		g.state = gotClosed
		close(g.later)
		g.k.close()
	}
}

// CloseOnGet lets the next n gets of a host end in 541: its take connection is
// closed.
func (s *Server) CloseOnGet(host string, n int) {
	s.w.Do(func() { s.faults.closeGets[host] = n })
}

// LoseReturns sets how often an unroutable message costs its connection before
// the return is out.
func (s *Server) LoseReturns(p float64) { s.w.Do(func() { s.faults.loseReturns = p }) }

// HoldConfirms sets how often a message is taken in and never confirmed.
func (s *Server) HoldConfirms(p float64) { s.w.Do(func() { s.faults.holdConfirms = p }) }

// LoseReplies sets how often the answer to a request gets lost.
func (s *Server) LoseReplies(p float64) { s.w.Do(func() { s.faults.loseReplies = p }) }

// SetConsumerTimeout sets for how long a get's delivery may stay unsettled
// before its connection is closed, seen at the next beat; 0 is for ever.
func (s *Server) SetConsumerTimeout(d time.Duration) { s.w.Do(func() { s.faults.consumer = d }) }

// Delete removes a queue with all that is in it, as an operator can.
func (s *Server) Delete(queue string) {
	s.w.Do(func() {
		if q := s.queues[queue]; q != nil {
			s.drop(q)
		}
	})
}

// drop removes a queue. What clients hold of it is settled into nothing. Within
// the instant.
func (s *Server) drop(q *fifo) {
	for _, m := range slices.Concat(q.returned, q.ready) {
		s.remove(m)
	}
	for _, p := range q.pending {
		s.remove(p.m)
	}
	q.returned, q.ready, q.pending, q.gone = nil, nil, nil, true
	delete(s.queues, q.name)
	s.inOrder = slices.DeleteFunc(s.inOrder, func(other *fifo) bool { return other == q })
	for key, bound := range s.bound {
		s.bound[key] = slices.DeleteFunc(bound, func(other *fifo) bool { return other == q })
	}
}

// Drop breaks every connection of a host's clients.
func (s *Server) Drop(host string) { s.drops(host, "") }

// DropDuty breaks the connections of one duty of a host's clients: "look",
// "publish", "take" or "reply".
func (s *Server) DropDuty(host, duty string) { s.drops(host, duty) }

func (s *Server) drops(host, duty string) {
	s.w.Do(func() {
		for _, c := range slices.Clone(s.clients) {
			for _, k := range slices.Clone(c.conns) {
				if c.host == host && (duty == "" || k.l.duty == duty) {
					k.close()
				}
			}
		}
	})
}

// Restart restarts every node at once: all connections break, and none is to be
// had for a few seconds.
func (s *Server) Restart() {
	s.w.Do(func() {
		s.faults.downUntil = time.Now().Add(s.w.Between(2*time.Second, 6*time.Second, "restart"))
		for _, c := range slices.Clone(s.clients) {
			for _, k := range slices.Clone(c.conns) {
				k.close()
			}
		}
	})
}

// isDown reports whether no node is up. Within the instant.
func (s *Server) isDown() bool { return time.Now().Before(s.faults.downUntil) }

// Alarm raises or clears a memory alarm. Under it no message is read from a
// connection that has published since; what comes on others is.
func (s *Server) Alarm(on bool) {
	s.w.Do(func() {
		s.faults.alarm = on
		if on {
			return
		}
		for _, c := range s.clients {
			for _, k := range c.conns {
				s.readAgain(k)
			}
		}
		waiting := s.faults.unread
		s.faults.unread = nil
		for _, u := range waiting {
			if !u.k.closed {
				u.read()
			}
		}
	})
}

func (s *Server) readAgain(k *conn) {
	if !k.full {
		return
	}
	k.full = false
	s.soon(func() {
		if k.blocked && !k.full && k.carries() {
			k.blocked = false
			close(k.unblocked)
			k.c.flushRings()
		}
	}, k.c.host, k.l.duty, k.opened, "unblocked")
}

// read lets the server read what was published on a connection. Under an alarm
// that is the last for now: f, where set, then has no answer. Within the instant.
func (s *Server) read(k *conn, f *fate, now func()) {
	if k.full {
		if f != nil {
			f.wait()
		}
		s.faults.unread = append(s.faults.unread, unread{k, now})
		return
	}
	now()
	if !s.faults.alarm {
		return
	}
	k.full = true
	s.soon(func() {
		if k.full && !k.blocked && !k.lost && s.w.LinkOf(k.c.host, Part) == world.Up {
			k.blocked, k.unblocked = true, make(chan struct{})
		}
	}, k.c.host, k.l.duty, k.opened, "blocked")
}
