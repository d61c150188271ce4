package agent

import (
	"context"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/runner"
	"gpuqd/test/wait"
)

// standIn is an attempt that ends when, and only when, it is told to, or never.
type standIn struct {
	Attempt
	obeys bool
	stops chan runner.Stop // capacity 1
	asked chan runner.Stop // capacity 1: the first, for the test
}

func (s *standIn) RequestStop(stop runner.Stop) error {
	for _, to := range []chan runner.Stop{s.stops, s.asked} {
		select {
		case to <- stop:
		default:
		}
	}
	return nil
}

func (s *standIn) Wait(ctx context.Context) (*runner.Exit, error) {
	for {
		select {
		case stop := <-s.stops:
			if !s.obeys {
				continue
			}
			return &runner.Exit{
				Code: 143, Class: stop.Reason.Class(), StopReason: stop.Reason, StopDetail: stop.Detail, Reason: "the host shuts down",
				Started: zeroHour, Ended: zeroHour,
			}, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (*standIn) LogTail(int) ([]byte, error)       { return nil, nil }
func (*standIn) MarkCommitted(string) error        { return nil }
func (*standIn) MarkDiscarded(string) error        { return nil }
func (*standIn) Exit() (*runner.Exit, bool, error) { return nil, false, nil }

// Ack is for commits: the deliveries here are of no broker.
func (o *outbox) Ack(context.Context, broker.Tag) error { return nil }

// leaving is a bench whose agent heeds words about its host.
func leaving(t *testing.T) (operateBench, context.Context, chan Shutdown) {
	t.Helper()
	b := newOperateBench(t)
	words := make(chan Shutdown)
	b.shutdown = words
	close(b.parting.entered)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{}, 2)
	go func() { _ = b.shutdownLoop(ctx); over <- struct{}{} }()
	go func() { _ = b.renewLoop(ctx); over <- struct{}{} }()
	t.Cleanup(func() { cancel(); <-over; <-over; b.work.Wait() })
	return b, ctx, words
}

// attempt starts an attempt's stand-in.
func (b operateBench) attempt(t *testing.T, ctx context.Context, obeys bool, grace time.Duration) (*run, *standIn) {
	t.Helper()
	r := b.claimAs(t, "ada")
	r.job.Spec.Grace = job.Duration(grace)
	s := &standIn{obeys: obeys, stops: make(chan runner.Stop, 1), asked: make(chan runner.Stop, 1)}
	r.attempt, r.adopted = s, true
	b.work.Go(func() { r.drive(ctx) })
	return r, s
}

// within is a shutdown, and what is closed when the host need not wait any more.
func within(d time.Duration) (Shutdown, chan struct{}) {
	done := make(chan struct{})
	return Shutdown{Down: true, Within: d, By: "logind", Done: func() { close(done) }}, done
}

func (b operateBench) session(t *testing.T) ledger.Session {
	t.Helper()
	h, err := b.ledger.Host(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	return h.Session
}

func TestShutdown(t *testing.T) {
	t.Run("EndsCommitsAndReleases", func(t *testing.T) {
		b, ctx, words := leaving(t)
		r, _ := b.attempt(t, ctx, true, time.Minute)
		old := b.lease.current()
		word, done := within(20 * time.Second)
		words <- word
		<-done
		j := b.stored(t, r.hold.JobID)
		if j.State != job.Queued || j.Failures != 0 || !strings.Contains(j.Reason, "the host shuts down") {
			t.Errorf("the job is %s with %d failures: %s", j.State, j.Failures, j.Reason)
		}
		s := b.session(t)
		if s.ID != old || s.State != ledger.Closed || s.EndedBy != "a" {
			t.Errorf("the session is %+v", s)
		}
		if d, err := b.runner.ReadDeadline(old); err != nil || d.State != runner.SessionExpired {
			t.Errorf("shims read %+v, %v", d, err)
		}
		if why := b.mayTake(); why != "the host goes down: logind" {
			t.Errorf("it takes nothing because %q", why)
		}
		if got := b.events(t); len(got) != 1 || !strings.HasPrefix(got[0], "release_session a gpuqd: the host goes down: logind; session "+old) {
			t.Errorf("events %q", got)
		}
		if sent := b.box.messages(); len(sent) != 1 || sent[0].MessageID != string(j.ID) || !sent[0].Again {
			t.Errorf("messages %+v", sent)
		}
	})
	t.Run("GraceIsCutToTheTimeThereIs", func(t *testing.T) {
		b, ctx, words := leaving(t)
		_, s := b.attempt(t, ctx, false, time.Hour)
		word, _ := within(time.Hour)
		words <- word
		stop := <-s.asked
		if stop.Reason != runner.StopShutdown || stop.Grace > 50*time.Minute || stop.Grace < 45*time.Minute {
			t.Errorf("asked for %+v of an hour", stop)
		}
	})
	t.Run("WhatDoesNotEndKeepsTheSession", func(t *testing.T) {
		b, ctx, words := leaving(t)
		b.attempt(t, ctx, false, 0)
		word, done := within(300 * time.Millisecond)
		words <- word
		<-done
		if s := b.session(t); s.State != ledger.Live {
			t.Errorf("the session is %s while an attempt runs", s.State)
		}
		if b.lease.isClosed() || b.mayTake() == "" {
			t.Error("it takes work on its way down")
		}
	})
	t.Run("WhatTheJournalCannotReadKeepsTheSession", func(t *testing.T) {
		b, _, words := leaving(t)
		heldAttempt(t, b.leaseBench) // of the ledger and the journal, unknown to memory
		word, done := within(20 * time.Second)
		words <- word
		<-done
		if s := b.session(t); s.State != ledger.Live {
			t.Errorf("the session is %s while an attempt may be running", s.State)
		}
	})
	t.Run("CalledOffAfterTheReleaseOpensANewSession", func(t *testing.T) {
		b, _, words := leaving(t)
		old := b.lease.current()
		word, done := within(20 * time.Second)
		words <- word
		<-done
		words <- Shutdown{}
		wait.Until(t, "the host takes work again", func() bool { return b.mayTake() == "" })
		if s := b.session(t); s.ID == old || s.State != ledger.Live || s.ID != b.lease.current() {
			t.Errorf("the session is %+v", s)
		}
		words <- Shutdown{} // said again, it changes nothing
		word, done = within(20 * time.Second)
		words <- word
		<-done
		if s := b.session(t); s.State != ledger.Closed {
			t.Errorf("the second shutdown left the session %s", s.State)
		}
	})
	t.Run("CalledOffBeforeTheReleaseKeepsTheSession", func(t *testing.T) {
		b, ctx, words := leaving(t)
		b.attempt(t, ctx, false, 0)
		old := b.lease.current()
		word, done := within(time.Hour)
		words <- word
		words <- Shutdown{}
		<-done // it is broken off
		wait.Until(t, "the host takes work again", func() bool { return b.mayTake() == "" })
		if s := b.session(t); s.ID != old || s.State != ledger.Live {
			t.Errorf("the session is %+v", s)
		}
	})
	t.Run("SecondWordFindsItDone", func(t *testing.T) {
		b, _, words := leaving(t)
		for range 2 { // logind's, and then SIGTERM while the system stops
			word, done := within(20 * time.Second)
			words <- word
			<-done
		}
		if s := b.session(t); s.State != ledger.Closed || len(b.events(t)) != 1 {
			t.Errorf("the session is %s; events %q", s.State, b.events(t))
		}
	})
	t.Run("BeforeTheEndOfStartUpNothingIsReleased", func(t *testing.T) {
		b := newOperateBench(t)
		words := make(chan Shutdown)
		b.shutdown = words
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() { defer close(over); _ = b.shutdownLoop(ctx) }()
		defer func() { cancel(); <-over }()
		word, done := within(50 * time.Millisecond)
		words <- word
		<-done
		if s := b.session(t); s.State != ledger.Live {
			t.Errorf("the session is %s, and nobody knows what runs", s.State)
		}
	})
	t.Run("ShimThatIsToldBeforeTheDaemonKeepsItFromTaking", func(t *testing.T) {
		b, ctx, _ := leaving(t)
		r, s := b.attempt(t, ctx, true, time.Minute)
		s.stops <- runner.Stop{Reason: runner.StopShutdown, Detail: "the shim received terminated"} // from systemd
		wait.Until(t, "the job is queued again", func() bool { return b.stored(t, r.hold.JobID).State == job.Queued })
		if why := b.mayTake(); why != "an attempt was told that the host shuts down" {
			t.Errorf("it takes nothing because %q", why)
		}
		b.clock.pass(holdOffTime)
		if why := b.mayTake(); why != "" {
			t.Errorf("later it takes nothing because %q", why)
		}
	})
	t.Run("ClaimMadeMeanwhileIsReleased", func(t *testing.T) {
		b, ctx, _ := leaving(t)
		b.parting.set("the host goes down: logind")
		j := b.submitAs(t, "ada")
		claim := ledger.Claim{JobID: j.ID, Host: "a", Session: b.lease.current(), ClaimID: "c", Now: b.now()}
		claimed, err := b.ledger.Claim(ctx, claim)
		if err != nil {
			t.Fatal(err)
		}
		if r := b.claimed(ctx, &broker.Delivery{Queue: j.Queue}, claimed, claim); r != nil {
			t.Fatal("it would be started")
		}
		b.work.Wait()
		if got := b.stored(t, j.ID); got.State != job.Queued || got.Requeues != 0 {
			t.Errorf("the job is %s, requeued %d times", got.State, got.Requeues)
		}
	})
}

// The close of a session whose answer is lost is found to have been made; one that
// a renewal was ahead of is made all the same.
func TestReleaseOfAnUnknownOutcomeIsRecognised(t *testing.T) {
	b := newLeaseBench(t)
	store := b.away(t)
	if err := b.openSession(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	session, seq, _ := b.lease.state()
	store.lost = true
	if err := b.renewals.CloseSession(t.Context(), "a", session, seq); err == nil {
		t.Fatal("no answer came, and the close succeeded")
	}
	store.lost = false
	if err := b.renewals.CloseSession(t.Context(), "a", session, seq); err != nil {
		t.Error(err)
	}
	if err := b.openSession(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	session, seq, _ = b.lease.state()
	if err := b.renewals.CloseSession(t.Context(), "a", session, seq-1); err != nil {
		t.Error(err)
	}
	if h, err := b.renewals.Host(t.Context(), "a"); err != nil || h.Session.State != ledger.Closed {
		t.Errorf("the session is %s, %v", h.Session.State, err)
	}
}

func TestGraceWithin(t *testing.T) {
	for _, c := range []struct{ within, own, want time.Duration }{
		{5 * time.Second, 30 * time.Second, 3 * time.Second},
		{30 * time.Second, 30 * time.Second, 25 * time.Second},
		{30 * time.Second, time.Second, time.Second},
		{30 * time.Second, 0, -1},
		{time.Second, time.Minute, 500 * time.Millisecond},
		{0, time.Minute, -1},
	} {
		if got := graceWithin(c.own, c.within-commitReserve(c.within)); got != c.want {
			t.Errorf("of %s, with %s to go: %s, want %s", c.own, c.within, got, c.want)
		}
	}
}
