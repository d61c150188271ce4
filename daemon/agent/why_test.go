package agent

import (
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
)

// ask returns the sentence about a job.
func (b operateBench) why(t *testing.T, id job.ID) control.WhyReply {
	t.Helper()
	reply, err := b.Why(t.Context(), bob, id)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

func TestWhyKnowsItsOwnHostAsItIs(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	j := b.submitAs(t, "ada")
	want := func(words ...string) {
		t.Helper()
		got := b.why(t, j.ID)
		for _, w := range words {
			if !strings.Contains(got.Sentence, w) {
				t.Errorf("got %q, want %q in it", got.Sentence, w)
			}
		}
		if len(got.Hosts) != 1 || got.Hosts[0].Host != "a" || got.State != job.Queued {
			t.Errorf("reply %+v", got)
		}
	}
	want("waits for its turn: a has 2 of 2 devices free")
	b.claimAs(t, "ada", device.SimulatedUUID("a", 0))
	if _, err := b.Drain(ctx, operator, control.DrainArgs{Host: "a", Device: "1", Reason: "row remap"}); err != nil {
		t.Fatal(err)
	}
	want("a has 0 of 2 devices free (1 busy; 1 cordoned: device 1, drained by olga: row remap)")
	b.box.away = true
	want("a does not reach the broker: no node answers")
	b.box.away = false
	if _, err := b.Drain(ctx, operator, control.DrainArgs{Host: "a", Reason: "new driver"}); err != nil {
		t.Fatal(err)
	}
	want("waits for 1 free device of one host in pool default: a is drained by olga: new driver.")
}

func TestWhyTakesOtherHostsByTheirReports(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	b.cfg.Host.Pools = nil // a login node
	if err := b.renewOnce(ctx); err != nil {
		t.Fatal(err)
	}
	b.addHost(t, "c", 1)
	j := b.submitAs(t, "ada")
	b.clock.pass(3 * time.Second)
	if got := b.why(t, j.ID).Sentence; got != "It is queued and waits for its turn: c has 1 of 1 device free as of 3s ago." {
		t.Errorf("got %q", got)
	}
	// Drained in the ledger, and not told: what it has reported is older.
	if _, err := b.Drain(ctx, operator, control.DrainArgs{Host: "c", Device: "0", Reason: "row remap"}); err != nil {
		t.Fatal(err)
	}
	if got := b.why(t, j.ID).Sentence; !strings.Contains(got, "c has 0 of 1 device free (1 cordoned: device 0, drained by olga: row remap)") {
		t.Errorf("got %q", got)
	}
	b.clock.pass(leaseTTL)
	if got := b.why(t, j.ID).Sentence; !strings.Contains(got, "c last renewed its lease of 1m0s, by the clocks of both hosts, 1m3s ago") {
		t.Errorf("got %q", got)
	}
}

func TestWhyCountsWhatIsAhead(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	submit := func(priority job.Priority, gpus int, pool string) job.ID {
		b.clock.pass(time.Second)
		spec := job.DefaultSpec()
		spec.Command, spec.Priority, spec.GPUs, spec.Pool = []string{"true"}, priority, gpus, pool
		j, _, err := b.ledger.Submit(ctx, job.New(job.NewID(), "ada", spec, b.now()))
		if err != nil {
			t.Fatal(err)
		}
		b.shapes.add(j.Queue)
		return j.ID
	}
	submit(job.Low, 1, "default") // looked at later
	submit(job.Normal, 1, "default")
	submit(job.Normal, 2, "default")
	submit(job.High, 1, "default")
	submit(job.High, 9, "default") // nobody has the devices for it
	submit(job.High, 1, "other")
	own := submit(job.Normal, 1, "default")
	submit(job.Normal, 1, "default") // younger
	if got := b.why(t, own); got.Ahead != 3 || got.AheadMore || !strings.Contains(got.Sentence, "; up to 3 jobs are ahead of it") {
		t.Errorf("%d are ahead: %q", got.Ahead, got.Sentence)
	}
}

func TestWhyOfAHeldJobLooksAtItsHost(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	r := b.claimAs(t, "ada", device.SimulatedUUID("a", 0))
	if got := b.why(t, r.hold.JobID); !strings.HasPrefix(got.Sentence, "a claimed it at ") || len(got.Hosts) > 0 || got.State != job.Claimed {
		t.Errorf("claimed: %+v", got)
	}
	if _, err := b.Drain(ctx, operator, control.DrainArgs{Host: "a", Reason: "r", Deadline: job.Duration(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if got := b.why(t, r.hold.JobID).Sentence; !strings.Contains(got, "a is drained by olga: r, and it is queued again, at no cost at ") {
		t.Errorf("drained: %q", got)
	}
	b.clock.pass(2 * leaseTTL)
	if got := b.why(t, r.hold.JobID).Sentence; !strings.Contains(got, "last renewed its lease of 1m0s") {
		t.Errorf("without contact: %q", got)
	}
	b.lease.open("another", 1)
	_, err := b.Why(ctx, bob, job.NewID())
	wantRefusal(t, err, control.ErrNotFound)
}
