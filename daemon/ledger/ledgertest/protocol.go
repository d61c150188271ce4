package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

// RunLedger races the protocol of package ledger on the store under test, with
// two ledgers on it, as two daemons have.
func RunLedger(t *testing.T, open Open) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), protocolTimeout)
	defer cancel()
	p := &protocol{ctx: ctx, store: open(t)}
	for i := range p.ledgers {
		l, err := ledger.Open(ctx, open(t))
		if err != nil {
			t.Fatal(err)
		}
		p.ledgers[i] = l
	}
	if p.ledgers[0].ID() == "" || p.ledgers[0].ID() != p.ledgers[1].ID() {
		t.Fatalf("the ledger has two identities: %q and %q", p.ledgers[0].ID(), p.ledgers[1].ID())
	}
	t.Run("Submit", p.submitClaims)
	t.Run("Claim", p.claimClaims)
	t.Run("Commit", p.commitClaims)
	t.Run("Kill", p.killClaims)
	t.Run("Takeover", p.takeoverClaims)
	t.Run("Hold", p.holdClaims)
	t.Run("Requeue", p.requeueClaims)
	t.Run("Ahead", p.aheadClaims)
	t.Run("Unfinished", p.unfinishedClaims)
	t.Run("Session", p.sessionClaims)
	t.Run("Drain", p.drainClaims)
	t.Run("DeadLetter", p.deadLetterClaims)
	t.Run("Event", p.eventClaims)
	t.Run("IllegalTransition", p.illegalClaims)
	t.Run("Storm", p.stormClaims)
	t.Run("Restore", p.restoreClaims)
}

// protocolTimeout bounds RunLedger as a whole: a store that hangs fails.
const protocolTimeout = 3 * time.Minute

// protocol is the state of RunLedger.
type protocol struct {
	ctx     context.Context
	store   ledger.Store
	ledgers [2]*ledger.Ledger
}

// of spreads racers over the ledgers.
func (p *protocol) of(i int) *ledger.Ledger { return p.ledgers[i%len(p.ledgers)] }

var protocolNow = job.At(callStart)

// later returns a time after the start of the test's own time.
func later(d time.Duration) job.Time { return job.At(callStart.Add(d)) }

// freshJob returns a job that is not in the ledger yet. It is deleted with the
// case, since some servers get slower with each document.
func (p *protocol) freshJob(t *testing.T) *job.Job {
	t.Helper()
	spec := job.DefaultSpec()
	spec.Command = []string{"true"}
	spec.MaxAttempts = 100
	j := job.New(job.NewID(), "alice", spec, protocolNow)
	t.Cleanup(func() {
		if err := p.store.Delete(p.ctx, ledger.Jobs, string(j.ID)); err != nil {
			t.Errorf("delete the case's job: %v", err)
		}
	})
	return j
}

func (p *protocol) submit(t *testing.T) job.ID {
	t.Helper()
	j := p.freshJob(t)
	if _, created, err := p.of(0).Submit(p.ctx, j); err != nil || !created {
		t.Fatalf("submit: created %v, %v", created, err)
	}
	return j.ID
}

func bid(id job.ID, host string) ledger.Claim {
	return ledger.Claim{
		JobID: id, Host: host, Session: "session-of-" + host, ClaimID: uuid.NewString(),
		Devices: []string{"GPU-" + host}, Now: protocolNow,
	}
}

// claim wins a job that nobody else wants.
func (p *protocol) claim(t *testing.T, id job.ID, host string) (*job.Job, ledger.Hold) {
	t.Helper()
	j, err := p.of(0).Claim(p.ctx, bid(id, host))
	if err != nil {
		t.Fatalf("claim by %s: %v", host, err)
	}
	return j, holdOf(j)
}

func (p *protocol) start(t *testing.T, h ledger.Hold) *job.Job {
	t.Helper()
	j, err := p.of(1).Start(p.ctx, h, protocolNow)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	return j
}

func holdOf(j *job.Job) ledger.Hold {
	return ledger.Hold{JobID: j.ID, ClaimID: j.Owner.ClaimID, Fence: j.Fence, Host: j.Owner.Host}
}

func ending(to job.State) ledger.Commit {
	c := ledger.Commit{ID: uuid.NewString(), Verdict: job.Verdict{State: to}, Now: later(time.Minute), Result: &job.Result{Attempt: 1}}
	switch to {
	case job.Failed, job.Retrying:
		c.Verdict.Class, c.Verdict.Failures = job.ClassUser, 1
	case job.Queued:
		c.Verdict.Class, c.Verdict.Requeues = job.ClassDrained, 1
	case job.Killed:
		c.Verdict.Class = job.ClassKilled
	}
	return c
}

func (p *protocol) job(t *testing.T, id job.ID) *job.Job {
	t.Helper()
	j, err := p.of(1).Job(p.ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// wantState reads the job, checks its state and its whole history.
func (p *protocol) wantState(t *testing.T, id job.ID, want job.State) *job.Job {
	t.Helper()
	j := p.job(t, id)
	if j.State != want {
		t.Fatalf("the job is %s (%s), want %s", j.State, j.Reason, want)
	}
	wantLegalHistory(t, j)
	return j
}

// wantLegalHistory checks what must hold of every job, whatever raced on it.
func wantLegalHistory(t *testing.T, j *job.Job) {
	t.Helper()
	claims := 0
	for i, row := range j.History {
		if i == 0 {
			if row.State != job.Queued {
				t.Errorf("the history begins with %s", row.State)
			}
			continue
		}
		if from := j.History[i-1].State; !job.Allowed(from, row.State) {
			t.Errorf("the history moves from %s to %s", from, row.State)
		}
		if row.State == job.Claimed {
			claims++
		}
	}
	if last := j.History[len(j.History)-1].State; last != j.State {
		t.Errorf("the history ends with %s, the job is %s", last, j.State)
	}
	if int64(claims) != j.Fence || claims != j.Attempt {
		t.Errorf("%d claims gave fence %d and attempt %d", claims, j.Fence, j.Attempt)
	}
	if j.State.Held() != (j.Owner != nil) {
		t.Errorf("the job is %s with the owner %v", j.State, j.Owner)
	}
	if (j.State == job.Waiting) != (j.Hold != nil) {
		t.Errorf("the job is %s with the hold %v", j.State, j.Hold)
	}
}

// exactlyOne checks that of two racers one won and the other lost properly.
func exactlyOne(t *testing.T, a, b error, lost ...error) {
	t.Helper()
	if (a == nil) == (b == nil) {
		t.Fatalf("the racers got %v and %v: want exactly one to win", a, b)
	}
	loser := errors.Join(a, b)
	for _, want := range lost {
		if errors.Is(loser, want) {
			return
		}
	}
	t.Fatalf("the loser got %v, want one of %v", loser, lost)
}

func both(f, g func() error) (error, error) {
	errs := race(2, func(i int) error {
		if i == 0 {
			return f()
		}
		return g()
	})
	return errs[0], errs[1]
}

func (p *protocol) submitClaims(t *testing.T) {
	t.Run("TwiceIsOneJob", func(t *testing.T) {
		j := p.freshJob(t)
		for i, want := range []bool{true, false} {
			stored, created, err := p.of(i).Submit(p.ctx, j)
			if err != nil || created != want || stored.SpecHash != j.SpecHash {
				t.Fatalf("submit %d: created %v, %v", i, created, err)
			}
		}
		p.wantState(t, j.ID, job.Queued)
	})
	t.Run("TwiceLeavesAClaimedJobAlone", func(t *testing.T) {
		j := p.freshJob(t)
		if _, _, err := p.of(0).Submit(p.ctx, j); err != nil {
			t.Fatal(err)
		}
		p.claim(t, j.ID, "a")
		stored, created, err := p.of(1).Submit(p.ctx, j)
		if err != nil || created || stored.State != job.Claimed {
			t.Fatalf("created %v, %v", created, err)
		}
	})
	t.Run("AnotherSpecOrSubmitterIsAConflict", func(t *testing.T) {
		j := p.freshJob(t)
		if _, _, err := p.of(0).Submit(p.ctx, j); err != nil {
			t.Fatal(err)
		}
		other := j.Spec
		other.Command = []string{"false"}
		for _, k := range []*job.Job{job.New(j.ID, "alice", other, protocolNow), job.New(j.ID, "mallory", j.Spec, protocolNow)} {
			_, created, err := p.of(0).Submit(p.ctx, k)
			wantError(t, err, ledger.ErrConflict)
			if created {
				t.Error("the conflict was created")
			}
		}
		if got := p.job(t, j.ID); got.SpecHash != j.SpecHash || got.Submitter != "alice" {
			t.Error("the conflict changed the job")
		}
	})
	t.Run("OfRacersOneCreates", func(t *testing.T) {
		j := p.freshJob(t)
		created := make([]bool, racers)
		for _, err := range race(racers, func(i int) (err error) {
			_, created[i], err = p.of(i).Submit(p.ctx, j)
			return err
		}) {
			wantError(t, err, nil)
		}
		n := 0
		for _, c := range created {
			if c {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d of %d created the job", n, racers)
		}
	})
}

func (p *protocol) claimClaims(t *testing.T) {
	t.Run("OfRacersOneWinsAndTheRestSeeIt", func(t *testing.T) {
		id := p.submit(t)
		docs := make([]*job.Job, racers)
		errs := race(racers, func(i int) (err error) {
			docs[i], err = p.of(i).Claim(p.ctx, bid(id, fmt.Sprint("host-", i)))
			return err
		})
		if won := wins(t, errs, ledger.ErrNoMatch); won != 1 {
			t.Fatalf("%d of %d won", won, racers)
		}
		j := p.wantState(t, id, job.Claimed)
		if j.Fence != 1 || j.Attempt != 1 {
			t.Errorf("fence %d, attempt %d, want 1 and 1", j.Fence, j.Attempt)
		}
		for i, doc := range docs {
			if doc == nil || doc.Owner == nil || doc.Owner.ClaimID != j.Owner.ClaimID {
				t.Fatalf("racer %d does not see the winner", i)
			}
		}
	})
	t.Run("RepeatedClaimIsRecognised", func(t *testing.T) {
		id := p.submit(t)
		b := bid(id, "a")
		for range 2 {
			j, err := p.of(0).Claim(p.ctx, b)
			if err != nil || j.Fence != 1 {
				t.Fatalf("fence %v, %v", j, err)
			}
		}
	})
	t.Run("RepeatedClaimOfALostJobIsRefused", func(t *testing.T) {
		id := p.submit(t)
		b := bid(id, "a")
		held, err := p.of(0).Claim(p.ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.of(1).Takeover(p.ctx, held, "b", uuid.NewString(), protocolNow); err != nil {
			t.Fatal(err)
		}
		_, h := p.claim(t, id, "b")
		_, err = p.of(0).Claim(p.ctx, b) // its owner learnt nothing of the first call
		wantError(t, err, ledger.ErrNoMatch)
		if j := p.wantState(t, id, job.Claimed); j.Owner.ClaimID != h.ClaimID {
			t.Error("the job changed hands")
		}
	})
	t.Run("NextClaimHasTheNextFence", func(t *testing.T) {
		id := p.submit(t)
		_, h := p.claim(t, id, "a")
		if _, err := p.of(0).Commit(p.ctx, h, ending(job.Queued)); err != nil {
			t.Fatal(err)
		}
		if j, _ := p.claim(t, id, "b"); j.Fence != 2 || j.Attempt != 2 {
			t.Errorf("fence %d, attempt %d, want 2 and 2", j.Fence, j.Attempt)
		}
	})
	t.Run("RetryingJobIsClaimedOnlyWhenDue", func(t *testing.T) {
		id := p.submit(t)
		_, h := p.claim(t, id, "a")
		c := ending(job.Retrying)
		c.Verdict.Delay = time.Minute
		if _, err := p.of(0).Commit(p.ctx, h, c); err != nil {
			t.Fatal(err)
		}
		b := bid(id, "b")
		b.Now, b.Slack = later(2*time.Minute-3*time.Second), time.Second
		_, err := p.of(0).Claim(p.ctx, b)
		wantError(t, err, ledger.ErrNoMatch)
		p.wantState(t, id, job.Retrying)
		b.Slack = 3 * time.Second
		if _, err := p.of(0).Claim(p.ctx, b); err != nil {
			t.Fatal(err)
		}
		p.wantState(t, id, job.Claimed)
	})
	t.Run("ClaimOfNothingIsNotFound", func(t *testing.T) {
		_, err := p.of(0).Claim(p.ctx, bid(job.NewID(), "a"))
		wantError(t, err, ledger.ErrNotFound)
	})
}
