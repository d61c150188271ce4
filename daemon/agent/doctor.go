package agent

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/health"
)

// How long the doctor looks. A request has 30 s in all (package control).
const (
	doctorTimeout = 26 * time.Second // a whole answer, the others' included
	doctorPart    = 24 * time.Second // one part of this host
	doctorAsked   = 12 * time.Second // the same, where another host asks
	// doctorGrace is what a part gets to return after its time is up.
	doctorGrace = time.Second
)

// The parts, in the order of a report.
const (
	partBroker = "broker"
	partRedis  = "redis"
	partLedger = "ledger"
	partClock  = "clock"
	partDisk   = "disk"
	partDevice = "device"
	partHost   = "host"
)

var partOrder = []string{partBroker, partRedis, partLedger, partClock, partDisk, partDevice, partHost}

// Doctor implements control.Handler. What does not answer is a finding, never an
// error; there is nothing in it that only operators may know.
func (a *Agent) Doctor(ctx context.Context, caller control.Caller, args control.DoctorArgs) (control.DoctorReply, error) {
	reply := control.DoctorReply{Received: a.now()}
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	var others []control.Finding
	var group sync.WaitGroup
	if !args.Local && caller.Via != control.ViaForwarded {
		group.Go(func() { others = a.consult(ctx, caller) })
	}
	reply.Findings = a.examine(ctx, caller.Via == control.ViaForwarded)
	group.Wait()
	reply.Findings = append(reply.Findings, others...)
	slices.SortStableFunc(reply.Findings, func(x, y control.Finding) int {
		return slices.Index(partOrder, x.Part) - slices.Index(partOrder, y.Part)
	})
	reply.Answered = a.now()
	return reply, nil
}

// examination is one part's way of looking at itself. It returns when ctx ends.
type examination struct {
	part string
	look func(ctx context.Context) []health.Check
}

// examine looks at this host and what it needs. asked leaves out what the host
// that asks looks at itself, since it is the same for all.
func (a *Agent) examine(ctx context.Context, asked bool) []control.Finding {
	limit := doctorPart
	if asked {
		limit = doctorAsked
	}
	looks := []examination{
		{partBroker, func(ctx context.Context) []health.Check { return a.examineBroker(ctx, !asked) }},
		{partRedis, a.examineRedis},
		{partLedger, func(ctx context.Context) []health.Check { return a.examineLedger(ctx, !asked) }},
		{partClock, a.examineClock},
		{partDisk, a.examineDisk},
		{partDevice, a.examineDevices},
		{partHost, a.examineHost},
	}
	if !asked {
		looks = append(looks, examination{partBroker, a.examineRabbit})
	}
	results := make([][]control.Finding, len(looks))
	var group sync.WaitGroup
	for i, l := range looks {
		group.Go(func() { results[i] = a.findings(l.part, a.bounded(ctx, l, fmt.Sprint(i), limit)) })
	}
	group.Wait()
	return slices.Concat(results...)
}

// findings writes a part's checks as the protocol has them.
func (a *Agent) findings(part string, checks []health.Check) []control.Finding {
	list := make([]control.Finding, len(checks))
	for i, c := range checks {
		list[i] = control.Finding{Part: part, Check: c.Name, Host: a.host, State: control.FindingState(c.State), Saw: c.Saw, Advice: c.Advice}
	}
	return list
}

// checkEnd is the name of the check that a part's look came to an end at all.
const checkEnd = "look"

// bounded runs a look, and answers for one that does not come back, as on a disk
// that hangs. There is never more than one of a kind under way: a caller waits
// for the one before his.
func (a *Agent) bounded(ctx context.Context, l examination, kind string, limit time.Duration) []health.Check {
	const advice = "find out what hangs: the daemon's log and the kernel's, dmesg, say more"
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	turn := a.doctors.turn(kind)
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return []health.Check{health.Bad(checkEnd, health.Unknown, advice+"; else run gpuqctl doctor again", "an earlier look at it is still under way after %s", health.Figure(limit))}
	}
	done := make(chan []health.Check, 1)
	go func() { // not waited for: what it looks at may never answer
		defer func() { <-turn }()
		defer func() {
			if p := recover(); p != nil {
				a.log.Error("a look at the daemon's health panicked", "part", l.part, "err", fmt.Sprintf("%v\n%s", p, debug.Stack()))
				done <- []health.Check{health.Bad(checkEnd, health.Fail, "report this with the daemon's log", "the check itself failed: %v", p)}
			}
		}()
		done <- l.look(ctx)
	}()
	select {
	case checks := <-done:
		return checks
	case <-ctx.Done():
	}
	select {
	case checks := <-done:
		return checks
	case <-time.After(doctorGrace):
		return []health.Check{health.Bad(checkEnd, health.Fail, advice, "it did not come to an end within %s", health.Figure(limit))}
	}
}

// doctors keeps the looks of several requests apart.
type doctors struct {
	mu    sync.Mutex
	turns map[string]chan struct{} // by kind; each of capacity 1
}

func (d *doctors) turn(kind string) chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.turns == nil {
		d.turns = map[string]chan struct{}{}
	}
	if d.turns[kind] == nil {
		d.turns[kind] = make(chan struct{}, 1)
	}
	return d.turns[kind]
}
