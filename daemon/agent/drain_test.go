package agent

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/control"
	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/runner"
)

func TestDrainIsForOperators(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	_, err := b.Drain(ctx, ada, control.DrainArgs{Host: "a", Reason: "r"})
	wantRefusal(t, err, control.ErrForbidden, "control.operators")
	_, err = b.Resume(ctx, ada, control.ResumeArgs{Host: "a"})
	wantRefusal(t, err, control.ErrForbidden, "control.operators")
	_, err = b.Drain(ctx, operator, control.DrainArgs{Host: "z", Reason: "r"})
	wantRefusal(t, err, control.ErrNotFound, "no host z", "gpuqctl hosts")
	if why := b.mayTake(); why != "" || len(b.events(t)) > 0 {
		t.Errorf("after refusals alone: it takes nothing because %q; events %q", why, b.events(t))
	}
}

func TestDrainedHostTakesNothingUntilItIsResumed(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	b.claimAs(t, "ada")
	got, err := b.Drain(ctx, operator, control.DrainArgs{Host: "a", Reason: "new driver", Mode: control.DrainFinish})
	if want := (control.DrainReply{Host: "a", Changed: true, Running: 1}); err != nil || got != want {
		t.Errorf("drain: %+v, %v, want %+v", got, err, want)
	}
	b.clock.pass(time.Second) // events are listed by their times
	if why := b.mayTake(); why != "drained by olga: new driver" {
		t.Errorf("it takes nothing because %q", why)
	}
	status, err := b.Status(ctx, ada)
	if err != nil || !strings.Contains(status.Line, "1 job running; draining by olga: new driver") || len(status.Missing) > 0 {
		t.Errorf("status %+v, %v", status, err)
	}
	hosts, err := b.Hosts(ctx, ada)
	if err != nil || hosts.Hosts[0].Drain != "draining by olga: new driver" || hosts.Hosts[0].Drained.Mode != control.DrainFinish {
		t.Errorf("hosts %+v, %v", hosts, err)
	}
	for i, changed := range []bool{true, false} {
		got, err = b.Resume(ctx, operator, control.ResumeArgs{Host: "a"})
		if err != nil || got.Changed != changed || b.mayTake() != "" {
			t.Errorf("resume %d: %+v, %v; it takes nothing because %q", i+1, got, err, b.mayTake())
		}
	}
	want := []string{
		"resume a olga: it was drained by olga: new driver",
		"drain a olga: new driver (what runs may end by itself)",
	}
	if got := b.events(t); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

// Drains are the ledger's: a daemon that starts anew has them before it takes.
func TestDrainOutlivesTheDaemon(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	uuid := device.SimulatedUUID("a", 1)
	for _, args := range []control.DrainArgs{{Host: "a", Reason: "host"}, {Host: "a", Device: "1", Reason: "row remap"}} {
		if _, err := b.Drain(ctx, operator, args); err != nil {
			t.Fatal(err)
		}
	}
	b.drains = newDrains() // as in a new process
	b.useDevices(t)
	if b.mayTake() != "" || len(b.view().Free) != 2 {
		t.Fatal("the new daemon remembers what it cannot know: this test shows nothing")
	}
	if err := b.openSession(ctx, false); err != nil {
		t.Fatal(err)
	}
	if why := b.mayTake(); why != "drained by olga: host" {
		t.Errorf("it takes nothing because %q", why)
	}
	free := b.view().Free
	if len(free) != 1 || free[0].UUID == uuid {
		t.Errorf("free devices %+v, want all but %s", free, uuid)
	}
	devices, err := b.Devices(ctx, ada, control.DevicesArgs{Host: "a"})
	if err != nil || devices.Devices[1].State != "cordoned" || devices.Devices[1].Reason != "drained by olga: row remap" ||
		devices.Devices[1].Drained == nil || devices.Devices[0].Drained != nil {
		t.Errorf("devices %+v, %v", devices.Devices, err)
	}
	if _, err := b.Resume(ctx, operator, control.ResumeArgs{Host: "a", Device: uuid}); err != nil || len(b.view().Free) != 2 {
		t.Errorf("%d devices are free after the resume, %v", len(b.view().Free), err)
	}
}

// A renewal that was asked for before a drain can be answered after it.
func TestLateAnswerDoesNotUndoADrain(t *testing.T) {
	b := newOperateBench(t)
	before, err := b.ledger.Host(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Drain(t.Context(), operator, control.DrainArgs{Host: "a", Reason: "r"}); err != nil {
		t.Fatal(err)
	}
	b.learnDrains(before)
	if b.mayTake() == "" {
		t.Error("an old answer resumed the host")
	}
}

func TestDrainOfAnotherHostWarnsWhereItCannotBeTold(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	b.addHost(t, "c", 1)
	got, err := b.Drain(ctx, operator, control.DrainArgs{Host: "c", Device: "0", Reason: "r"})
	if err != nil || !got.Changed || got.Device != device.SimulatedUUID("c", 0) || !strings.Contains(got.Warning, "at its next renewal") {
		t.Errorf("drain of a host out of reach: %+v, %v", got, err)
	}
	if b.mayTake() != "" || len(b.view().Free) != 2 {
		t.Error("the answering host drained itself")
	}
	if err := b.ledger.EndSession(ctx, "c", "session-c", 1, ledger.Expired, "a"); err != nil {
		t.Fatal(err)
	}
	got, err = b.Drain(ctx, operator, control.DrainArgs{Host: "c", Reason: "r"})
	if err != nil || !strings.Contains(got.Warning, "not live (its session is expired)") {
		t.Errorf("drain of a host that is not live: %+v, %v", got, err)
	}
	got, err = b.Resume(ctx, operator, control.ResumeArgs{Host: "c"})
	if err != nil || !strings.Contains(got.Warning, "1 of its devices stay drained") {
		t.Errorf("resume of the host alone: %+v, %v", got, err)
	}
}

// The daemon of the drained host is asked by another one, for the operator.
func TestForwardedDrainAppliesWhatTheLedgerSays(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	forwarded := operator
	forwarded.Via = control.ViaForwarded
	args := control.DrainArgs{Host: "a", Reason: "r"}
	if _, err := b.Drain(ctx, forwarded, args); err != nil || b.mayTake() != "" || len(b.events(t)) > 0 {
		t.Errorf("nothing was drained, and it takes nothing because %q (%v); events %q", b.mayTake(), err, b.events(t))
	}
	d := &ledger.Drain{ID: "d", Who: "olga", Reason: "r", At: b.now(), Mode: string(control.DrainFinish)}
	if _, _, err := b.ledger.SetDrain(ctx, "a", "", d); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Drain(ctx, forwarded, args); err != nil || b.mayTake() == "" {
		t.Errorf("told of its drain (%v), it goes on taking", err)
	}
}

func TestDeviceIsNamedByUUIDBeginningOrIndex(t *testing.T) {
	b := newOperateBench(t)
	h := &ledger.Host{Name: "c", Devices: []ledger.HostDevice{
		{UUID: "GPU-11aa", Index: 0}, {UUID: "GPU-11bb", Index: 1}, {UUID: "GPU-11bb-2", Index: -1},
	}}
	h.DeviceDrains = []ledger.DeviceDrain{{Device: "GPU-gone"}}
	for name, want := range map[string]string{
		"": "", "GPU-11aa": "GPU-11aa", "GPU-11a": "GPU-11aa", "0": "GPU-11aa", "1": "GPU-11bb", "GPU-11bb": "GPU-11bb", "GPU-g": "GPU-gone",
	} {
		if got, err := b.findDevice(h, name); err != nil || got != want {
			t.Errorf("%q is %q, %v, want %q", name, got, err, want)
		}
	}
	_, err := b.findDevice(h, "GPU-11b")
	wantRefusal(t, err, control.ErrBadRequest, "GPU-11bb or GPU-11bb-2")
	for _, name := range []string{"2", "-1", "x"} {
		_, err := b.findDevice(h, name)
		wantRefusal(t, err, control.ErrNotFound, "gpuqctl devices --host c")
	}
}

func TestDrainInterruptsByItsDeadline(t *testing.T) {
	at := job.At(zeroHour)
	in := func(d time.Duration) job.Time { return job.At(zeroHour.Add(d)) }
	for name, c := range map[string]struct {
		drain ledger.Drain
		now   time.Time
		wait  time.Duration
		ends  bool
	}{
		"Never":                    {ledger.Drain{At: at}, zeroHour, 0, false},
		"AtOnce":                   {ledger.Drain{At: at, Deadline: at}, zeroHour, 0, true},
		"AtOnceByAClockThatIsLate": {ledger.Drain{At: at, Deadline: at}, zeroHour.Add(-time.Hour), 0, true},
		"Later":                    {ledger.Drain{At: at, Deadline: in(time.Minute)}, zeroHour, time.Minute, true},
		"Over":                     {ledger.Drain{At: at, Deadline: in(time.Minute)}, zeroHour.Add(time.Hour), 0, true},
	} {
		if wait, ends := interruptsIn(&c.drain, c.now); wait != c.wait || ends != c.ends {
			t.Errorf("%s: in %s, %t, want %s, %t", name, wait, ends, c.wait, c.ends)
		}
	}
}

func TestOfSeveralDrainsTheKillComesFirst(t *testing.T) {
	of := func(mode control.DrainMode, in time.Duration) scopedDrain {
		return scopedDrain{&ledger.Drain{ID: string(mode), Mode: string(mode), At: job.At(zeroHour), Deadline: job.At(zeroHour.Add(in))}, ""}
	}
	never := scopedDrain{&ledger.Drain{At: job.At(zeroHour)}, ""}
	for name, c := range map[string]struct {
		list []scopedDrain
		due  string
		left time.Duration
	}{
		"None":       {nil, "", 0},
		"Never":      {[]scopedDrain{never}, "", 0},
		"Soonest":    {[]scopedDrain{never, of("requeue", time.Hour), of("kill", time.Minute)}, "", time.Minute},
		"DueOne":     {[]scopedDrain{of("kill", time.Minute), of("requeue", 0)}, "requeue", time.Minute},
		"KillFirst":  {[]scopedDrain{of("requeue", 0), of("kill", 0)}, "kill", 0},
		"KillStands": {[]scopedDrain{of("kill", 0), of("requeue", 0)}, "kill", 0},
	} {
		due, left := dueDrain(c.list, zeroHour)
		id := ""
		if due.Drain != nil {
			id = due.ID
		}
		if id != c.due || left != c.left {
			t.Errorf("%s: %q is due, %s left, want %q, %s", name, id, left, c.due, c.left)
		}
	}
}

// wantStop checks how a run has been asked to end; "" is not at all.
func wantStop(t *testing.T, r *run, reason runner.StopReason) {
	t.Helper()
	got := runner.StopReason("")
	if wish := r.wish(); wish != nil {
		got = wish.Reason
	}
	if got != reason {
		t.Errorf("run on %v is ended as %q, want %q", r.devices, got, reason)
	}
}

func TestDeviceDrainEndsOnlyWhatHoldsTheDevice(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	first, second := b.claimAs(t, "ada", device.SimulatedUUID("a", 0)), b.claimAs(t, "ada", device.SimulatedUUID("a", 1))
	got, err := b.Drain(ctx, operator, control.DrainArgs{Host: "a", Device: "1", Reason: "row remap", Mode: control.DrainRequeue})
	if err != nil || got.Running != 1 {
		t.Errorf("drain: %+v, %v", got, err)
	}
	if next := b.endDrained(ctx); next != b.cfg.Lease.Renew.Std() {
		t.Errorf("the next look is in %s", next)
	}
	wantStop(t, first, "")
	wantStop(t, second, runner.StopDrained)
	if detail := second.wish().Detail; detail != "device "+device.SimulatedUUID("a", 1)+" of host a, by olga: row remap" {
		t.Errorf("it is told %q", detail)
	}
	if _, err := b.Resume(ctx, operator, control.ResumeArgs{Host: "a", Device: "1"}); err != nil {
		t.Fatal(err)
	}
	wantStop(t, second, runner.StopDrained) // what is being ended stays so
}

func TestDrainThatMayFinishInterruptsAtItsDeadline(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	r := b.claimAs(t, "ada")
	_, err := b.Drain(ctx, operator, control.DrainArgs{Host: "a", Reason: "r", Mode: control.DrainFinish, Deadline: job.Duration(90 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []time.Duration{time.Minute, 30 * time.Second} {
		if next := b.endDrained(ctx); next != want {
			t.Errorf("the next look is in %s, want %s", next, want)
		}
		wantStop(t, r, "")
		b.clock.pass(want)
	}
	b.clock.pass(30 * time.Second)
	b.endDrained(ctx)
	wantStop(t, r, runner.StopDrained)
}

func TestKillingDrainFlagsTheJobs(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	r := b.claimAs(t, "ada")
	if _, err := b.Drain(ctx, operator, control.DrainArgs{Host: "a", Reason: "fire", Mode: control.DrainKill}); err != nil {
		t.Fatal(err)
	}
	b.clock.pass(time.Second) // events are listed by their times
	for range 2 {             // the second look adds nothing
		b.endDrained(ctx)
	}
	wantStop(t, r, runner.StopKilled)
	if k := b.stored(t, r.hold.JobID).Kill; k == nil || k.Who != "olga" || k.Reason != "killed by olga with the drain of host a: fire" {
		t.Errorf("the job's flag is %+v", k)
	}
	if got := b.events(t); len(got) != 2 || !strings.HasPrefix(got[0], "kill "+string(r.hold.JobID)+" olga") {
		t.Errorf("events %q", got)
	}
}

// An attempt has its grace: until it is gone, the operator may change his mind.
func TestKillingDrainAfterARequeuingOneFlagsTheJob(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	r := b.claimAs(t, "ada")
	for _, mode := range []control.DrainMode{control.DrainRequeue, control.DrainKill} {
		if _, err := b.Drain(ctx, operator, control.DrainArgs{Host: "a", Reason: "smoke\n", Mode: mode}); err != nil {
			t.Fatal(err)
		}
		b.endDrained(ctx)
		wantStop(t, r, runner.StopDrained) // the first reason stays the attempt's
	}
	if k := b.stored(t, r.hold.JobID).Kill; k == nil || k.Who != "olga" {
		t.Errorf("the job's flag is %+v", k)
	}
	if why := b.mayTake(); why != "drained by olga: smoke" {
		t.Errorf("it takes nothing because %q", why)
	}
}

// The job was taken over meanwhile: it is not this host's to kill.
func TestKillingDrainSparesJobsOfOtherHosts(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	r := b.claimAs(t, "ada")
	if _, err := b.ledger.Takeover(ctx, b.stored(t, r.hold.JobID), "c", "takeover-1", b.now()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Drain(ctx, operator, control.DrainArgs{Host: "a", Reason: "fire", Mode: control.DrainKill}); err != nil {
		t.Fatal(err)
	}
	b.endDrained(ctx)
	if j := b.stored(t, r.hold.JobID); j.State != job.Queued || j.Kill != nil {
		t.Errorf("the job is %s, flag %+v", j.State, j.Kill)
	}
}

// ringing is an ackBook with bells that nobody hears.
type ringing struct{ *ackBook }

func (ringing) Ring(context.Context, string) {}

// What a host took before its drain goes back: it must not keep messages.
func TestMessageTakenBeforeADrainGoesBack(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	book := &ackBook{}
	b.broker = ringing{book}
	j := b.submitAs(t, "ada")
	d := &ledger.Drain{ID: "d", Who: "olga", Reason: "r", At: b.now(), Mode: string(control.DrainFinish)}
	h, _, err := b.ledger.SetDrain(ctx, "a", "", d)
	if err != nil {
		t.Fatal(err)
	}
	b.learnDrains(h)
	tag := broker.Tag{Generation: 1, Delivery: 7}
	if r := b.settle(ctx, &broker.Delivery{Tag: tag, Queue: j.Queue, Body: job.Ticket{ID: j.ID}.Encode()}, nil); r != nil {
		t.Error("a drained host claimed a job")
	}
	if len(book.given) != 1 || book.given[0] != tag || len(book.acked) > 0 {
		t.Errorf("given back %v, acked %v, want the delivery given back", book.given, book.acked)
	}
	if now := b.stored(t, j.ID); now.State != job.Queued || now.Attempt != 0 {
		t.Errorf("the job is %s, attempt %d", now.State, now.Attempt)
	}
}

func TestClaimThatADrainOvertookIsReleased(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	j := b.submitAs(t, "ada")
	c := ledger.Claim{JobID: j.ID, Host: "a", Session: b.lease.current(), ClaimID: "claim-1", Now: b.now()}
	j, err := b.ledger.Claim(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Drain(ctx, operator, control.DrainArgs{Host: "a", Reason: "r"}); err != nil {
		t.Fatal(err)
	}
	if r := b.claimed(ctx, &broker.Delivery{Queue: j.Queue}, j, c); r != nil {
		t.Error("a drained host starts what it has just claimed")
	}
	b.work.Wait()
	if now := b.stored(t, j.ID); now.State != job.Queued || now.Requeues != 0 || !strings.Contains(now.Reason, "drained meanwhile") {
		t.Errorf("the job is %s (%s), %d requeues", now.State, now.Reason, now.Requeues)
	}
}
