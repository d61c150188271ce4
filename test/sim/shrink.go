package sim

import (
	"slices"
	"testing"
	"time"

	"gpuqd/test/history"
)

// Shrink returns a smaller plan that breaks the same invariant: it leaves out
// what the plan can do without, as long as there is such a thing.
func Shrink(t *testing.T, p Plan, broken history.Invariant) Plan {
	s := shrinker{t: t, broken: broken, left: shrinkRuns}
	for {
		smaller, ok := s.step(p)
		if !ok {
			return p
		}
		p = smaller
	}
}

const (
	// shrinkRuns bounds the histories of one Shrink.
	shrinkRuns = 4000
	// shrinkSeeds is how many chances a smaller plan gets: what is left out
	// changes the timing of the rest.
	shrinkSeeds = 12
)

type shrinker struct {
	t      *testing.T
	broken history.Invariant
	left   int
}

// step tries each smaller plan in turn.
func (s *shrinker) step(p Plan) (Plan, bool) {
	for _, smaller := range smallerPlans(p) {
		for n := range uint64(shrinkSeeds) {
			if s.left--; s.left < 0 {
				return p, false
			}
			smaller.Seed = p.Seed + n
			if Run(s.t, smaller, nil).Broken(s.broken) {
				return smaller, true
			}
		}
	}
	return p, false
}

// smallerPlans returns the plans with one thing less, the largest steps first.
func smallerPlans(p Plan) (plans []Plan) {
	add := func(change func(*Plan)) {
		q := p
		q.Hosts, q.Jobs = slices.Clone(p.Hosts), slices.Clone(p.Jobs)
		q.Faults, q.Drains = slices.Clone(p.Faults), slices.Clone(p.Drains)
		change(&q)
		if q.placeable() {
			plans = append(plans, q)
		}
	}
	for i := range p.Jobs {
		if len(p.Jobs) > 1 {
			add(func(q *Plan) { q.Jobs = slices.Delete(q.Jobs, i, i+1) })
		}
	}
	for i := range p.Faults {
		add(func(q *Plan) { q.Faults = slices.Delete(q.Faults, i, i+1) })
	}
	for i, d := range p.Drains {
		add(func(q *Plan) { q.Drains = slices.Delete(q.Drains, i, i+1) })
		if d.Deadline != 0 {
			add(func(q *Plan) { q.Drains[i].Deadline = 0 })
		}
	}
	if p.Noise != (Noise{}) {
		add(func(q *Plan) { q.Noise = Noise{} })
	}
	if p.ConsumerTimeout != 0 {
		add(func(q *Plan) { q.ConsumerTimeout = 0 })
	}
	for i, h := range p.Hosts {
		if len(p.Hosts) > 1 && !p.names(h.Name) {
			add(func(q *Plan) { q.Hosts = slices.Delete(q.Hosts, i, i+1) })
		}
		if h.ClockOff != 0 {
			add(func(q *Plan) { q.Hosts[i].ClockOff = 0 })
		}
		if h.Devices > 1 && !slices.ContainsFunc(p.Drains, func(d Drain) bool { return d.Host == h.Name && d.Device > "0" }) {
			add(func(q *Plan) { q.Hosts[i].Devices = 1 })
		}
	}
	for i, j := range p.Jobs {
		for _, plain := range plainer(j) {
			add(func(q *Plan) { q.Jobs[i] = plain })
		}
	}
	for i, f := range p.Faults {
		if f.For > 2*time.Second {
			add(func(q *Plan) { q.Faults[i].For = f.For / 2 })
		}
	}
	return plans
}

// names reports whether a job, fault or drain names the host.
func (p Plan) names(host string) bool {
	return slices.ContainsFunc(p.Jobs, func(j Job) bool { return j.Via == host }) ||
		slices.ContainsFunc(p.Faults, func(f Fault) bool { return f.Host == host }) ||
		slices.ContainsFunc(p.Drains, func(d Drain) bool { return d.Host == host })
}

// plainer returns the job with one peculiarity less.
func plainer(j Job) (list []Job) {
	plain := Job{ID: j.ID, At: j.At, GPUs: 1, Run: j.Run, MaxAttempts: 1}
	if !same(j, plain) {
		list = append(list, plain)
	}
	for _, change := range []func(*Job){
		func(q *Job) { q.Via = "" },
		func(q *Job) { q.GPUs, q.ShareGiB = 1, 0 },
		func(q *Job) { q.ShareGiB = 0 },
		func(q *Job) { q.Model, q.LeastGiB = "", 0 },
		func(q *Job) { q.Codes, q.MaxAttempts, q.Backoff = nil, 1, nil },
		func(q *Job) { q.TimeLimit = 0 },
		func(q *Job) { q.Expires = 0 },
		func(q *Job) { q.KillAt = 0 },
		func(q *Job) { q.HoldAt, q.HoldFor = 0, 0 },
		func(q *Job) { q.IgnoresTERM, q.Forks = false, false },
		func(q *Job) { q.Run = time.Second },
	} {
		q := j
		change(&q)
		if !same(j, q) {
			list = append(list, q)
		}
	}
	return list
}

func same(a, b Job) bool {
	lists := slices.Equal(a.Codes, b.Codes) && slices.Equal(a.Backoff, b.Backoff)
	a.Codes, a.Backoff, b.Codes, b.Backoff = nil, nil, nil, nil
	return lists && a.Via == b.Via && a.GPUs == b.GPUs && a.MaxAttempts == b.MaxAttempts && a.TimeLimit == b.TimeLimit &&
		a.Expires == b.Expires && a.KillAt == b.KillAt && a.HoldAt == b.HoldAt && a.HoldFor == b.HoldFor && a.IgnoresTERM == b.IgnoresTERM && a.Forks == b.Forks && a.Run == b.Run
}
