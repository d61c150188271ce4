package ledgertest

import (
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

func hold() job.Hold {
	return job.Hold{ID: uuid.NewString(), Who: "bob", Reason: "the data is not there yet", At: protocolNow}
}

func (p *protocol) park(t *testing.T, id job.ID) job.Hold {
	t.Helper()
	h := hold()
	j, err := p.of(0).Park(p.ctx, id, h)
	if err != nil || j.State != job.Waiting {
		t.Fatalf("park: %v, %v", j, err)
	}
	return h
}

func (p *protocol) unpark(t *testing.T, id job.ID) *job.Job {
	t.Helper()
	j, released, err := p.of(1).Unpark(p.ctx, id, uuid.NewString(), "carol", later(time.Hour))
	if err != nil || !released {
		t.Fatalf("unpark: released %v, %v", released, err)
	}
	return j
}

func (p *protocol) holdClaims(t *testing.T) {
	t.Run("SaysWhoAndWhyAndIsNotClaimed", func(t *testing.T) {
		id := p.submit(t)
		h := p.park(t, id)
		j := p.wantState(t, id, job.Waiting)
		if *j.Hold != h || j.Reason != "held by bob: the data is not there yet" {
			t.Errorf("the job is held by %+v, its reason is %q", j.Hold, j.Reason)
		}
		_, err := p.of(0).Claim(p.ctx, bid(id, "a"))
		wantError(t, err, ledger.ErrNoMatch)
		p.wantState(t, id, job.Waiting)
	})
	t.Run("ReleasedJobIsQueuedAndOwedAMessage", func(t *testing.T) {
		id := p.submit(t)
		p.park(t, id)
		p.unpark(t, id)
		j := p.wantState(t, id, job.Queued)
		if j.PublishedAt != later(time.Hour) || j.Reason != "released by carol" {
			t.Errorf("published_at is %s, the reason %q", j.PublishedAt, j.Reason)
		}
		p.claim(t, id, "a")
	})
	t.Run("OfARetryDropsItsDelay", func(t *testing.T) {
		id := p.submit(t)
		_, h := p.claim(t, id, "a")
		c := ending(job.Retrying)
		c.Verdict.Delay = 24 * time.Hour
		if _, err := p.of(0).Commit(p.ctx, h, c); err != nil {
			t.Fatal(err)
		}
		p.park(t, id)
		p.unpark(t, id)
		if j, _ := p.claim(t, id, "b"); !j.NotBefore.IsZero() || j.Failures != 1 || j.Attempt != 2 {
			t.Errorf("not before %s, %d failures, attempt %d", j.NotBefore, j.Failures, j.Attempt)
		}
	})
	t.Run("HeldTwiceKeepsTheFirst", func(t *testing.T) {
		id := p.submit(t)
		h := p.park(t, id)
		j, err := p.of(1).Park(p.ctx, id, hold())
		if err != nil || j.Hold.ID != h.ID || len(j.History) != 2 {
			t.Fatalf("the second hold left %v, %v", j, err)
		}
	})
	t.Run("RepeatedOneIsRecognisedAndNotMadeAgain", func(t *testing.T) {
		id := p.submit(t)
		h := p.park(t, id)
		opID := uuid.NewString()
		for range 2 { // the caller learnt nothing of the first
			if _, released, err := p.of(0).Unpark(p.ctx, id, opID, "carol", protocolNow); err != nil || !released {
				t.Fatalf("unpark: released %v, %v", released, err)
			}
		}
		if j, err := p.of(0).Park(p.ctx, id, h); err != nil || j.State != job.Queued {
			t.Fatalf("the hold was made once more: %v, %v", j, err)
		}
		if j := p.wantState(t, id, job.Queued); len(j.History) != 3 {
			t.Errorf("%d rows of history, want 3", len(j.History))
		}
	})
	t.Run("OfAHeldOrEndedJobIsRefused", func(t *testing.T) {
		id := p.submit(t)
		_, h := p.claim(t, id, "a")
		j, err := p.of(0).Park(p.ctx, id, hold())
		wantError(t, err, ledger.ErrNoMatch)
		if j.State != job.Claimed || j.Hold != nil {
			t.Errorf("the job is %s, held by %v", j.State, j.Hold)
		}
		if _, err := p.of(0).Commit(p.ctx, h, ending(job.Succeeded)); err != nil {
			t.Fatal(err)
		}
		_, err = p.of(0).Park(p.ctx, id, hold())
		wantError(t, err, ledger.ErrTerminal)
		p.wantState(t, id, job.Succeeded)
		_, err = p.of(0).Park(p.ctx, job.NewID(), hold())
		wantError(t, err, ledger.ErrNotFound)
	})
	t.Run("ReleaseOfWhatNobodyHoldsChangesNothing", func(t *testing.T) {
		id := p.submit(t)
		j, released, err := p.of(0).Unpark(p.ctx, id, uuid.NewString(), "carol", protocolNow)
		if err != nil || released || len(j.History) != 1 {
			t.Fatalf("released %v, %v", released, err)
		}
		_, _, err = p.of(0).Unpark(p.ctx, job.NewID(), uuid.NewString(), "carol", protocolNow)
		wantError(t, err, ledger.ErrNotFound)
	})
	t.Run("RacingAClaimExactlyOneWins", func(t *testing.T) {
		for range duelRounds {
			id := p.submit(t)
			parkErr, claimErr := both(
				func() error { _, err := p.of(0).Park(p.ctx, id, hold()); return err },
				func() error { _, err := p.of(1).Claim(p.ctx, bid(id, "a")); return err },
			)
			exactlyOne(t, parkErr, claimErr, ledger.ErrNoMatch)
			want := job.Claimed
			if parkErr == nil {
				want = job.Waiting
			}
			p.wantState(t, id, want)
		}
	})
	t.Run("OfRacersOneReleases", func(t *testing.T) {
		id := p.submit(t)
		p.park(t, id)
		released := make([]bool, racers)
		for _, err := range race(racers, func(i int) (err error) {
			_, released[i], err = p.of(i).Unpark(p.ctx, id, uuid.NewString(), "carol", protocolNow)
			return err
		}) {
			wantError(t, err, nil)
		}
		n := 0
		for _, r := range released {
			if r {
				n++
			}
		}
		if j := p.wantState(t, id, job.Queued); n != 1 || len(j.History) != 3 {
			t.Errorf("%d released it, %d rows of history: want 1 and 3", n, len(j.History))
		}
	})
	t.Run("KilledWhileHeldIsOver", p.killOfAHeldJob)
	t.Run("ExpiresWhileHeld", p.expiryOfAHeldJob)
}

func (p *protocol) killOfAHeldJob(t *testing.T) {
	id := p.submit(t)
	p.park(t, id)
	if _, err := p.of(1).Kill(p.ctx, id, kill()); err != nil {
		t.Fatal(err)
	}
	p.wantState(t, id, job.Killed)
	j, released, err := p.of(0).Unpark(p.ctx, id, uuid.NewString(), "carol", protocolNow)
	if err != nil || released || j.State != job.Killed {
		t.Fatalf("a killed job was released: %v, %s, %v", released, j.State, err)
	}
	for range duelRounds {
		id := p.submit(t)
		p.park(t, id)
		killErr, unparkErr := both(
			func() error { _, err := p.of(0).Kill(p.ctx, id, kill()); return err },
			func() error {
				_, _, err := p.of(1).Unpark(p.ctx, id, uuid.NewString(), "carol", protocolNow)
				return err
			},
		)
		wantError(t, killErr, nil)
		wantError(t, unparkErr, nil)
		p.wantState(t, id, job.Killed)
	}
}

func (p *protocol) expiryOfAHeldJob(t *testing.T) {
	j := p.freshJob(t)
	j.ExpiresAt = later(-time.Hour) // before any other case's job
	if _, _, err := p.of(0).Submit(p.ctx, j); err != nil {
		t.Fatal(err)
	}
	p.park(t, j.ID)
	late, err := p.of(1).ExpiredBy(p.ctx, protocolNow, 10)
	if err != nil || len(late) != 1 || late[0].ID != j.ID {
		t.Fatalf("%d jobs have expired, %v: want the held one", len(late), err)
	}
	if _, err := p.of(1).End(p.ctx, j.ID, job.ClassExpired, "too late", uuid.NewString(), protocolNow); err != nil {
		t.Fatal(err)
	}
	p.wantState(t, j.ID, job.Dead)
}

func (p *protocol) requeueClaims(t *testing.T) {
	t.Run("OfRacersOneCreatesTheNewJob", func(t *testing.T) {
		id := p.submit(t)
		if _, err := p.of(0).Kill(p.ctx, id, kill()); err != nil {
			t.Fatal(err)
		}
		old := p.job(t, id)
		t.Cleanup(func() {
			if err := p.store.Delete(p.ctx, ledger.Jobs, string(job.RequeueID(id))); err != nil {
				t.Errorf("delete the case's job: %v", err)
			}
		})
		created := make([]bool, racers)
		for _, err := range race(racers, func(i int) (err error) { // each by a clock of its own
			_, created[i], err = p.of(i).Submit(p.ctx, job.Requeue(old, later(time.Duration(i)*time.Second)))
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
		if j := p.wantState(t, job.RequeueID(id), job.Queued); n != 1 || j.RequeueOf != id || j.SpecHash != old.SpecHash {
			t.Errorf("%d created the requeue of %q with spec %s", n, j.RequeueOf, j.SpecHash)
		}
		p.wantState(t, id, job.Killed)
	})
}

func (p *protocol) aheadClaims(t *testing.T) {
	const queue = "gpuq.job.ahead.normal.g1.any"
	for i := range 5 {
		j := p.freshJob(t)
		j.Queue, j.PublishedAt = queue, later(time.Duration(i)*time.Minute)
		if i == 0 {
			j.State = job.Retrying // is not in the queue
		}
		if _, _, err := p.of(0).Submit(p.ctx, j); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		queue  string
		before job.Time
		limit  int
		want   int
		more   bool
	}{
		{"ThoseBeforeATime", queue, later(3 * time.Minute), 10, 2, false},
		{"AllOfAQueue", queue, job.Time{}, 10, 4, false},
		{"AsManyAsTheLimit", queue, job.Time{}, 4, 4, false},
		{"MoreThanTheLimit", queue, job.Time{}, 3, 3, true},
		{"OfAnotherQueue", queue + ".again", job.Time{}, 3, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, more, err := p.of(1).Ahead(p.ctx, c.queue, c.before, c.limit)
			if err != nil || n != c.want || more != c.more {
				t.Errorf("%d, more %v, %v: want %d, %v", n, more, err, c.want, c.more)
			}
		})
	}
}

// unfinishedClaims compares two counts, since the ledger has jobs of other claims.
func (p *protocol) unfinishedClaims(t *testing.T) {
	count := func(limit int) map[job.State]int {
		t.Helper()
		counts, err := p.of(1).Unfinished(p.ctx, limit)
		if err != nil {
			t.Fatal(err)
		}
		return counts
	}
	before := count(1000)
	for _, state := range []job.State{job.Queued, job.Queued, job.Retrying, job.Succeeded} {
		j := p.freshJob(t)
		j.State = state
		if _, _, err := p.of(0).Submit(p.ctx, j); err != nil {
			t.Fatal(err)
		}
	}
	after := count(1000)
	for state, n := range map[job.State]int{job.Waiting: 0, job.Queued: 2, job.Claimed: 0, job.Running: 0, job.Retrying: 1} {
		if got := after[state] - before[state]; got != n {
			t.Errorf("%d more are %s, want %d", got, state, n)
		}
	}
	if _, ok := after[job.Succeeded]; ok {
		t.Error("jobs that are over were counted")
	}
	if got := count(1)[job.Queued]; got != 1 {
		t.Errorf("%d are queued, with a limit of 1", got)
	}
}
