package queue

import (
	"slices"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/job"
	"gpuqd/test/history"
)

// kind is what a queue is for.
type kind int

const (
	work    kind = iota // jobs
	submit              // gpuq.submit
	control             // gpuq.control
	own                 // requests to one host; goes with its connection
	net                 // gpuq.dead and gpuq.dlx
	retry               // one step of the ladder
)

// fifo is one queue. All of it is the instant's.
type fifo struct {
	name       string
	kind       kind
	step       time.Duration // of a retry queue: the TTL
	returned   []*message    // given back, to be handed over before the others
	ready      []*message
	pending    []*pending // published while there was no leader
	gets       []*get     // asked while there was no leader
	consumers  []*consumer
	leaderless bool
	gone       bool // deleted
	aging      bool // a retry queue's head has its timer
}

// pending is a message that waits for the leader of its queue.
type pending struct {
	m    *message
	from *conn // nil for what the broker itself moves
	fate *fate // nil for what the broker itself moves
}

func (q *fifo) depth() int { return len(q.returned) + len(q.ready) }

func (q *fifo) pop() *message {
	list := &q.ready
	if len(q.returned) > 0 {
		list = &q.returned
	}
	if len(*list) == 0 {
		return nil
	}
	m := (*list)[0]
	(*list)[0] = nil
	*list = (*list)[1:]
	return m
}

// headless reports whether a queue has no leader. Queues of one connection have
// none to lose.
func (s *Server) headless(q *fifo) bool {
	return q.kind != own && (q.leaderless || s.faults.leaderless)
}

// put admits a message and puts it into its queue, where that has a leader.
// Within the instant.
func (s *Server) put(q *fifo, m *message) {
	if s.headless(q) {
		s.admit(m, q, waiting)
		q.pending = append(q.pending, &pending{m: m})
		return
	}
	at := ready
	if q.kind == retry {
		at = waiting
	}
	s.admit(m, q, at)
	q.ready = append(q.ready, m)
	s.flow(q)
}

// flow lets a queue's messages go where they can go: to consumers, or out of
// their retry queue. Within the instant.
func (s *Server) flow(q *fifo) {
	if q.kind == retry {
		s.age(q)
		return
	}
	for q.depth() > 0 && !s.headless(q) {
		free := q.consumers[:0:0]
		for _, c := range q.consumers {
			if c.out < c.limit {
				free = append(free, c)
			}
		}
		if len(free) == 0 {
			return
		}
		m := q.pop()
		if q.kind == control && time.Since(m.since) > controlTTL {
			s.remove(m)
			continue
		}
		free[s.w.Draw(q.name, m.id, m.correlation, "consumer")%uint64(len(free))].push(m)
	}
}

// controlTTL is how long a request to any daemon waits for one.
const controlTTL = time.Minute

// lead gives a queue what waited for its leader. Within the instant.
func (s *Server) lead(q *fifo) {
	late := q.pending
	q.pending = nil
	for _, p := range late {
		s.remove(p.m)
		// What a publisher sent that is gone, the leader may have got or not.
		if p.from != nil && p.from.closed && s.w.Chance(0.5, q.name, p.m.id, "orphan") {
			continue
		}
		s.put(q, p.m)
		if p.fate != nil {
			s.confirm(p.from, p.m, p.fate)
		}
	}
	gets := q.gets
	q.gets = nil
	for _, g := range gets {
		if !g.k.closed {
			g.answer(q)
		}
	}
	s.flow(q)
}

// held is a delivery as the server knows it.
type held struct {
	number uint64 // of its connection, from 1
	m      *message
	at     time.Time
	by     *consumer // nil for a get
}

// hand gives a message to a connection. Within the instant.
func (s *Server) hand(k *conn, m *message, by *consumer) uint64 {
	k.next++
	m.place, m.since = unacked, time.Now()
	k.unacked = append(k.unacked, held{k.next, m, m.since, by})
	if m.queue.kind == work {
		s.record(history.Taken, k, m, k.next)
	}
	return k.next
}

func (s *Server) record(kind history.Kind, k *conn, m *message, number uint64) {
	s.w.Record(history.Event{
		Kind: kind, Job: job.ID(m.id), Host: k.c.host, Tag: history.Tag{Generation: k.gen, Delivery: number},
	})
}

// settle ends a delivery by its number, whatever message that is by now. Within
// the instant.
func (s *Server) settle(k *conn, number uint64, v broker.Verdict) {
	i := slices.IndexFunc(k.unacked, func(h held) bool { return h.number == number })
	if i < 0 {
		return
	}
	h := k.unacked[i]
	k.unacked = slices.Delete(k.unacked, i, i+1)
	if h.by != nil {
		h.by.out--
	}
	q := h.m.queue
	switch v {
	case broker.Done:
		if q.kind == work {
			s.record(history.Acked, k, h.m, number)
		}
		s.remove(h.m)
	case broker.Reject:
		s.deadLetter(h.m, k.c.host, "rejected")
	default:
		s.giveBack(k, h)
	}
	s.flow(q)
}

// giveBack returns a delivery to its queue, before what was not delivered yet.
// Within the instant.
func (s *Server) giveBack(k *conn, h held) {
	q := h.m.queue
	if q.kind == work {
		s.record(history.Returned, k, h.m, h.number)
	}
	if q.gone {
		s.remove(h.m)
		return
	}
	h.m.place, h.m.since, h.m.redelivered = ready, time.Now(), true
	q.returned = append(q.returned, h.m)
}

// giveAllBack returns what a lost connection held, in any order. Within the
// instant.
func (s *Server) giveAllBack(k *conn) {
	all := k.unacked
	k.unacked = nil
	for n := len(all); n > 1; n-- {
		i := s.w.Draw(k.c.host, k.l.duty, all[n-1].m.id, "order") % uint64(n)
		all[n-1], all[i] = all[i], all[n-1]
	}
	for _, h := range all {
		s.giveBack(k, h)
	}
	for _, h := range all {
		s.flow(h.m.queue)
	}
}
