package agent

import (
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

func TestHoldParksAndReleasePublishes(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	j := b.submitAs(t, "ada")
	for i, want := range []control.HoldReply{{State: job.Waiting, Changed: true}, {State: job.Waiting}} {
		got, err := b.Hold(ctx, ada, control.HoldArgs{ID: j.ID, Reason: "the data is not there"})
		if err != nil || got != want {
			t.Errorf("hold %d: %+v, %v, want %+v", i+1, got, err, want)
		}
	}
	if now := b.stored(t, j.ID); now.State != job.Waiting || now.Hold == nil || now.Hold.Who != "ada" || now.Reason != "held by ada: the data is not there" {
		t.Errorf("held job is %s (%s), hold %+v", now.State, now.Reason, now.Hold)
	}
	b.clock.pass(time.Second) // events are listed by their times
	for i, want := range []control.HoldReply{{State: job.Queued, Changed: true}, {State: job.Queued}} {
		got, err := b.Release(ctx, operator, j.ID)
		if err != nil || got != want {
			t.Errorf("release %d: %+v, %v, want %+v", i+1, got, err, want)
		}
	}
	sent := b.box.messages()
	if len(sent) != 1 || !sent[0].Again || !sent[0].AskLedger || sent[0].MessageID != string(j.ID) {
		t.Errorf("published %+v, want the job once, to its again queue, past the done-cache", sent)
	}
	want := []string{
		"release " + string(j.ID) + " olga: it was held by ada: the data is not there",
		"hold " + string(j.ID) + " ada: the data is not there",
	}
	if got := b.events(t); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("events %q, want %q", got, want)
	}
}

// The ledger owes the message: the sweeper looks after jobs that are queued.
func TestReleaseWithoutABrokerIsADelay(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	j := b.submitAs(t, "ada")
	if _, err := b.Hold(ctx, ada, control.HoldArgs{ID: j.ID}); err != nil {
		t.Fatal(err)
	}
	b.box.away = true
	got, err := b.Release(ctx, ada, j.ID)
	if err != nil || got.State != job.Queued || !got.Changed || !strings.Contains(got.Warning, "starts later") {
		t.Errorf("release: %+v, %v", got, err)
	}
	b.clock.pass(b.cfg.Take.Slack.Std() * 2)
	overdue, err := b.ledger.Overdue(ctx, j.Queue, b.now(), 10)
	if err != nil || len(overdue) != 1 || overdue[0].ID != j.ID {
		t.Errorf("the sweeper finds %d jobs, %v", len(overdue), err)
	}
}

func TestHoldOfWhatHasStartedOrEndedSaysTheWayOut(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	r := b.claimAs(t, "ada")
	_, err := b.Hold(ctx, ada, control.HoldArgs{ID: r.hold.JobID})
	wantRefusal(t, err, control.ErrConflict, "has started", "on a", "kill it, or drain its host")
	j := b.submitAs(t, "ada")
	if _, err := b.Kill(ctx, ada, control.KillArgs{ID: j.ID}); err != nil {
		t.Fatal(err)
	}
	_, err = b.Hold(ctx, ada, control.HoldArgs{ID: j.ID})
	wantRefusal(t, err, control.ErrConflict, "is over", "killed")
	if got, err := b.Release(ctx, ada, j.ID); err != nil || got.Changed || got.State != job.Killed {
		t.Errorf("release of a job that is over: %+v, %v", got, err)
	}
}

func TestHoldIsForTheOwnerAndOperators(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	j := b.submitAs(t, "ada")
	_, err := b.Hold(ctx, bob, control.HoldArgs{ID: j.ID})
	wantRefusal(t, err, control.ErrForbidden, "belongs to ada")
	_, err = b.Release(ctx, bob, j.ID)
	wantRefusal(t, err, control.ErrForbidden, "belongs to ada")
	_, err = b.Hold(ctx, ada, control.HoldArgs{ID: job.NewID()})
	wantRefusal(t, err, control.ErrNotFound)
	if len(b.events(t)) > 0 {
		t.Errorf("events of refusals: %q", b.events(t))
	}
}
