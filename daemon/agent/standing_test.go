package agent

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/control"
)

// line returns the status line, less what is missing of a bench that has neither
// broker nor cache.
func (b operateBench) line() string {
	line, _, _ := strings.Cut(b.statusLine(), "; missing")
	return line
}

func TestStatusLine(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	want := func(t *testing.T, text string) {
		t.Helper()
		if got := b.line(); got != text {
			t.Errorf("it says %q, want %q", got, text)
		}
	}
	b.ready.Store(false)
	want(t, "starting")
	b.standing.waits(waitingFor(stepOpenLedger, errors.New("dial tcp: refused")))
	want(t, "starting: waiting for the ledger: dial tcp: refused")
	b.standing.waits("")
	b.ready.Store(true)
	want(t, "2 simulated devices: 2 free; no job running")
	r := b.claimAs(t, "ada")
	if err := b.devices.Acquire(r.hold.JobID, 1, []string{b.devices.Snapshot()[0].UUID}, 0); err != nil {
		t.Fatal(err)
	}
	want(t, "2 simulated devices: 1 busy, 1 free; 1 job running")
	if _, err := b.Drain(ctx, operator, control.DrainArgs{Host: "a", Reason: "new\ndriver", Mode: control.DrainFinish}); err != nil {
		t.Fatal(err)
	}
	want(t, "2 simulated devices: 1 busy, 1 free; 1 job running; draining by olga: new driver")
	b.clock.pass(b.lease.ttl/2 + 2*time.Second)
	if got := b.line(); !strings.Contains(got, "; the lease ends in ") || !strings.Contains(got, ": then jobs are frozen") {
		t.Errorf("half a lease later it says %q", got)
	}
	b.clock.pass(b.lease.ttl)
	if got := b.line(); !strings.Contains(got, "the lease is over: jobs are frozen") {
		t.Errorf("a lease later it says %q", got)
	}
	b.SettingsNote("restart gpuqd to apply lease.ttl")
	if got := b.statusLine(); !strings.Contains(got, "; restart gpuqd to apply lease.ttl") {
		t.Errorf("it says %q", got)
	}
}

// What is missing is said with the time at which that began, and not when it is
// there again.
func TestStatusLineSaysSinceWhen(t *testing.T) {
	b := newOperateBench(t)
	b.ready.Store(true)
	began := b.clock.Now()
	b.ledgerFailed(errors.New("no primary"))
	if got := b.statusLine(); !strings.Contains(got, "missing: the ledger: no primary") {
		t.Errorf("where nobody looks but who asks, it says %q", got)
	}
	b.managed = true
	_ = b.statusLine()
	b.clock.pass(time.Minute)
	want := "missing: the ledger, since " + began.UTC().Format(time.RFC3339) + ": no primary"
	if got := b.statusLine(); !strings.Contains(got, want) {
		t.Errorf("it says %q, want %q", got, want)
	}
	b.reach.why = ""
	if got := b.statusLine(); strings.Contains(got, "the ledger") {
		t.Errorf("it says %q of a ledger that answers", got)
	}
	b.ledgerFailed(errors.New("no primary"))
	if got := b.statusLine(); strings.Contains(got, want) || !strings.Contains(got, "no primary") {
		t.Errorf("it says %q of a second failure", got)
	}
}

// The service manager hears of a line once, in one line, of bounded length; and
// nothing after the last.
func TestStatusIsToldWhenItChanges(t *testing.T) {
	b := newOperateBench(t)
	var told []string
	b.ready.Store(false)
	b.managed, b.notify = true, func(state string) { told = append(told, state) }
	b.tellStatus()
	b.tellStatus()
	b.standing.waits("x\n" + strings.Repeat("ä", statusBytesMax))
	b.tellStatus()
	b.tellLast("stopping")
	b.standing.waits("")
	b.tellStatus()
	if len(told) != 3 || told[0] != "STATUS=starting" || told[2] != "STOPPING=1\nSTATUS=stopping" {
		t.Fatalf("told %q", told)
	}
	if line := told[1]; len(line) > statusBytesMax+20 || strings.Contains(line, "\n") || !strings.HasSuffix(line, "ä...") {
		t.Errorf("a long line is told as %q", line)
	}
}

func TestStoppedLine(t *testing.T) {
	until := zeroHour
	got := []string{stoppedLine(0, until, "freeze"), stoppedLine(2, until, "freeze"), stoppedLine(1, until, "stop")}
	at := until.UTC().Format(time.RFC3339)
	want := []string{
		"stopped; no job was running",
		"stopped; running on under shims: 2 jobs, until " + at + "; then they are frozen unless gpuqd is back",
		"stopped; running on under shims: 1 job, until " + at + "; then they are stopped unless gpuqd is back",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
