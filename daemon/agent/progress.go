package agent

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The loops whose progress is watched, by the names that people see. Single jobs
// are not among them: an attempt may last for weeks, and what goes wrong with one
// job is that job's alone.
const (
	loopStart       = "start-up"
	loopLease       = "lease"
	loopWatch       = "watch"
	loopTake        = "take"
	loopDrain       = "drain"
	loopAlarms      = "device alarms"
	loopSweep       = "sweep"
	loopProbe       = "ledger probe"
	loopIntake      = "intake"       // one per message under way
	loopDeadLetters = "dead letters" // one per message under way
)

// progress is what the watchdog goes by: of every loop, whether it still comes
// round. A loop leaves a sign as it goes, and inside its longer steps; the
// watchdog counts its own turns since the last. It counts turns, not time: where
// the whole machine stood still, or gave this process no processor, nobody is late.
//
// The sign travels in the context, so that what the loops share (persist, every)
// leaves it for whichever of them is calling.
type progress struct {
	mu    sync.Mutex // held to change the list and to copy it, never while anything else is done
	loops []*pulse
	block func() // what a wedged loop does for ever
}

// pulse is the progress of one loop, or of one message that is handled.
type pulse struct {
	name      string
	allowance time.Duration // the longest time between two signs that is no sign of trouble
	silent    atomic.Int64  // turns of the watchdog since the last sign
	resting   atomic.Int64  // above 0 while it waits for what may never come, and is right to
	wedge     atomic.Bool   // set by a rehearsal: block at the next sign
	owner     *progress
}

type pulseKey struct{}

// follow returns a context whose holder is watched until end is called. The
// allowance counts between two signs.
func (p *progress) follow(ctx context.Context, name string, allowance time.Duration) (_ context.Context, end func()) {
	one := &pulse{name: name, allowance: allowance, owner: p}
	p.mu.Lock()
	p.loops = append(p.loops, one)
	p.mu.Unlock()
	return context.WithValue(ctx, pulseKey{}, one), func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.loops = slices.DeleteFunc(p.loops, func(other *pulse) bool { return other == one })
	}
}

// pulseOf returns the loop that a context belongs to, nil where it is no loop's.
func pulseOf(ctx context.Context) *pulse {
	one, _ := ctx.Value(pulseKey{}).(*pulse)
	return one
}

// beat says that the loop of ctx has come this far.
func beat(ctx context.Context) {
	one := pulseOf(ctx)
	if one == nil {
		return
	}
	one.silent.Store(0)
	if one.wedge.Load() {
		one.owner.block()
	}
}

// rest says that the loop of ctx waits for what may never come, such as the end of
// an attempt. Only a wait that nothing but its event or ctx can end may rest. Call
// the function it returns when the wait is over.
func rest(ctx context.Context) (wake func()) {
	one := pulseOf(ctx)
	if one == nil {
		return func() {}
	}
	one.resting.Add(1)
	return func() {
		one.silent.Store(0)
		one.resting.Add(-1)
	}
}

// apart returns ctx for a goroutine of its own: signs of a job must not pass for
// signs of the loop that started it.
func apart(ctx context.Context) context.Context {
	if pulseOf(ctx) == nil {
		return ctx
	}
	return context.WithValue(ctx, pulseKey{}, (*pulse)(nil))
}

// stuck is one loop that is past its allowance.
type stuck struct {
	name      string
	silence   time.Duration // at least; it is counted in turns
	allowance time.Duration
}

// turn counts one turn of the watchdog for every loop and returns those that are
// past their allowance, the longest silent first.
func (p *progress) turn(interval time.Duration) (late []stuck) {
	p.mu.Lock()
	loops := slices.Clone(p.loops)
	p.mu.Unlock()
	for _, one := range loops {
		if one.resting.Load() > 0 {
			one.silent.Store(0)
			continue
		}
		// The first turn after a sign may come at once, so one more is allowed.
		silence := time.Duration(one.silent.Add(1)-1) * interval
		if silence > one.allowance {
			late = append(late, stuck{one.name, silence, one.allowance})
		}
	}
	slices.SortStableFunc(late, func(a, b stuck) int { return int(b.silence - a.silence) })
	return late
}

// names returns the loops there are, in order and each once.
func (p *progress) names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []string
	for _, one := range p.loops {
		list = append(list, one.name)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// wedge makes a loop block for good at its next sign. It reports whether there is
// such a loop.
func (p *progress) wedge(name string) (found bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.loops {
		if one.name == name {
			one.wedge.Store(true)
			found = true
		}
	}
	return found
}
