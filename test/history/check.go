package history

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gpuqd/daemon/job"
)

// Invariant names a promise that a history can break.
type Invariant string

// The invariants: those of the design, section 11, each under the name by which
// planted bugs must be caught.
const (
	// Lost: a confirmed job is not over at the end, or the ledger has forgotten it.
	Lost Invariant = "lost"
	// RolledBack: the document at the end is not what the last transition wrote.
	RolledBack Invariant = "rolled_back"
	// TwoEnds: a job that was over ended once more.
	TwoEnds Invariant = "two_ends"
	// CommittedTwice: one write, by its identity, is in the ledger twice.
	CommittedTwice Invariant = "committed_twice"
	// StaleCommit: a write of an owner took effect after another claim, or after
	// its own had ended.
	StaleCommit Invariant = "stale_commit"
	// FenceBroken: a claim did not raise the fence by one, or the attempt at all;
	// or another write moved the fence.
	FenceBroken Invariant = "fence_broken"
	// IllegalTransition: a step that job.Allowed does not have, and that none of
	// the names above fits. A terminal state that is left is one.
	IllegalTransition Invariant = "illegal_transition"
	// Overlap: two attempts of one job ran at one time.
	Overlap Invariant = "overlap"
	// DeviceShared: two payloads were on one device at one time, and it was not
	// shared, or shared out beyond its memory; a frozen one is still on it.
	DeviceShared Invariant = "device_shared"
	// Misplaced: a payload began where the devices do not meet what its job asks for.
	Misplaced Invariant = "misplaced"
	// UnjustifiedAck: a message was removed for a host that had no right to it.
	UnjustifiedAck Invariant = "unjustified_ack"
	// TooManyExecutions: more than 1 + faults + retries + requeues on purpose.
	TooManyExecutions Invariant = "executions"
	// BeganTwice: one attempt began twice.
	BeganTwice Invariant = "began_twice"
	// BeganUnclaimed: an attempt began that its host had not claimed.
	BeganUnclaimed Invariant = "began_unclaimed"
	// RanAfterEnd: an attempt began when its claim was over, with its job or by
	// the claim's release or takeover.
	RanAfterEnd Invariant = "ran_after_end"
	// StartedHeld: a job was claimed that a person had been told waits for him.
	StartedHeld Invariant = "started_held"
	// StartedDrained: a payload began on what its host knew to be drained when it
	// claimed the job.
	StartedDrained Invariant = "started_drained"
	// ReleasedRunning: a host released its session while a payload ran on it.
	ReleasedRunning Invariant = "released_running"
	// Overcharged: a job paid for an attempt that was taken from it.
	Overcharged Invariant = "overcharged"
	// ResultDiffers: the stored result is not what the payload's witness saw.
	ResultDiffers Invariant = "result_differs"
	// NeedlessRepublish: a job was published anew whose message was ready in its
	// queue all the time.
	NeedlessRepublish Invariant = "needless_republish"
	// LeftOver: something runs, waits or holds a device at the end.
	LeftOver Invariant = "left_over"
	// SlowRecovery: a confirmed job ended, but later than Rules.Recovery allows.
	SlowRecovery Invariant = "slow_recovery"
)

// Invariants lists them all.
var Invariants = []Invariant{
	Lost, RolledBack, TwoEnds, CommittedTwice, StaleCommit, FenceBroken, IllegalTransition, Overlap, DeviceShared, Misplaced,
	UnjustifiedAck, TooManyExecutions, BeganTwice, BeganUnclaimed, RanAfterEnd, StartedHeld, StartedDrained, ReleasedRunning, Overcharged, ResultDiffers, NeedlessRepublish,
	LeftOver, SlowRecovery,
}

// Rules are what the site of a history was set to.
type Rules struct {
	// OnLoss is lease.on_loss. With "continue" overlaps of attempts are excused.
	OnLoss string
	// Tick is how long an attempt may go on past its deadline: a shim's.
	Tick time.Duration
	// Contact is how long a host that was itself paused may take, from Resumed, to
	// its next contact, when it stops what it has lost. Tick where that is longer.
	Contact time.Duration
	// Mishaps counts what failed without a Fault event: each may cost an execution,
	// too.
	Mishaps int
	// FaultCost is how many executions of one job a single fault may cost; 0 is 1.
	FaultCost int
	// Recovery bounds the time from the last of Fault and Healed to the end of
	// every confirmed job, or from its confirmation where that came later; 0 is not
	// checked, nor is a history without faults.
	Recovery time.Duration
	// Deadline is the end of the observation; zero is the last event.
	Deadline time.Time
	// DeviceBytes is the memory of each device of a host, where devices are shared.
	DeviceBytes map[string]uint64
	// Serve names the hosts whose devices a job can use; a job that it has not can
	// use any.
	Serve map[job.ID][]string
}

// End is how things stood when the observation ended.
type End struct {
	Jobs      map[job.ID]*job.Job // every document of the ledger
	Leftovers []string            // what ran or waited and should not, for people
}

// Violation is one promise that was broken once.
type Violation struct {
	Invariant Invariant
	Job       job.ID // "" where it concerns none
	Host      string // "" where it concerns none
	Detail    string // for a person
	Events    []Event
	// Excused: the design, section 1, does not promise this one away from users:
	// on_loss is "continue", it lasted no longer than a tick of a shim, or the host
	// was itself paused. It is no failure; it is told, so that it can be counted.
	Excused bool
}

// String is the violation and the events that show it, for a person.
func (v Violation) String() string {
	var b strings.Builder
	b.WriteString(string(v.Invariant))
	if v.Excused {
		b.WriteString(" (excused)")
	}
	if v.Job != "" {
		b.WriteString(" job=" + short(string(v.Job)))
	}
	if v.Host != "" {
		b.WriteString(" host=" + v.Host)
	}
	b.WriteString(": " + v.Detail)
	for _, e := range v.Events {
		b.WriteString("\n\t" + e.String())
	}
	return b.String()
}

// Broken returns the violations that are not excused.
func Broken(all []Violation) []Violation {
	var broken []Violation
	for _, v := range all {
		if !v.Excused {
			broken = append(broken, v)
		}
	}
	return broken
}

// Check judges a history, whose events come in the order of their true time. It
// returns what it breaks, excused overlaps among them, job by job.
func Check(events []Event, end End, rules Rules) []Violation {
	b := newBook(events, end, rules)
	for i := range b.traces {
		t := b.traces[i]
		b.lost(t)
		b.rolledBack(t)
		b.twoEnds(t)
		b.committedTwice(t)
		b.staleCommit(t)
		b.fenceBroken(t)
		b.illegalTransition(t)
		b.overlap(t)
		b.misplaced(t)
		b.unjustifiedAck(t)
		b.tooManyExecutions(t)
		b.beganTwice(t)
		b.beganUnclaimed(t)
		b.ranAfterEnd(t)
		b.startedHeld(t)
		b.startedDrained(t)
		b.releasedRunning(t)
		b.overcharged(t)
		b.resultDiffers(t)
		b.needlessRepublish(t)
		b.slowRecovery(t)
	}
	b.deviceShared()
	b.leftOver()
	return b.found
}

// report adds a violation, with the events that show it, oldest
// first; nil ones are left out.
func (b *book) report(i Invariant, t *trace, host string, events []*Event, format string, args ...any) *Violation {
	v := Violation{Invariant: i, Host: host, Detail: fmt.Sprintf(format, args...)}
	if t != nil {
		v.Job = t.id
	}
	for _, e := range events {
		if e != nil {
			v.Events = append(v.Events, *e)
		}
	}
	slices.SortStableFunc(v.Events, func(a, b Event) int { return a.At.Compare(b.At) })
	b.found = append(b.found, v)
	return &b.found[len(b.found)-1]
}
