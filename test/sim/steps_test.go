package sim

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/test/sim/world"
)

// stories are histories that go through every step between them. Their jobs are
// enough to keep the hosts busy, and few enough to read.
var stories = []Plan{
	{Jobs: []Job{{At: time.Second, GPUs: 1, Run: 3 * time.Second, MaxAttempts: 1}}},
	{Jobs: []Job{
		{At: time.Second, GPUs: 1, Run: 2 * time.Second, MaxAttempts: 2, Codes: []int{3}, Backoff: []time.Duration{time.Second}},
		{At: 2 * time.Second, GPUs: 1, Run: 40 * time.Second, MaxAttempts: 1, KillAt: 8 * time.Second},
		{At: 2 * time.Second, GPUs: 0, Run: time.Second, MaxAttempts: 1, Codes: []int{1}, Via: "host_1"},
	}},
	{
		Jobs: []Job{
			{At: time.Second, GPUs: 1, Run: 30 * time.Second, MaxAttempts: 1, Via: "host_2"},
			{At: time.Second, GPUs: 1, Run: 30 * time.Second, MaxAttempts: 1},
			{At: 2 * time.Second, GPUs: 1, Run: time.Second, MaxAttempts: 1},
		},
		Faults: []Fault{
			{Kind: CutWire, Host: "host_1", Part: "ledger", At: 4 * time.Second, For: 35 * time.Second},
			{Kind: DropBroker, At: 6 * time.Second},
			{Kind: DiskAlarm, At: 1500 * time.Millisecond, For: 4 * time.Second},
			{Kind: KillShim, Host: "host_2", At: 9 * time.Second},
		},
	},
	{
		Jobs: []Job{
			{At: time.Second, GPUs: 1, Run: 25 * time.Second, MaxAttempts: 1, Via: "host_1"},
			{At: time.Second, GPUs: 1, Run: 25 * time.Second, MaxAttempts: 1, Via: "host_2"},
			{At: 2 * time.Second, GPUs: 1, Run: time.Second, MaxAttempts: 1, HoldAt: 3 * time.Second, HoldFor: 12 * time.Second},
		},
		Drains: []Drain{
			{Host: "host_1", Mode: "requeue", At: 6 * time.Second, For: 15 * time.Second},
			{Host: "host_2", Device: "0", Mode: "finish", Deadline: 5 * time.Second, At: 10 * time.Second, For: 15 * time.Second},
		},
	},
	{
		Jobs: []Job{
			{At: time.Second, GPUs: 1, Run: 20 * time.Second, MaxAttempts: 1, Via: "host_1"},
			{At: time.Second, GPUs: 1, Run: 20 * time.Second, MaxAttempts: 1, Via: "host_2"},
		},
		Faults: []Fault{
			{Kind: ShutDown, Host: "host_1", At: 5 * time.Second, For: 12 * time.Second},
			{Kind: CallOff, Host: "host_2", At: 25 * time.Second, For: 4 * time.Second},
		},
	},
}

func (p Plan) told(seed uint64) Plan {
	p.Seed, p.OnLoss = seed, "freeze"
	p.Hosts = []Host{{Name: "host_1", Devices: 1}, {Name: "host_2", Devices: 1}}
	p.Jobs = slices.Clone(p.Jobs)
	for i := range p.Jobs {
		p.Jobs[i].ID = job.ID(fmt.Sprintf("00000000-0000-7000-8000-%012d", i+1))
	}
	return p
}

// A daemon killed, a daemon that stands still beyond its lease, a host that loses
// its power: at each step of the protocol, before the step and after it has taken
// effect, the first time and the second.
func TestFaultAtEveryStep(t *testing.T) {
	var faults []Fault
	for _, f := range []Fault{
		{Kind: KillDaemon, For: time.Second},
		{Kind: KillDaemon, For: 40 * time.Second},
		{Kind: FreezeDaemon, For: 30 * time.Second},
		{Kind: CrashHost, For: 10 * time.Second},
		{Kind: CrashHost},
	} {
		for _, step := range append(slices.Clone(steps), otherSteps...) {
			for _, host := range []string{"host_1", "host_2"} {
				for nth := 1; nth <= 2; nth++ {
					for _, after := range []bool{false, true} {
						f.Step, f.Host, f.Nth, f.After = step, host, nth, after
						faults = append(faults, f)
					}
				}
			}
		}
	}
	told := uint64(0)
	for _, f := range faults {
		for _, story := range stories {
			p := story.told(told)
			p.Faults = append(slices.Clone(p.Faults), f)
			if out := Run(t, p, nil); len(out.Violations) > 0 {
				fail(t, out)
			}
			told++
			collect(told)
		}
	}
	t.Logf("%d histories", told)
}

// The list of steps is that of what happens: none is missing, none is left over.
func TestEveryStepIsReached(t *testing.T) {
	reached := map[string]bool{}
	for i := range uint64(400) {
		p := NewPlan(i)
		if i < uint64(len(stories)) {
			p = stories[i].told(i)
		}
		run(t, p, nil, func(s world.Step) { reached[s.Name] = true })
		collect(i)
	}
	for _, step := range steps {
		if !reached[step] {
			t.Errorf("step %q is on the list, and no history takes it", step)
		}
		delete(reached, step)
	}
	for _, step := range otherSteps {
		delete(reached, step)
	}
	for step := range reached {
		t.Errorf("step %q is taken, and no fault strikes at it: put it on the list", step)
	}
}
