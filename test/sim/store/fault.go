package store

import (
	"bytes"
	"context"
	"time"

	"gpuqd/test/sim/world"
)

// faults are what is wrong with a server. The world's instant guards them.
type faults struct {
	failedAt, over time.Duration  // of the fail over under way, or of the last
	late           []func()       // writes that take effect when it is over
	refused        map[string]int // operations still to be refused, by step
	unconfirmed    map[string]int // writes still to go unconfirmed, by step
	unconfirmedP   float64        // of each write
	staleP         float64        // of each search
	staleMost      time.Duration  // age of what it finds
	tornP          float64        // of each search
	majority       bool           // searches are content with what a deposed primary says
}

// electionSlack bounds how long after an election a waiting driver finds the new
// primary.
const electionSlack = 200 * time.Millisecond

// FailOver takes the primary away; for so long there is none. A request of that
// time waits for the new one, within its timeout, or goes to the old one, which
// does not answer: a read is lost, a write is lost, or has reached a majority
// already, or is replicated once the election is over. Call it outside of Do.
func (s *Server) FailOver(d time.Duration) {
	s.world.Do(func() {
		now := s.world.Now()
		if now >= s.faults.over {
			s.faults.failedAt = now
		}
		s.faults.over = max(s.faults.over, now+d)
		s.docs.keep = max(s.docs.keep, s.faults.over-s.faults.failedAt)
	})
	time.AfterFunc(d, func() {
		s.world.Do(func() {
			if s.failing() {
				return // another has begun meanwhile
			}
			for _, apply := range s.faults.late {
				apply()
			}
			s.faults.late = nil
		})
	})
}

// failing reports whether there is no primary. Within Do.
func (s *Server) failing() bool { return s.world.Now() < s.faults.over }

// Refuse has the server refuse the next n operations of a step, of whichever
// host, with an error and without any effect.
func (s *Server) Refuse(step string, n int) {
	s.world.Do(func() { s.faults.refused = count(s.faults.refused, step, n) })
}

// Unconfirm has the next n writes of a step, of whichever host, applied and
// answered with a write-concern error.
func (s *Server) Unconfirm(step string, n int) {
	s.world.Do(func() { s.faults.unconfirmed = count(s.faults.unconfirmed, step, n) })
}

func count(counts map[string]int, step string, n int) map[string]int {
	if counts == nil {
		counts = map[string]int{}
	}
	counts[step] = n
	return counts
}

// Unconfirmed has each write, with probability p, applied and answered with a
// write-concern error.
func (s *Server) Unconfirmed(p float64) {
	s.world.Do(func() { s.faults.unconfirmedP = p })
}

// TornFinds has each search, with probability p, see every document at an instant
// of its own since the request was made.
func (s *Server) TornFinds(p float64) {
	s.world.Do(func() {
		s.faults.tornP = p
		s.docs.keep = max(s.docs.keep, 2*s.timeout)
	})
}

// StaleFinds has each search, with probability p, see all documents as they were
// some time ago, up to maxAge. No real store answers so: it is a defect.
func (s *Server) StaleFinds(p float64, maxAge time.Duration) {
	s.world.Do(func() {
		s.faults.staleP, s.faults.staleMost = p, maxAge
		s.docs.keep = max(s.docs.keep, maxAge)
	})
}

// MajorityFinds has searches read with read concern "majority": a deposed primary
// answers them as of when it was deposed. The real store does not: it is a
// defect.
func (s *Server) MajorityFinds(on bool) {
	s.world.Do(func() { s.faults.majority = on })
}

// selectPrimary lets a driver look for a primary where there is none. It returns
// what is left of the timeout.
func (s *Server) selectPrimary(ctx context.Context, p *world.Process, in *instant) (time.Duration, error) {
	var failing bool
	var left, timeout time.Duration
	s.world.Do(func() {
		failing = s.failing() && !(in.call.find && s.faults.majority)
		left, timeout = s.faults.over-in.began, s.timeout
	})
	if !failing || s.world.Chance(0.5, in.host, in.call.step, in.call.key, "to the old primary") {
		return timeout, nil
	}
	left += s.world.Between(0, electionSlack, in.host, in.call.step, in.call.key, "new primary")
	err := error(nil)
	if left >= timeout {
		// Not to the instant: two calls of one instant must not give up at one.
		more := s.world.Between(0, time.Millisecond, in.host, in.call.step, in.call.key, "give up")
		left, err = timeout+more, ErrNoPrimary
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-p.Dead():
		return 0, world.ErrDead
	}
	return timeout - left, err
}

// arrived reports whether a request that has come to the server gets an answer.
func (s *Server) arrived(in *instant) bool {
	switch {
	case !s.failing(), in.call.find && s.faults.majority:
		return true
	case !in.call.write:
		return false
	}
	switch s.world.Draw(in.host, in.call.step, in.call.key, "fate of the write") % 3 {
	case 0:
		_ = s.perform(in) // nobody hears of it
	case 1:
		s.faults.late = append(s.faults.late, func() {
			in.at = s.world.Now()
			_ = s.perform(in) // nobody hears of it
		})
	}
	return false
}

// perform lets a request take effect and returns the server's answer.
func (s *Server) perform(in *instant) error {
	c, f := in.call, &s.faults
	if f.refused[c.step] > 0 {
		f.refused[c.step]--
		return ErrServer
	}
	err := c.effect(in)
	if err != nil || !c.write {
		return err
	}
	if f.unconfirmed[c.step] > 0 {
		f.unconfirmed[c.step]--
		return ErrUnconfirmed
	}
	if s.world.Chance(f.unconfirmedP, in.host, c.step, c.key, "write concern") {
		return ErrUnconfirmed
	}
	return nil
}

// view returns what a search comes across.
func (s *Server) view(in *instant, q query) view {
	f, w, c := &s.faults, s.world, in.call
	switch {
	case s.failing():
		return seeAsOf(f.failedAt)
	case w.Chance(f.staleP, in.host, c.step, c.key, "stale"):
		return seeAsOf(in.at - w.Between(0, f.staleMost, in.host, c.step, c.key, "age"))
	case w.Chance(f.tornP, in.host, c.step, c.key, "torn"):
		return func(d *document, list []*state) []*state { return s.torn(in, q, d, list) }
	}
	return seeNow
}

// seeAsOf is the view of a search at an earlier instant.
func seeAsOf(at time.Duration) view {
	return func(d *document, list []*state) []*state {
		if s := d.now.asOf(at); s != nil {
			list = append(list, s)
		}
		return list
	}
}

// torn is the view of a search that takes from in.began to in.at.
func (s *Server) torn(in *instant, q query, d *document, list []*state) []*state {
	if d.now.since <= in.began {
		return append(list, d.now)
	}
	before := d.now.asOf(in.began)
	fate := s.world.Draw(in.host, in.call.step, d.id, "torn") % 4
	switch {
	case before == nil: // it is new
		if fate%2 == 0 {
			list = append(list, d.now)
		}
	case fate == 0:
		list = append(list, d.now)
	case fate == 1, !q.moved(before, d.now):
		list = append(list, before)
	case fate == 2: // it went ahead of the search: seen twice; else it fell behind
		list = append(list, before, d.now)
	}
	return list
}

// moved reports whether a document's place in the index that serves the query may
// have changed.
func (q *query) moved(before, after *state) bool {
	differs := func(p *path) bool { return !bytes.Equal(p.of(before), p.of(after)) }
	for i := range q.when {
		if differs(&q.when[i].path) {
			return true
		}
	}
	return q.sorted && differs(&q.sort)
}
