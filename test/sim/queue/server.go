package queue

import (
	"sync"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/job"
	"gpuqd/test/sim/world"
)

// Part names the broker in calls, wires and rates.
const Part = "broker"

// Server is the whole cluster.
type Server struct {
	// How long clients wait. Change them before the first Connect.
	TakeTimeout    time.Duration // for the answer to a get, 5 s
	ConfirmTimeout time.Duration // for a confirm, 10 s
	DeclareTimeout time.Duration // for a declare or a depth, 15 s
	DialTimeout    time.Duration // to connect, 5 s
	SubmitTimeout  time.Duration // for the reply to a user's job, 10 s
	Heartbeat      time.Duration // see patience, 5 s
	BackoffMax     time.Duration // between attempts to connect, 5 s

	w *world.World

	// The instant's.
	queues  map[string]*fifo
	inOrder []*fifo
	clients []*Client // by host: those with a connection that the server has not closed
	byJob   map[job.ID][]*message
	alive   int                 // messages in any place
	asking  map[string]*request // by reply-to: those that await their answer
	asked   map[string]int      // requests made, by host
	bound   map[string][]*fifo  // by routing key: queues of hosts' own
	names   int                 // given to such queues
	beating bool                // the next beat is due
	closed  bool
	work    sync.WaitGroup // goroutines; none is added once closed

	faults faults
}

// NewServer returns a cluster that is up, with the topology that daemons declare.
func NewServer(w *world.World) *Server {
	s := &Server{
		TakeTimeout: 5 * time.Second, ConfirmTimeout: 10 * time.Second, DeclareTimeout: 15 * time.Second,
		DialTimeout: 5 * time.Second, SubmitTimeout: 10 * time.Second,
		Heartbeat: 5 * time.Second, BackoffMax: 5 * time.Second,
		w: w, queues: map[string]*fifo{}, byJob: map[job.ID][]*message{},
		asking: map[string]*request{}, asked: map[string]int{}, bound: map[string][]*fifo{},
		faults: faults{closeGets: map[string]int{}},
	}
	w.SetRates(Part, world.Rates{Fast: wayMin, Slow: wayMax})
	w.Do(func() {
		s.declare(broker.QueueSubmit, submit)
		s.declare(broker.QueueControl, control)
		s.declare(broker.QueueDead, net)
		s.declare(broker.QueueDLX, net)
		for _, step := range broker.RetryLadder {
			s.declare(broker.RetryQueue(step), retry).step = step
		}
	})
	return s
}

// The time that something takes from one end of a connection to the other.
const (
	wayMin = 100 * time.Microsecond
	wayMax = 2 * time.Millisecond
)

// soon lets f happen one way later, at an instant of its own.
func (s *Server) soon(f func(), words ...string) {
	time.AfterFunc(s.w.Between(wayMin, wayMax, words...), func() { s.w.Do(f) })
}

// declare returns a queue, made where there is none. Within the instant.
func (s *Server) declare(name string, k kind) *fifo {
	q := s.queues[name]
	if q == nil {
		q = &fifo{name: name, kind: k}
		s.queues[name] = q
		s.inOrder = append(s.inOrder, q)
	}
	return q
}

// spawn starts a goroutine that Close waits for; none after that. Within the
// instant.
func (s *Server) spawn(f func()) {
	if !s.closed {
		s.work.Go(f)
	}
}

// Close ends every client and whatever the server does by itself, and waits
// until nothing of it runs, handlers aside.
func (s *Server) Close() {
	s.w.Do(func() {
		s.closed = true
		for _, c := range s.clients {
			c.end()
		}
	})
	s.work.Wait()
}

// Count tells where messages are.
type Count struct {
	Ready   int // in a queue
	Unacked int // held by a client, as far as the server knows
	Waiting int // in a retry queue, or published and not in their queue yet
}

// Messages counts the messages of a job, in all queues. Call it within Do.
func (s *Server) Messages(id job.ID) (n Count) {
	for _, m := range s.byJob[id] {
		n.add(m)
	}
	return n
}

func (n *Count) add(m *message) {
	switch m.place {
	case ready:
		n.Ready++
	case unacked:
		n.Unacked++
	case waiting:
		n.Waiting++
	}
}

// Idle reports whether there is no message in any place. Call it within Do.
func (s *Server) Idle() bool { return s.alive == 0 }

// HasReady reports whether a message of a job lies ready in one of its shape's
// queues, has lain there since a time at least, and was handed to nobody before.
// Call it within Do.
func (s *Server) HasReady(id job.ID, since time.Time) bool {
	for _, m := range s.byJob[id] {
		if m.place == ready && !m.redelivered && m.queue.kind == work && !m.since.After(since) {
			return true
		}
	}
	return false
}

// Leftovers names every message that is left, for people. Call it within Do.
func (s *Server) Leftovers() (left []string) {
	if s.alive == 0 {
		return nil
	}
	name := func(m *message, where string) {
		what := m.id
		if what == "" {
			what = string(m.body)
		}
		left = append(left, "message "+what+" "+where)
	}
	for _, q := range s.inOrder {
		for _, m := range q.returned {
			name(m, "is ready in "+q.name)
		}
		for _, m := range q.ready {
			name(m, "is in "+q.name)
		}
		for _, p := range q.pending {
			name(p.m, "is on its way to "+q.name)
		}
	}
	for _, c := range s.clients {
		for _, k := range c.conns {
			for _, h := range k.unacked {
				name(h.m, "of "+h.m.queue.name+" is held by "+c.host)
			}
		}
	}
	return left
}
