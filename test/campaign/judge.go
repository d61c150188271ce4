package campaign

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/test/history"
)

const (
	// shimTick is how often a shim looks at its lease.
	shimTick = 200 * time.Millisecond
	// recoveryMax bounds the time from the end of the last fault to the end of
	// every job.
	recoveryMax = 5 * time.Minute
)

// rules are what a campaign's cluster was set to.
func rules(ended time.Time) history.Rules {
	return history.Rules{OnLoss: "freeze", Tick: shimTick + beat, Recovery: recoveryMax, Deadline: ended}
}

// judge holds the harvest against the promises.
func (c *campaign) judge(h *harvest) (*Result, error) {
	slices.SortFunc(c.blows, func(a, b *blow) int { return a.began.Compare(b.began) })
	events := h.events(c.blows)
	r := c.figures(h)
	r.Problems = append(r.Problems, wrongEnds(c.jobs, h)...)
	for _, err := range c.errs {
		r.Problems = append(r.Problems, "campaign: "+err.Error())
	}
	for _, b := range c.blows {
		if b.err != nil {
			r.Problems = append(r.Problems, fmt.Sprintf("fault %d, %s, was not done or not undone: %v", b.Number, b.Class, b.err))
		}
	}
	found := history.Check(events, history.End{Jobs: h.docs, Leftovers: h.leftovers}, rules(h.ended))
	for _, v := range found {
		if v.Excused {
			r.Excused++
			continue
		}
		r.Problems = append(r.Problems, v.String())
	}
	for _, e := range h.logs {
		if strings.Contains(e.Msg, "panic") || strings.HasPrefix(e.raw, "panic:") || strings.HasPrefix(e.raw, "fatal error:") {
			r.Problems = append(r.Problems, fmt.Sprintf("%s: %s%s %s", e.host, e.Msg, e.raw, e.Err))
		}
	}
	return r, c.keepVerdict(events, found, r)
}

// wrongEnds lists the jobs that did not end as their kind has to.
func wrongEnds(jobs []Job, h *harvest) (wrong []string) {
	for _, j := range jobs {
		doc := h.docs[j.ID]
		if doc == nil || doc.State == j.Want {
			continue // a job that is missing is lost, if it was confirmed
		}
		wrong = append(wrong, fmt.Sprintf("job %s (%s) is %s, attempt %d, %q; want %s", j.ID, j.Kind, doc.State, doc.Attempt, doc.Reason, j.Want))
	}
	return wrong
}

// figures counts. Lost, doubled and overlapping are counted here without the
// history checker, so that each confirms the other.
func (c *campaign) figures(h *harvest) *Result {
	r := &Result{
		Seed: c.o.Seed, Ledger: c.rig.LedgerKind(), Store: c.rig.store, Machine: machine(), Broker: c.rig.brokerVersion,
		Began: h.began.UTC().Truncate(time.Second), Minutes: h.ended.Sub(h.zero).Minutes(), Drain: h.ended.Sub(h.healed).Seconds(),
		DiskFull: "not done: no right to mount", Outcomes: h.outcomes, NodeClosed: h.timeouts, Daemons: map[string]int{},
		Jobs: Jobs{Kinds: map[string]int{}, States: map[string]int{}},
	}
	if len(c.rig.disks) > 0 {
		r.DiskFull = fmt.Sprintf("a tmpfs of %d MiB at each state directory, filled by a file", diskBytes>>20)
	}
	for _, j := range c.jobs {
		r.Jobs.Submitted++
		r.Jobs.Kinds[string(j.Kind)]++
		if _, ok := h.confirmed[j.ID]; ok {
			r.Jobs.Confirmed++
		}
		if doc := h.docs[j.ID]; doc != nil {
			r.Jobs.States[string(doc.State)]++
		}
	}
	for _, list := range c.probes.list() {
		r.Jobs.Probes += len(list)
	}
	h.count(r)
	for _, s := range h.strikes() {
		r.Timeouts = append(r.Timeouts, seconds(s.took))
	}
	for _, e := range h.logs {
		for _, msg := range told {
			if e.Msg == msg {
				r.Daemons[msg]++
			}
		}
		if strings.Contains(e.Err, "it is not known whether the broker has the message") {
			r.Daemons[unknownPublish]++
		}
	}
	for _, l := range h.lives {
		if l.byItself() {
			r.Ended = append(r.Ended, fmt.Sprintf("%s after %.1f s: %s", l.host, l.over.Sub(h.zero).Seconds(), l.reason))
		}
	}
	for _, b := range c.blows {
		r.Faults = append(r.Faults, c.faultResult(h, b))
	}
	return r
}

func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }

// unknownPublish counts publications that no broker confirmed.
const unknownPublish = "publication with an unknown outcome"

// told are the log messages that are counted: what the protocol had to do.
var told = []string{
	"ledger is out of reach; taking no work until it answers",
	"step is repeated until it succeeds",
	"own claim that nothing knows of; releasing it",
	"session of another host expired",
	"job taken over from a session that is not live",
	"session is over; stopping its attempts",
	"session carried on",
	"attempt adopted",
	"attempt's result discarded",
	"message given back",
	"message of a queued job is not in its queue; publishing it again",
	"duplicate of a finished job turned away",
	"shim is gone without an exit record",
	"attempt is impossible here; taking no work for a while",
	"take connection to the broker lost",
}

// count counts what documents and payloads say, without the history checker.
func (h *harvest) count(r *Result) {
	for id := range h.confirmed {
		if doc := h.docs[id]; doc == nil || !doc.State.Terminal() {
			r.Lost++
		}
	}
	h.countRows(r)
	h.countExecutions(r)
}

// countRows counts what the documents say.
func (h *harvest) countRows(r *Result) {
	for _, doc := range h.docs {
		ends, ids := 0, map[string]int{}
		for _, row := range doc.History {
			if row.State == job.Claimed {
				r.Jobs.Attempts++
			}
			if row.State.Terminal() {
				ends++
			}
			if row.ID != "" {
				ids[row.ID]++
			}
		}
		repeated := slices.ContainsFunc(slices.Collect(maps.Values(ids)), func(n int) bool { return n > 1 })
		if ends > 1 || repeated {
			r.Doubled++
		}
		r.Jobs.Requeued += doc.Requeues
		r.Jobs.Retried += doc.Failures
	}
}

// countExecutions counts what the payloads say.
func (h *harvest) countExecutions(r *Result) {
	byJob := map[job.ID][]Execution{}
	for _, x := range h.executions {
		r.Jobs.Executions++
		j := h.journal[attemptKey{x.Host, runner.Key{JobID: x.Job, Attempt: x.Attempt}}]
		if j.exit != nil && j.exit.FrozenSeconds > 0 {
			r.Jobs.Frozen++
		}
		if x.Complete && j.commit == "" {
			r.Jobs.Discarded++
		}
		for _, other := range byJob[x.Job] {
			if together := overlap(x, other); together > 0 {
				r.Overlaps++
				r.Overlap = max(r.Overlap, together.Seconds())
			}
		}
		byJob[x.Job] = append(byJob[x.Job], x)
	}
}

// overlap returns how long two executions made steps at one time.
func overlap(a, b Execution) (together time.Duration) {
	for _, p := range a.stretches() {
		for _, q := range b.stretches() {
			from, to := p.From, p.To
			if q.From.After(from) {
				from = q.From
			}
			if q.To.Before(to) {
				to = q.To
			}
			together += max(0, to.Sub(from))
		}
	}
	return together
}

// faultResult says what followed a fault.
func (c *campaign) faultResult(h *harvest, b *blow) FaultResult {
	f := FaultResult{
		Number: b.Number, Class: b.Class, At: seconds(b.began.Sub(h.zero)), Lasted: seconds(b.ended.Sub(b.began)),
		Target: b.target, Hosts: len(b.hosts), First: -1, All: -1,
	}
	if b.err != nil {
		f.Error = b.err.Error()
		return f
	}
	from := b.began
	if kindOf(b.Class).fromEnd {
		from = b.ended
	}
	f.Claim = -1
	for _, doc := range h.docs {
		for _, row := range doc.History {
			if row.State == job.Claimed && row.At.After(from) && slices.Contains(b.hosts, row.Host) {
				if took := seconds(row.At.Sub(from)); f.Claim < 0 || took < f.Claim {
					f.Claim = took
				}
			}
		}
	}
	probes := c.probes.list()[b.Number]
	var last time.Time
	for i, p := range probes {
		doc := h.docs[p.id]
		if doc == nil || doc.State != job.Succeeded {
			f.All = -1
			return f
		}
		end := doc.History[len(doc.History)-1].At.Time
		took := seconds(end.Sub(p.from))
		if i == 0 || took < f.First {
			f.First = took
		}
		if took > f.All {
			f.All, last = took, end
		}
	}
	for _, other := range c.blows {
		if other != b && other.err == nil && !other.began.After(last) && !other.ended.Before(b.began) {
			f.Others++
		}
	}
	return f
}
