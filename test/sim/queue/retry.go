package queue

import (
	"time"
)

// stuckWait is how long an expired message waits whose queue is missing.
const stuckWait = 5 * time.Second

// age arranges that the head of a retry queue leaves it when its time is up.
// Within the instant.
func (s *Server) age(q *fifo) {
	if q.aging || len(q.ready) == 0 || s.headless(q) {
		return
	}
	q.aging = true
	left := q.step - time.Since(q.ready[0].since)
	time.AfterFunc(max(left, 0), func() {
		s.w.Do(func() {
			q.aging = false
			s.expire(q)
			s.age(q)
		})
	})
}

// expire takes what is due from the head of a retry queue, and from nowhere
// else. Within the instant.
func (s *Server) expire(q *fifo) {
	for len(q.ready) > 0 && !s.headless(q) && time.Since(q.ready[0].since) >= q.step {
		m := q.pop()
		if m.deadReason == "" {
			m.deadReason, m.deadSource = "expired", q.name
		}
		s.forward(m)
	}
}

// forward moves an expired message to its own queue, once there is one. Within
// the instant.
func (s *Server) forward(m *message) {
	target := s.queues[m.key]
	if target == nil {
		time.AfterFunc(stuckWait, func() { s.w.Do(func() { s.forward(m) }) })
		return
	}
	s.remove(m)
	m.exchange = ""
	s.put(target, m)
}
