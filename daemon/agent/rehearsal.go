package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/control"
	"gpuqd/daemon/job"

	"github.com/google/uuid"
)

// Faults are what a rehearsal does to its host. Tests put others in their place.
type Faults interface {
	// Die ends this process at once, as SIGKILL does. It does not return.
	Die()
	// KillAttempt ends an attempt's shim, so that it records no exit, and then
	// all that its command has forked.
	KillAttempt(ctx context.Context, attempt Attempt) error
	// Sever cuts the connection that holds the deliveries of a generation, and
	// reports whether there was one.
	Sever(generation uint64) bool
	// Block never returns: a loop that calls it is stuck.
	Block()
}

// hostFaults are the real ones.
type hostFaults struct{ broker Broker }

// Die implements Faults.
func (hostFaults) Die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}

// Block implements Faults.
func (hostFaults) Block() { select {} }

// KillAttempt implements Faults.
func (hostFaults) KillAttempt(ctx context.Context, attempt Attempt) error {
	a, ok := attempt.(interface{ KillWithShim(context.Context) error })
	if !ok {
		return fmt.Errorf("the attempts of this host cannot be killed with their shim")
	}
	return a.KillWithShim(ctx)
}

// Sever implements Faults.
func (f hostFaults) Sever(generation uint64) bool {
	b, ok := f.broker.(interface{ Sever(uint64) bool })
	return ok && b.Sever(generation)
}

const (
	// armedTime is how long a fault waits for its step before it is dropped.
	armedTime = 5 * time.Minute
	// Bounds of what is remembered of rehearsals.
	rehearsalsMax = 32
	notesMax      = 100
)

// rehearsals are the faults that are armed at this host, and what it has seen of
// the jobs that they are for. All of it is in memory, but for the strike. A nil
// one is of a host that allows no rehearsals: nothing is armed there and nothing
// noted.
type rehearsals struct {
	faults Faults
	clock  Clock
	log    *slog.Logger
	pool   string // of this host's rehearsals
	path   string // of the last strike
	daemon string // this process

	mu    sync.Mutex
	ready job.Time // since when the daemon takes work
	armed *arming  // nil while no fault waits for its step
	jobs  map[job.ID]*rehearsed
	order []job.ID // of jobs, oldest first
}

// arming is one fault that waits for its step.
type arming struct {
	control.SimulateArgs
	until time.Time
}

// rehearsed is what this daemon has seen of one job.
type rehearsed struct {
	begun  bool // a rehearsal was begun for it here
	missed string
	notes  []control.SimulateNote
}

// newRehearsals returns nil where the settings do not allow any.
func newRehearsals(o Options) *rehearsals {
	if !o.Config.Simulate.Allowed {
		return nil
	}
	return &rehearsals{
		faults: o.Faults, clock: o.Clock, log: o.Logger,
		pool: job.RehearsalPool(o.Config.Host.Name), path: strikePath(o.Config.Host.StateDir),
		daemon: uuid.NewString(), jobs: map[job.ID]*rehearsed{},
	}
}

// servedPools returns the pools whose plain queues this host serves.
func servedPools(o Options) []string {
	pools := o.Config.Host.Pools
	if !o.Config.Simulate.Allowed {
		return pools
	}
	return append(pools[:len(pools):len(pools)], job.RehearsalPool(o.Config.Host.Name))
}

// againPools returns the pools of which this host serves the again queues alone:
// the other hosts' rehearsals. A job that lost its first attempt there must not
// wait for that host. Should even its first message never be taken, the sweeper
// starts it (probeQueue).
func (q *rehearsals) againPools(shapes []job.Shape) []string {
	if q == nil {
		return nil
	}
	var pools []string
	for _, s := range shapes {
		if job.IsRehearsalPool(s.Pool) && s.Pool != q.pool {
			pools = append(pools, s.Pool)
		}
	}
	return pools
}

// isReady notes that start-up is over.
func (q *rehearsals) isReady(now job.Time) {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ready = now
}

func (q *rehearsals) now() job.Time { return job.At(q.clock.Now()) }

// of returns what is known of a job, new where nothing is. The oldest is
// forgotten for it. The caller holds mu.
func (q *rehearsals) of(id job.ID) *rehearsed {
	if r := q.jobs[id]; r != nil {
		return r
	}
	if len(q.order) == rehearsalsMax {
		delete(q.jobs, q.order[0])
		q.order = q.order[1:]
	}
	r := &rehearsed{}
	q.jobs[id], q.order = r, append(q.order, id)
	return r
}

// waiting returns the fault that is armed, nil where none is any more. The
// caller holds mu.
func (q *rehearsals) waiting() *arming {
	if q.armed != nil && !q.clock.Now().Before(q.armed.until) {
		q.log.Info("armed fault is dropped: its step did not come in time", "job_id", q.armed.Job)
		q.armed = nil
	}
	return q.armed
}

// known reports whether a rehearsal was begun for the job.
func (q *rehearsals) known(id job.ID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.jobs[id]
	return r != nil && r.begun
}

// arm sets the fault of a scenario up. It returns the job of another rehearsal
// that is under way, "" where it was armed, also by an earlier call.
func (q *rehearsals) arm(args control.SimulateArgs) (busy job.ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if other := q.waiting(); other != nil && other.Job != args.Job {
		return other.Job
	}
	q.of(args.Job).begun = true
	switch args.Scenario {
	case control.ScenarioMidJob, control.ScenarioAckLost, control.ScenarioLate:
		q.armed = &arming{SimulateArgs: args, until: q.clock.Now().Add(armedTime)}
	}
	return ""
}

// disarm drops the fault of a job.
func (q *rehearsals) disarm(id job.ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.armed != nil && q.armed.Job == id {
		q.armed = nil
	}
}

// cancel undoes arm.
func (q *rehearsals) cancel(id job.ID) {
	q.disarm(id)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.of(id).begun = false
}

// waitsFor reports whether this fault waits for a step of the job.
func (q *rehearsals) waitsFor(id job.ID, s control.Scenario, m control.SimulateMoment) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := q.waiting()
	return w != nil && w.Job == id && w.Scenario == s && w.Moment == m
}

// strike takes the fault of the job, whose step has come, and puts on disk that
// it strikes. Where it returns false it does not.
func (q *rehearsals) strike(id job.ID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := q.waiting()
	if w == nil || w.Job != id {
		return false
	}
	q.armed = nil
	s := strike{Job: id, Scenario: w.Scenario, At: q.now(), Daemon: q.daemon}
	if err := s.write(q.path); err != nil {
		q.of(id).missed = "the strike could not be put on disk first: " + err.Error()
		return false
	}
	q.log.Warn("rehearsal: the fault strikes", "job_id", id, "scenario", int(w.Scenario))
	return true
}

// miss notes why a fault whose step came did not strike.
func (q *rehearsals) miss(id job.ID, why string) {
	q.disarm(id)
	q.log.Warn("rehearsal: the fault did not strike", "job_id", id, "reason", why)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.of(id).missed = why
}

// note keeps what became of a message, or an attempt, of a rehearsal's job.
func (q *rehearsals) note(queue string, id job.ID, what control.SimulateNoteKind, text string) {
	if q == nil {
		return
	}
	if shape, err := job.ParseQueue(queue); err != nil || !job.IsRehearsalPool(shape.Pool) {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.of(id)
	if len(r.notes) < notesMax {
		r.notes = append(r.notes, control.SimulateNote{At: q.now(), What: what, Text: text})
	}
}

// delivered notes a message that was handed to this host.
func (q *rehearsals) delivered(d *broker.Delivery, id job.ID) {
	what := control.NoteDelivered
	if d.Redelivered {
		what = control.NoteRedelivered
	}
	q.note(d.Queue, id, what, d.Queue)
}

// turnedAway notes a message that started nothing, and what said so.
func (q *rehearsals) turnedAway(d *broker.Delivery, id job.ID, source string) {
	q.note(d.Queue, id, control.NoteDuplicate, source)
}

// status is what this process knows of the job.
func (q *rehearsals) status(host string, id job.ID) control.SimulateReply {
	q.mu.Lock()
	defer q.mu.Unlock()
	reply := control.SimulateReply{Host: host, Daemon: q.daemon, Ready: q.ready, Pool: q.pool}
	if r := q.jobs[id]; r != nil {
		reply.Missed = r.missed
		reply.Notes = append(reply.Notes, r.notes...)
	}
	if w := q.waiting(); w != nil && w.Job == id {
		reply.Armed, reply.Expires = true, job.At(w.until)
	}
	if s, err := readStrike(q.path); err == nil && s.Job == id {
		reply.Struck = s.At
	}
	return reply
}
