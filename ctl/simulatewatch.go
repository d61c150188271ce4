package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

const (
	// rehearsalPoll is how often a rehearsal is looked at.
	rehearsalPoll = 200 * time.Millisecond
	// settleTime is how long, after the job's end, the host may take to be back,
	// and the duplicate to come.
	settleTime = 90 * time.Second
	// silenceMax is how long a host may be silent before it counts as gone.
	silenceMax = time.Minute
	// readyTime is how long the host may take to be ready before it begins: the
	// rehearsal before this one may have killed its gpuqd.
	readyTime = 2 * time.Minute
)

// rehearsal is one scenario that is being played.
type rehearsal struct {
	*simulateCmd
	client   *control.Client
	host     string
	scenario control.Scenario
	moment   control.SimulateMoment // "" unless scenario 4
	id       job.ID
	begun    time.Time // when the job was submitted, by this machine

	job     *job.Job // as last seen; nil before
	ended   time.Time
	streams []*stream // of the attempts, the first first

	daemon string // the process of gpuqd that it was armed at
	heard  control.SimulateReply
	notes  []control.SimulateNote // of all processes
	of     int                    // notes of the present process among them
	silent bool                   // the host does not answer
	hushed time.Time              // since when
	back   bool                   // another process has answered, and is ready
	told   int                    // rows of the history
	struck bool                   // it was told
}

// stream is the output of one attempt.
type stream struct {
	offset  int64
	rest    []byte // begins a line that is not whole yet
	witness []control.Witness
	end     bool
}

// event is one line of the story.
type event struct {
	at    time.Time
	who   string
	style style
	text  string
}

// rehearse plays one scenario to its verdict.
func (c *simulateCmd) rehearse(ctx context.Context, client *control.Client, host string, s control.Scenario) (*simulateVerdict, error) {
	r := &rehearsal{simulateCmd: c, client: client, host: host, scenario: s, id: job.NewID()}
	if s == control.ScenarioLate {
		r.moment = control.SimulateMoment(c.moment)
	}
	if err := c.explain(ctx, host, s); err != nil {
		return nil, err
	}
	pool, err := r.arm(ctx)
	if err != nil {
		return nil, fmt.Errorf("simulate: %w", err)
	}
	defer r.disarm(ctx)
	if err := r.submit(ctx, pool); err != nil {
		return nil, err
	}
	for !r.over() && ctx.Err() == nil {
		r.look(ctx)
		sleep(ctx, rehearsalPoll)
	}
	if ctx.Err() != nil {
		r.end(ctx)
		return nil, &exitError{code: exitInterrupted, err: fmt.Errorf(c.text.interrupted, r.id)}
	}
	if !r.jobOver() {
		r.end(ctx)
	}
	r.recall(ctx)
	v := r.judge()
	r.tellVerdict(v)
	return v, nil
}

func (r *rehearsal) args(action control.SimulateAction) control.SimulateArgs {
	args := control.SimulateArgs{Action: action, Host: r.host, Job: r.id}
	if action == control.SimulateArm {
		args.Scenario, args.Moment = r.scenario, r.moment
	}
	return args
}

// arm sets the fault up, once the host is ready, and returns the pool.
func (r *rehearsal) arm(ctx context.Context) (pool string, err error) {
	for deadline := r.now().Add(readyTime); ; sleep(ctx, rehearsalPoll) {
		reply, err := r.client.Simulate(ctx, r.args(control.SimulateArm))
		starting := errors.Is(err, control.ErrUnavailable) || errors.Is(err, control.ErrNoHost)
		if err != nil && (!starting || ctx.Err() != nil || r.now().After(deadline)) {
			return "", err
		}
		if err == nil {
			r.daemon, r.heard = reply.Daemon, reply
			return reply.Pool, nil
		}
		if !r.silent {
			r.silent = true
			r.say(r.text.waitReady, r.host)
		}
	}
}

// disarm leaves no fault behind, whatever became of the rehearsal. A daemon that
// died has forgotten it by itself.
func (r *rehearsal) disarm(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishGrace)
	defer cancel()
	_, _ = r.client.Simulate(ctx, r.args(control.SimulateDisarm)) // else it ends by its own time
}

// submit hands the job in.
func (r *rehearsal) submit(ctx context.Context, pool string) error {
	r.silent = false
	spec := rehearsalSpec(r.host, pool, r.scenario, r.freeDevice(ctx), r.length, r.within)
	r.begun = r.now()
	finish, cancel := r.finishing(ctx)
	defer cancel()
	_, err := r.client.Submit(finish, job.Submission{Schema: job.Schema, ID: r.id, Spec: spec})
	if err != nil {
		r.end(ctx)
		return fmt.Errorf("simulate: %w", err)
	}
	r.tell(plain, "")
	r.tell(plain, r.text.job, r.id, pool, spec.GPUs)
	return nil
}

// freeDevice returns 1 where the host has a device to spare, else 0: then the job
// takes a slot without one.
func (r *rehearsal) freeDevice(ctx context.Context) int {
	reply, err := r.client.Hosts(ctx)
	if err != nil {
		return 0
	}
	for _, h := range reply.Hosts {
		if h.Name == r.host && h.DevicesFree > 0 {
			return 1
		}
	}
	return 0
}

// end kills the job, where it is not over: nothing is left half done.
func (r *rehearsal) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishGrace)
	defer cancel()
	if _, err := r.client.Kill(ctx, control.KillArgs{ID: r.id, Reason: "its rehearsal is over"}); err != nil && !errors.Is(err, control.ErrNotFound) {
		r.say("kill %s: %v", r.id, err)
	}
}

func (r *rehearsal) jobOver() bool { return r.job != nil && r.job.State.Terminal() }

// over reports whether there is nothing more to see.
func (r *rehearsal) over() bool {
	now := r.now()
	if !r.jobOver() {
		return now.Sub(r.begun) > r.within
	}
	if r.ended.IsZero() {
		r.ended = now
	}
	gone := r.silent && now.Sub(r.hushed) > silenceMax
	return r.settled() || gone || now.Sub(r.ended) > settleTime
}

// settled reports whether all that the scenario promises has been seen.
func (r *rehearsal) settled() bool {
	for _, s := range r.streams {
		if !s.end {
			return false
		}
	}
	switch r.scenario {
	case control.ScenarioMidJob:
		return r.back || r.heard.Missed != ""
	case control.ScenarioAckLost:
		return r.turnedAway() != nil || r.heard.Missed != ""
	case control.ScenarioLate:
		return r.back && r.turnedAway() != nil || r.heard.Missed != ""
	}
	return true
}

// turnedAway returns the note of the first duplicate since the fault, nil where
// none was seen.
func (r *rehearsal) turnedAway() *control.SimulateNote {
	for i, n := range r.notes {
		if n.What == control.NoteDuplicate && !r.heard.Struck.IsZero() && !n.At.Before(r.heard.Struck.Time) {
			return &r.notes[i]
		}
	}
	return nil
}

// look asks for all that is new, and tells it in the order in which it happened.
// What cannot be had now is asked for at the next look.
func (r *rehearsal) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	events := r.lookAtHost(ctx)
	if j, err := r.client.Show(ctx, r.id); err == nil {
		r.job = j
	}
	if r.job != nil {
		events = append(events, r.newRows()...)
		for n := 1; n <= r.job.Attempt; n++ {
			events = append(events, r.lookAtOutput(ctx, n)...)
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	for _, e := range events {
		since := max(0, e.at.Sub(r.started()))
		r.tell(e.style, "%8.2f s  %s  %s", since.Seconds(), fill(e.who, max(len(r.host), len("payload"))), e.text)
	}
}

// lookTimeout bounds one look: a host that hangs must not hide the others.
const lookTimeout = 10 * time.Second

// started is where the story's clock begins.
func (r *rehearsal) started() time.Time {
	if r.job != nil {
		return r.job.SubmittedAt.Time
	}
	return r.begun
}

// newRows returns the transitions that were not told yet.
func (r *rehearsal) newRows() (events []event) {
	for _, row := range r.job.History[min(r.told, len(r.job.History)):] {
		events = append(events, event{row.At.Time, "ledger", stateStyle(row.State), string(row.State) + prefixed(": ", row.Reason)})
	}
	r.told = max(r.told, len(r.job.History))
	return events
}

// lookAtOutput reads what is new of one attempt's output.
func (r *rehearsal) lookAtOutput(ctx context.Context, n int) (events []event) {
	for len(r.streams) < n {
		r.streams = append(r.streams, &stream{})
	}
	s := r.streams[n-1]
	for !s.end {
		reply, err := r.client.Logs(ctx, control.LogsArgs{ID: r.id, Attempt: n, Offset: s.offset, Max: control.LogBytesMax})
		if err != nil || reply.Stored {
			return events // its host does not answer now
		}
		if len(reply.Data) == 0 {
			s.end = reply.End
			return events
		}
		s.offset, s.end = reply.NextOffset, reply.End
		text := append(s.rest, reply.Data...)
		whole := bytes.LastIndexByte(text, '\n') + 1
		s.rest = slices.Clone(text[whole:])
		for _, w := range control.ReadWitness(text[:whole]) {
			s.witness = append(s.witness, w)
			events = append(events, event{w.Time.Time, "payload", plain, r.text.ofWitness(w)})
		}
	}
	return events
}

// recall takes what the ledger has of the output of a host that is gone.
func (r *rehearsal) recall(ctx context.Context) {
	for i, s := range r.streams {
		if s.end {
			continue
		}
		reply, err := r.client.Logs(ctx, control.LogsArgs{ID: r.id, Attempt: i + 1, Max: control.LogBytesMax})
		if err == nil && reply.Stored {
			s.witness, s.end = control.ReadWitness(reply.Data), true
		}
	}
}

// ofWitness is a line of the witness in words.
func (t *simulateText) ofWitness(w control.Witness) string {
	switch w.Event {
	case control.WitnessStart:
		return fmt.Sprintf(t.toldStart, w.Attempt, w.PID, w.Machine, cmp.Or(w.Devices, "-"))
	case control.WitnessStep:
		return fmt.Sprintf(t.toldStep, w.Attempt, w.Step)
	case control.WitnessFail:
		return fmt.Sprintf(t.toldFail, w.Attempt)
	case control.WitnessEnd:
		return fmt.Sprintf(t.toldEnd, w.Attempt)
	}
	return w.Event
}

// lookAtHost asks the host what it has seen.
func (r *rehearsal) lookAtHost(ctx context.Context) (events []event) {
	add := func(at time.Time, s style, text string) { events = append(events, event{at, r.host, s, text}) }
	reply, err := r.client.Simulate(ctx, r.args(control.SimulateStatus))
	if err != nil {
		if !r.silent {
			r.silent, r.hushed = true, r.now()
			add(r.hushed, middle, r.text.silent)
		}
		return events
	}
	r.silent = false
	if reply.Daemon != r.heard.Daemon {
		r.of = 0
	}
	for _, n := range reply.Notes[min(r.of, len(reply.Notes)):] {
		r.notes = append(r.notes, n)
		add(n.At.Time, plain, r.text.ofNote(n))
	}
	r.of = len(reply.Notes)
	r.heard = reply
	if !reply.Struck.IsZero() && !r.struck {
		r.struck = true
		text := r.text.struck[r.scenario]
		if r.moment == control.MomentCommit {
			text = r.text.struckLate
		}
		add(reply.Struck.Time, bad, text)
	}
	if reply.Daemon != r.daemon && !reply.Ready.IsZero() && !r.back {
		r.back = true
		add(reply.Ready.Time, good, r.text.back)
	}
	return events
}

// ofNote is what the host saw, in words.
func (t *simulateText) ofNote(n control.SimulateNote) string {
	switch n.What {
	case control.NoteDelivered:
		return fmt.Sprintf(t.delivered, n.Text)
	case control.NoteRedelivered:
		return fmt.Sprintf(t.redelivered, n.Text)
	case control.NoteDuplicate:
		return fmt.Sprintf(t.duplicate, n.Text)
	case control.NoteAdopted:
		return fmt.Sprintf(t.adopted, n.Text)
	}
	return string(n.What)
}

// fill makes text at least that wide.
func fill(text string, columns int) string { return fmt.Sprintf("%-*s", columns, text) }
