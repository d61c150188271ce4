package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/health"
	"gpuqd/daemon/ledger"
)

// Names of the checks that compare hosts.
const (
	checkAnswer  = "answer"
	checkHosts   = "hosts"
	checkVersion = "version"
	checkSameOne = "one ledger"
)

// other is what came of asking another host.
type other struct {
	name     string
	findings []control.Finding // its own, or that it does not answer
	who      control.VersionReply
	heard    bool // who is set
}

// consult asks every other live host for its own findings, all at once, and
// compares the hosts.
func (a *Agent) consult(ctx context.Context, caller control.Caller) []control.Finding {
	hosts, err := a.freshHosts(ctx)
	if known := a.hosts.Load(); err != nil && known != nil {
		hosts = *known // as last read: enough to know whom to ask
	}
	var live []string
	for _, h := range hosts {
		if h.Name != a.host && h.Session.State == ledger.Live {
			live = append(live, h.Name)
		}
	}
	answers := make([]other, len(live))
	var strangers []control.VersionReply
	var group sync.WaitGroup
	for i, name := range live {
		group.Go(func() { answers[i] = a.consultOne(ctx, caller, name) })
	}
	group.Go(func() { strangers = a.askAround(ctx, caller, len(live)+1) })
	group.Wait()
	var findings []control.Finding
	for _, o := range answers {
		findings = append(findings, o.findings...)
	}
	findings = append(findings, a.findings(partHost, a.judgeHosts(hosts, err))...)
	findings = append(findings, a.findings(partHost, []health.Check{a.judgeVersions(answers)})...)
	return append(findings, a.findings(partLedger, []health.Check{a.judgeSameLedger(answers, strangers)})...)
}

// consultOne asks one host who it is, which is quick, and then how it is. From
// the second answer comes the offset of its clock.
func (a *Agent) consultOne(ctx context.Context, caller control.Caller, name string) other {
	o := other{name: name}
	const advice = "see whether gpuqd runs there and reaches the broker: systemctl status gpuqd, then gpuqctl doctor --local on that host"
	if err := a.askHost(ctx, name, control.VerbVersion, caller, struct{}{}, &o.who); err != nil {
		o.findings = a.findings(partHost, []health.Check{health.Bad(checkAnswer, health.Fail, advice, "%s has a live session and does not answer: %v", name, err)})
		return o
	}
	o.heard = true
	var reply control.DoctorReply
	sent := a.clock.Now()
	err := a.ask(ctx, name, control.VerbDoctor, caller, control.DoctorArgs{Local: true}, &reply)
	got := a.clock.Now()
	if err != nil {
		o.findings = a.findings(partHost, []health.Check{health.Bad(checkAnswer, health.Fail, advice, "%s answers, but not how it fares: %v", name, err)})
		return o
	}
	offset, within := offsetOf(sent, reply.Received.Time, reply.Answered.Time, got)
	o.findings = append(reply.Findings, a.findings(partClock, []health.Check{a.judgeMeasured(name, offset, within)})...)
	return o
}

// offsetOf returns how far another clock is ahead of this one, and the bound of
// the error: half of the time that the two messages were on their way.
//
// Source: RFC 5905, section 8.
func offsetOf(sent, received, answered, got time.Time) (offset, within time.Duration) {
	offset = (received.Sub(sent) + answered.Sub(got)) / 2
	within = max(0, got.Sub(sent)-answered.Sub(received)) / 2
	return offset, within
}

func (a *Agent) judgeMeasured(name string, offset, within time.Duration) health.Check {
	side := "ahead of"
	if offset < 0 {
		side = "behind"
	}
	return a.judgeOffset(checkOffset, offset.Abs()-within, "the clock of %s is %s %s that of %s (to within %s)",
		name, health.Figure(offset.Abs()), side, a.host, health.Figure(within))
}

// strangersMax bounds how many daemons are asked without a name.
const strangersMax = 24

// askAround asks whichever daemons are free who they are, often enough that the
// broker's turn comes to each: one with another ledger is not among this one's
// hosts.
func (a *Agent) askAround(ctx context.Context, caller control.Caller, daemons int) []control.VersionReply {
	ctx, cancel := context.WithTimeout(ctx, askHostTimeout)
	defer cancel()
	var list []control.VersionReply
	for range min(2*daemons+1, strangersMax) {
		var who control.VersionReply
		if err := a.ask(ctx, "", control.VerbVersion, caller, struct{}{}, &who); err != nil {
			return list // the broker's checks say so
		}
		list = append(list, who)
	}
	return list
}

func (a *Agent) judgeSameLedger(answers []other, strangers []control.VersionReply) health.Check {
	ids := map[string][]string{}
	note := func(who control.VersionReply) {
		if who.LedgerID != "" && !slices.Contains(ids[who.LedgerID], who.Host) {
			ids[who.LedgerID] = append(ids[who.LedgerID], who.Host)
		}
	}
	if l, err := a.book(); err == nil {
		note(control.VersionReply{Host: a.host, LedgerID: l.ID()})
	}
	for _, o := range answers {
		if o.heard {
			note(o.who)
		}
	}
	for _, who := range strangers {
		note(who)
	}
	var parts []string
	total := 0
	for id, hosts := range ids {
		slices.Sort(hosts)
		total += len(hosts)
		parts = append(parts, fmt.Sprintf("%s: %s", id, health.Names(hosts)))
	}
	slices.Sort(parts)
	switch {
	case len(ids) > 1:
		return health.Bad(checkSameOne, health.Fail, "stop gpuqd on the hosts with the wrong one, set [ledger] in their gpuqd.toml to the others', and start them: "+
			"hosts with different ledgers take each other's messages and know nothing of their jobs", "the daemons on this broker have %d different ledgers: %s", len(ids), strings.Join(parts, "; "))
	case total == 0:
		return health.Bad(checkSameOne, health.Unknown, "mend the ledger first", "no daemon has reached its ledger")
	}
	return health.Good(checkSameOne, "%d daemons answer, all with the ledger %s", total, parts[0])
}

// goneAfter is how long a host that is not live is worth a warning.
const goneAfter = 30 * 24 * time.Hour

func (a *Agent) judgeHosts(hosts []*ledger.Host, err error) []health.Check {
	if err != nil && len(hosts) == 0 {
		return []health.Check{health.Bad(checkHosts, health.Unknown, "mend the ledger first; gpuqctl doctor --local on each host works without it", "the ledger does not say which other hosts there are: %v", err)}
	}
	var checks []health.Check
	live := 0
	for _, h := range hosts {
		if h.Session.State == ledger.Live {
			live++
			continue
		}
		if age := a.clock.Now().Sub(h.Session.RenewedAt.Time); h.Session.State == ledger.Expired && age < goneAfter {
			checks = append(checks, health.Bad(checkHosts, health.Warn, "start the host, or gpuqd on it; one that is gone for good needs nothing: its jobs were taken over, and it is not named here after 30 days",
				"%s is not live: its session expired, and it was last heard of %s ago", h.Name, health.Figure(age)))
		}
	}
	return append(checks, health.Good(checkHosts, "%d of %d known hosts are live", live, len(hosts)))
}

func (a *Agent) judgeVersions(answers []other) health.Check {
	versions := map[string][]string{a.version: {a.host}}
	for _, o := range answers {
		if o.heard {
			versions[o.who.Version] = append(versions[o.who.Version], o.name)
		}
	}
	if len(versions) == 1 {
		return health.Good(checkVersion, "%s on %s", a.version, health.Names(versions[a.version]))
	}
	var parts []string
	for version, hosts := range versions {
		parts = append(parts, version+" on "+health.Names(hosts))
	}
	slices.Sort(parts)
	return health.Bad(checkVersion, health.Warn, "finish the upgrade: several versions are meant to be together for the time of an upgrade only", "gpuqd is %s", strings.Join(parts, "; "))
}
