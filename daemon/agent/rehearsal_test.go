package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/runner"
	"gpuqd/test/wait"
)

// faultBook writes down what would have happened to the host.
type faultBook struct {
	mu    sync.Mutex
	done  []string
	stuck error // of KillAttempt
	gone  bool  // the connection to sever is not there
}

// Block notes the loop that is stuck, and lets it go on.
func (f *faultBook) Block() { f.note("block") }

func (f *faultBook) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = append(f.done, what)
}

func (f *faultBook) Die() { f.note("die") }

func (f *faultBook) KillAttempt(context.Context, Attempt) error {
	f.note("kill attempt")
	return f.stuck
}

func (f *faultBook) Sever(generation uint64) bool {
	f.note(fmt.Sprintf("sever %d", generation))
	return !f.gone
}

func (f *faultBook) struck() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.done)
}

// ackBox is an outbox that notes acks, too.
type ackBox struct {
	*outbox
	ackBook
}

func (a *ackBox) Publish(ctx context.Context, m broker.Message) error {
	return a.outbox.Publish(ctx, m)
}
func (a *ackBox) PauseSubmit()                                {}
func (a *ackBox) Ack(ctx context.Context, t broker.Tag) error { return a.ackBook.Ack(ctx, t) }

func (a *ackBox) Nack(ctx context.Context, t broker.Tag, requeue bool) error {
	return a.ackBook.Nack(ctx, t, requeue)
}

// rehearseBench is host a, which allows rehearsals, over a real ledger and
// journal; faults are written down in place of done.
type rehearseBench struct {
	operateBench
	acks   *ackBox
	faults *faultBook
}

func newRehearseBench(t *testing.T) *rehearseBench {
	t.Helper()
	b := &rehearseBench{operateBench: newOperateBench(t), faults: &faultBook{}}
	b.acks = &ackBox{outbox: b.box}
	b.broker = b.acks
	b.cfg.Host.StateDir, b.cfg.Simulate.Allowed = t.TempDir(), true
	b.cfg.Runner.WorkRoot = t.TempDir()
	b.rehearsals = newRehearsals(Options{Config: b.cfg, Clock: b.clock, Logger: b.log, Faults: b.faults})
	return b
}

// attempt is a first attempt of a job of host a's rehearsals that runs, with its
// delivery.
func (b *rehearseBench) attempt(t *testing.T) (*run, *runner.Attempt) {
	t.Helper()
	j, attempt := heldAttempt(t, b.leaseBench)
	j.Queue = job.Shape{Pool: job.RehearsalPool("a"), Priority: job.Normal, GPUs: 1, Class: job.ClassAny}.Queue()
	r := newRun(b.Agent, j, nil)
	r.attempt, r.tag = attempt, broker.Tag{Generation: 3, Delivery: 7}
	b.runs.add(r)
	return r, attempt
}

func (b *rehearseBench) arm(t *testing.T, id job.ID, s control.Scenario, m control.SimulateMoment) {
	t.Helper()
	_, err := b.Simulate(t.Context(), operator, control.SimulateArgs{Action: control.SimulateArm, Host: "a", Job: id, Scenario: s, Moment: m})
	if err != nil {
		t.Fatal(err)
	}
}

func (b *rehearseBench) status(t *testing.T, id job.ID) control.SimulateReply {
	t.Helper()
	reply, err := b.Simulate(t.Context(), operator, control.SimulateArgs{Action: control.SimulateStatus, Host: "a", Job: id})
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

func (b *rehearseBench) state(t *testing.T, id job.ID) job.State {
	t.Helper()
	j, err := b.ledger.Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return j.State
}

// success is how a payload ends that did its work.
func success() *runner.Exit { return &runner.Exit{Started: zeroHour, Ended: zeroHour} }

// TestFaultStrikesAtItsStep: with the result where the scenario says it is, the
// message not acked, and the strike on disk for the daemon that comes after.
func TestFaultStrikesAtItsStep(t *testing.T) {
	for name, c := range map[string]struct {
		scenario control.Scenario
		moment   control.SimulateMoment
		faults   []string
		state    job.State // in the ledger when it has struck
		gone     bool      // the run is forgotten
	}{
		"AfterTheExitNothingIsCommitted": {control.ScenarioLate, control.MomentExit, []string{"die"}, job.Claimed, false},
		"AfterTheCommitNothingIsAcked":   {control.ScenarioLate, control.MomentCommit, []string{"die"}, job.Succeeded, false},
		"LostAckTakesItsConnection":      {control.ScenarioAckLost, "", []string{"sever 3"}, job.Succeeded, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newRehearseBench(t)
			r, _ := b.attempt(t)
			b.arm(t, r.hold.JobID, c.scenario, c.moment)
			if s := b.status(t, r.hold.JobID); !s.Armed || !s.Struck.IsZero() {
				t.Errorf("before the step: %+v", s)
			}
			b.clock.pass(time.Second)
			r.finish(runFor(t, b.leaseBench), success())
			if got := b.faults.struck(); !slices.Equal(got, c.faults) {
				t.Errorf("struck %q, want %q", got, c.faults)
			}
			if got := b.state(t, r.hold.JobID); got != c.state {
				t.Errorf("the job is %s, want %s", got, c.state)
			}
			if len(b.acks.acked) != 0 || (b.runs.len() == 0) != c.gone {
				t.Errorf("acked %v; %d runs", b.acks.acked, b.runs.len())
			}
			s := b.status(t, r.hold.JobID)
			if s.Armed || !s.Struck.Equal(b.clock.Now()) || s.Missed != "" {
				t.Errorf("after it: %+v", s)
			}
			next := newRehearsals(Options{Config: b.cfg, Clock: b.clock, Logger: b.log, Faults: b.faults})
			if after := next.status("a", r.hold.JobID); !after.Struck.Equal(s.Struck.Time) || after.Daemon == s.Daemon || after.Armed {
				t.Errorf("the next daemon says %+v", after)
			}
		})
	}
}

// TestFaultStrikesNothingElse: a job of whom nothing is armed, or not any more,
// is committed and acked as ever.
func TestFaultStrikesNothingElse(t *testing.T) {
	for name, change := range map[string]func(*rehearseBench, *run){
		"OtherJob":      func(b *rehearseBench, r *run) { b.rehearsals.armed.Job = job.NewID() },
		"SecondAttempt": func(_ *rehearseBench, r *run) { r.number = 2 },
		"TimeIsOver":    func(b *rehearseBench, _ *run) { b.clock.pass(armedTime) },
		"Disarmed":      func(b *rehearseBench, r *run) { b.rehearsals.disarm(r.hold.JobID) },
		"NotAllowed":    func(b *rehearseBench, _ *run) { b.rehearsals = nil },
		"DiskIsGone":    func(b *rehearseBench, _ *run) { b.rehearsals.path = "/nowhere/rehearsal.json" },
	} {
		for _, s := range []control.Scenario{control.ScenarioAckLost, control.ScenarioLate} {
			t.Run(fmt.Sprintf("%s/%d", name, s), func(t *testing.T) {
				b := newRehearseBench(t)
				r, _ := b.attempt(t)
				moment := map[control.Scenario]control.SimulateMoment{control.ScenarioLate: control.MomentCommit}[s]
				b.arm(t, r.hold.JobID, s, moment)
				change(b, r)
				r.finish(runFor(t, b.leaseBench), success())
				if got := b.faults.struck(); len(got) != 0 {
					t.Errorf("struck %q", got)
				}
				if b.state(t, r.hold.JobID) != job.Succeeded || len(b.acks.acked) != 1 || b.runs.len() != 0 {
					t.Errorf("the job is %s, acked %v, %d runs", b.state(t, r.hold.JobID), b.acks.acked, b.runs.len())
				}
			})
		}
	}
}

// TestFaultThatCannotStrikeSaysWhy: and the attempt goes its normal way.
func TestFaultThatCannotStrikeSaysWhy(t *testing.T) {
	t.Run("NoDelivery", func(t *testing.T) {
		b := newRehearseBench(t)
		r, _ := b.attempt(t)
		r.tag = broker.Tag{}
		b.arm(t, r.hold.JobID, control.ScenarioAckLost, "")
		r.finish(runFor(t, b.leaseBench), success())
		if s := b.status(t, r.hold.JobID); !strings.Contains(s.Missed, "no delivery") || b.runs.len() != 0 {
			t.Errorf("%+v, %d runs", s, b.runs.len())
		}
	})
	t.Run("ConnectionIsGone", func(t *testing.T) {
		b := newRehearseBench(t)
		b.faults.gone = true
		r, _ := b.attempt(t)
		b.arm(t, r.hold.JobID, control.ScenarioAckLost, "")
		r.finish(runFor(t, b.leaseBench), success())
		if s := b.status(t, r.hold.JobID); !strings.Contains(s.Missed, "ended before") || b.runs.len() != 0 {
			t.Errorf("%+v, %d runs", s, b.runs.len())
		}
	})
	t.Run("DiskIsGone", func(t *testing.T) {
		b := newRehearseBench(t)
		b.rehearsals.path = "/nowhere/rehearsal.json"
		r, _ := b.attempt(t)
		b.arm(t, r.hold.JobID, control.ScenarioLate, control.MomentExit)
		r.finish(runFor(t, b.leaseBench), success())
		if s := b.status(t, r.hold.JobID); !strings.Contains(s.Missed, "on disk") || s.Armed {
			t.Errorf("%+v", s)
		}
	})
}

// says lets an attempt's command write lines of the witness.
func says(t *testing.T, a *runner.Attempt, events ...string) {
	t.Helper()
	file, err := os.OpenFile(a.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, e := range events {
		line, err := json.Marshal(control.Witness{Event: e, Job: a.Key().JobID, Attempt: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write(append(line, '\n')); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWorkerDiesMidJobOnceThePayloadHasToldOfAStep: the attempt first, so that
// nothing of it outlives the worker, then the daemon.
func TestWorkerDiesMidJobOnceThePayloadHasToldOfAStep(t *testing.T) {
	b := newRehearseBench(t)
	r, attempt := b.attempt(t)
	b.arm(t, r.hold.JobID, control.ScenarioMidJob, "")
	says(t, attempt, control.WitnessStart)
	struck := make(chan bool, 1)
	go func() { struck <- r.rehearseMidJob(t.Context()) }()
	says(t, attempt, control.WitnessStep)
	if !<-struck {
		t.Error("it did not strike")
	}
	if got := b.faults.struck(); !slices.Equal(got, []string{"kill attempt", "die"}) {
		t.Errorf("struck %q", got)
	}
	if s := b.status(t, r.hold.JobID); s.Struck.IsZero() || s.Missed != "" {
		t.Errorf("%+v", s)
	}
}

func TestWorkerDoesNotDieMidJob(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, b *rehearseBench, r *run, a *runner.Attempt)
		missed string
	}{
		"PayloadHasEnded": {func(t *testing.T, _ *rehearseBench, _ *run, a *runner.Attempt) {
			says(t, a, control.WitnessStart)
			if err := a.WriteExit(runner.Exit{Code: 1}); err != nil {
				t.Fatal(err)
			}
		}, "before its first step"},
		"Disarmed": {func(_ *testing.T, b *rehearseBench, r *run, _ *runner.Attempt) {
			time.AfterFunc(10*time.Millisecond, func() { b.rehearsals.disarm(r.hold.JobID) })
		}, "disarmed"},
		"AttemptCannotBeKilled": {func(t *testing.T, b *rehearseBench, _ *run, a *runner.Attempt) {
			b.faults.stuck = errors.New("it hangs in the driver")
			says(t, a, control.WitnessStep)
		}, "hangs in the driver"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newRehearseBench(t)
			r, attempt := b.attempt(t)
			b.arm(t, r.hold.JobID, control.ScenarioMidJob, "")
			c.change(t, b, r, attempt)
			if r.rehearseMidJob(t.Context()) || slices.Contains(b.faults.struck(), "die") {
				t.Errorf("struck %q", b.faults.struck())
			}
			if s := b.status(t, r.hold.JobID); !strings.Contains(s.Missed, c.missed) || s.Armed {
				t.Errorf("%+v", s)
			}
		})
	}
	t.Run("NothingArmedWaitsForNothing", func(t *testing.T) {
		b := newRehearseBench(t)
		r, _ := b.attempt(t)
		if r.rehearseMidJob(t.Context()) || len(b.faults.struck()) > 0 {
			t.Errorf("struck %q", b.faults.struck())
		}
	})
}

// TestDaemonNotesWhatBecameOfEachMessage: only of jobs of rehearsals.
func TestDaemonNotesWhatBecameOfEachMessage(t *testing.T) {
	b := newRehearseBench(t)
	r, _ := b.attempt(t)
	ctx := runFor(t, b.leaseBench)
	deliver := func(queue string, n uint64, redelivered bool) {
		b.settle(ctx, &broker.Delivery{
			Tag: broker.Tag{Generation: 3, Delivery: n}, Queue: queue, Redelivered: redelivered,
			Body: job.Ticket{ID: r.hold.JobID}.Encode(),
		}, nil)
	}
	deliver(r.job.Queue+".again", 8, false) // while the attempt runs
	r.finish(ctx, success())
	deliver(r.job.Queue, 9, true)                       // when the job is over
	deliver("gpuq.job.default.normal.g1.any", 10, true) // of no rehearsal
	want := []string{
		"delivered " + r.job.Queue + ".again", "duplicate own",
		"redelivered " + r.job.Queue, "duplicate ledger",
	}
	var got []string
	for _, n := range b.status(t, r.hold.JobID).Notes {
		got = append(got, string(n.What)+" "+n.Text)
	}
	if !slices.Equal(got, want) {
		t.Errorf("notes are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(b.acks.acked) != 4 {
		t.Errorf("acked %v; want the run's, its duplicate's, and both later ones", b.acks.acked)
	}
}

func TestRehearsalIsRefused(t *testing.T) {
	args := control.SimulateArgs{Action: control.SimulateArm, Host: "a", Job: job.NewID(), Scenario: control.ScenarioMidJob}
	for name, c := range map[string]struct {
		change func(*rehearseBench)
		caller control.Caller
		host   string
		want   error
		says   string
	}{
		"NoOperator":     {nil, ada, "a", control.ErrForbidden, "control.operators"},
		"NotAllowed":     {func(b *rehearseBench) { b.rehearsals = nil }, operator, "a", control.ErrConflict, "allowed = true below [simulate]"},
		"Starting":       {func(b *rehearseBench) { b.ready.Store(false) }, operator, "a", control.ErrUnavailable, "starting"},
		"TakesNothing":   {func(b *rehearseBench) { b.lease.lose() }, operator, "a", control.ErrConflict, "takes no work now"},
		"AnotherRuns":    {func(b *rehearseBench) { b.rehearsals.arm(control.SimulateArgs{Job: job.NewID(), Scenario: 2}) }, operator, "a", control.ErrConflict, "another rehearsal"},
		"NoSuchHost":     {nil, operator, "z", control.ErrNotFound, "z"},
		"HostIsOffline":  {func(b *rehearseBench) {}, operator, "b", nil, "ask host b"},
		"NotForwardedOn": {nil, control.Caller{User: "olga", Operator: true, Via: control.ViaForwarded}, "b", control.ErrNotFound, "this is host a"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newRehearseBench(t)
			b.addHost(t, "b", 1)
			if c.change != nil {
				c.change(b)
			}
			ask := args
			ask.Host = c.host
			_, err := b.Simulate(t.Context(), c.caller, ask)
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v that says %q", err, c.want, c.says)
			}
			if events, err := b.ledger.EventList(t.Context(), ledger.EventFilter{Limit: 9}); err != nil || len(events) != 0 {
				t.Errorf("recorded %v, %v", events, err)
			}
		})
	}
}

// TestRehearsalIsRecordedOnce: also where the client repeats its request.
func TestRehearsalIsRecordedOnce(t *testing.T) {
	b := newRehearseBench(t)
	id := job.NewID()
	for range 2 {
		b.arm(t, id, control.ScenarioMidJob, "")
	}
	events, err := b.ledger.EventList(t.Context(), ledger.EventFilter{Limit: 9})
	if err != nil || len(events) != 1 {
		t.Fatalf("recorded %v, %v", events, err)
	}
	if e := events[0]; e.Who != "olga" || e.What != "simulate" || e.Target != string(id) || e.Host != "a" || e.Why != "scenario 2 at host a" {
		t.Errorf("recorded %+v", e)
	}
}

// TestPoolsOfRehearsalsAreForOperators: whichever way a submission comes.
func TestPoolsOfRehearsalsAreForOperators(t *testing.T) {
	b := newRehearseBench(t)
	b.cfg.Control.Operators = []string{"olga"}
	b.cfg.Take.ShapesMax = 10
	submission := func() []byte {
		s := job.Submission{Schema: job.Schema, ID: job.NewID(), Spec: job.DefaultSpec()}
		s.Spec.Command, s.Spec.Pool = []string{"true"}, job.RehearsalPool("a")
		body, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	if _, err := b.Submit(t.Context(), ada, submission()); !errors.Is(err, job.ErrMessage) || !strings.Contains(err.Error(), "kept for rehearsals") {
		t.Errorf("a user's submission: %v", err)
	}
	if _, err := b.Submit(t.Context(), operator, submission()); err != nil {
		t.Errorf("an operator's submission: %v", err)
	}
	for user, want := range map[string]bool{"ada": false, "olga": true} {
		_, err := b.submit(t.Context(), submission(), b.sender(&broker.Delivery{UserID: user}), false)
		if (err == nil) != want {
			t.Errorf("a message of %s: %v", user, err)
		}
	}
}

// TestOtherHostsServeWhatWasPublishedAgain: of the pools of rehearsals the own
// one whole, of the others' the again queues, and none without leave.
func TestOtherHostsServeWhatWasPublishedAgain(t *testing.T) {
	for _, pool := range []string{"default", job.RehearsalPool("a"), job.RehearsalPool("b")} {
		for _, allowed := range []bool{true, false} {
			b := newRehearseBench(t)
			b.shapes = newShapes()
			shape := job.Shape{Pool: pool, Priority: job.Normal, GPUs: 1, Class: job.ClassAny}
			b.shapes.add(shape.Queue())
			b.cfg.Simulate.Allowed = allowed
			b.cfg.Host.Pools = servedPools(Options{Config: b.cfg})
			if !allowed {
				b.rehearsals = nil
			}
			own, other := pool == job.RehearsalPool("a"), pool == job.RehearsalPool("b")
			v := b.view()
			plain, again := slices.Contains(v.Pools, pool), slices.Contains(v.Pools, pool) || slices.Contains(v.AgainPools, pool)
			if wantPlain, wantAgain := pool == "default" || own && allowed, pool == "default" || (own || other) && allowed; plain != wantPlain || again != wantAgain {
				t.Errorf("allowed %t, pool %s: plain %t, again %t; want %t, %t", allowed, pool, plain, again, wantPlain, wantAgain)
			}
		}
	}
}

// TestRehearsalWhoseHostNeverTakesItIsTakenByAnother: the sweeper starts it.
func TestRehearsalWhoseHostNeverTakesItIsTakenByAnother(t *testing.T) {
	b := newRehearseBench(t)
	spec := job.DefaultSpec()
	spec.Command, spec.Pool = []string{"true"}, job.RehearsalPool("b")
	j, _, err := b.ledger.Submit(t.Context(), job.New(job.NewID(), "olga", spec, b.now()))
	if err != nil {
		t.Fatal(err)
	}
	b.shapes.add(j.Queue)
	b.runner = panickyRunner{b.runner, j.ID} // it has been claimed by then
	b.broker = oneMessage{b.acks, j}
	b.clock.pass(b.cfg.Take.Slack.Std())
	if err := b.renewOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	shape, err := job.ParseQueue(j.Queue)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.probeQueue(runFor(t, b.leaseBench), shape, j.Queue); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "host a has claimed the job of host b's rehearsal", func() bool {
		after, err := b.ledger.Job(t.Context(), j.ID)
		return err == nil && after.Attempt == 1
	})
}

// oneMessage is a broker whose queues all begin with the message of one job.
type oneMessage struct {
	*ackBox
	j *job.Job
}

func (o oneMessage) Take(_ context.Context, queue string) (*broker.Delivery, error) {
	return &broker.Delivery{Tag: broker.Tag{Generation: 1, Delivery: 1}, Queue: queue, Body: job.Ticket{ID: o.j.ID}.Encode()}, nil
}
