package ledgertest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

// duelRounds is how often two opposed writes race: often enough that both ways
// of winning come up.
const duelRounds = 12

func (p *protocol) commitClaims(t *testing.T) {
	t.Run("OfRacersOneResultIsStored", func(t *testing.T) {
		id := p.submit(t)
		_, h := p.claim(t, id, "a")
		p.start(t, h)
		commits := make([]ledger.Commit, racers)
		errs := race(racers, func(i int) error {
			commits[i] = ending(job.Succeeded)
			_, err := p.of(i).Commit(p.ctx, h, commits[i])
			return err
		})
		if won := wins(t, errs, ledger.ErrNoMatch); won != 1 {
			t.Fatalf("%d of %d committed", won, racers)
		}
		j := p.wantState(t, id, job.Succeeded)
		for i, err := range errs {
			if err == nil && j.CommitID != commits[i].ID {
				t.Error("the stored commit is not the winner's")
			}
		}
	})
	t.Run("RepeatedCommitIsRecognised", func(t *testing.T) {
		id := p.submit(t)
		_, h := p.claim(t, id, "a")
		c := ending(job.Succeeded)
		for range 2 {
			if _, err := p.of(0).Commit(p.ctx, h, c); err != nil {
				t.Fatal(err)
			}
		}
		if j := p.wantState(t, id, job.Succeeded); len(j.History) != 3 {
			t.Errorf("%d rows of history, want 3", len(j.History))
		}
	})
	t.Run("StaleFenceIsRefused", func(t *testing.T) {
		id := p.submit(t)
		claimed, stale := p.claim(t, id, "a")
		if _, err := p.of(0).Takeover(p.ctx, claimed, "b", uuid.NewString(), protocolNow); err != nil {
			t.Fatal(err)
		}
		_, h := p.claim(t, id, "b")
		guessed := h
		guessed.ClaimID = stale.ClaimID
		old := h
		old.Fence = stale.Fence
		for name, hold := range map[string]ledger.Hold{"old claim and fence": stale, "old claim": guessed, "old fence": old} {
			_, err := p.of(1).Start(p.ctx, hold, protocolNow)
			if hold == stale && err == nil || !errors.Is(err, ledger.ErrNoMatch) {
				t.Errorf("start with %s: %v", name, err)
			}
			for _, to := range []job.State{job.Succeeded, job.Failed, job.Retrying, job.Queued} {
				if _, err := p.of(1).Commit(p.ctx, hold, ending(to)); !errors.Is(err, ledger.ErrNoMatch) {
					t.Errorf("commit %s with %s: %v", to, name, err)
				}
			}
		}
		if j := p.wantState(t, id, job.Claimed); j.Owner.ClaimID != h.ClaimID || j.Fence != 2 {
			t.Error("the job changed hands")
		}
	})
}

func kill() job.Kill {
	return job.Kill{ID: uuid.NewString(), Who: "bob", Reason: "enough", At: protocolNow}
}

func (p *protocol) killClaims(t *testing.T) {
	t.Run("WaitingJobEndsAtOnce", func(t *testing.T) {
		id := p.submit(t)
		if _, err := p.of(0).Kill(p.ctx, id, kill()); err != nil {
			t.Fatal(err)
		}
		p.wantState(t, id, job.Killed)
		_, err := p.of(0).Claim(p.ctx, bid(id, "a"))
		wantError(t, err, ledger.ErrNoMatch)
		_, err = p.of(0).Kill(p.ctx, id, kill())
		wantError(t, err, ledger.ErrTerminal)
	})
	t.Run("RacingAClaimOneOrderHolds", func(t *testing.T) {
		for range duelRounds {
			id, k := p.submit(t), kill()
			killErr, claimErr := both(
				func() error { _, err := p.of(0).Kill(p.ctx, id, k); return err },
				func() error { _, err := p.of(1).Claim(p.ctx, bid(id, "a")); return err },
			)
			wantError(t, killErr, nil)
			want := job.Claimed
			if claimErr != nil {
				wantError(t, claimErr, ledger.ErrNoMatch)
				want = job.Killed
			}
			if j := p.wantState(t, id, want); j.Kill == nil || j.Kill.ID != k.ID {
				t.Error("the kill left no flag")
			}
		}
	})
	t.Run("RacingASuccessEitherIsWhole", func(t *testing.T) {
		for range duelRounds {
			id := p.submit(t)
			_, h := p.claim(t, id, "a")
			killErr, commitErr := both(
				func() error { _, err := p.of(0).Kill(p.ctx, id, kill()); return err },
				func() error { _, err := p.of(1).Commit(p.ctx, h, ending(job.Succeeded)); return err },
			)
			wantError(t, commitErr, nil)
			j := p.wantState(t, id, job.Succeeded)
			if flagged := j.Kill != nil; flagged != (killErr == nil) {
				t.Errorf("the kill returned %v and its flag is %v", killErr, flagged)
			}
			if killErr != nil {
				wantError(t, killErr, ledger.ErrTerminal)
			}
		}
	})
	for _, to := range []job.State{job.Retrying, job.Queued} {
		t.Run("RacingA"+string(to)+"CommitTheJobIsKilled", func(t *testing.T) {
			for range duelRounds {
				id := p.submit(t)
				_, h := p.claim(t, id, "a")
				killErr, commitErr := both(
					func() error { _, err := p.of(0).Kill(p.ctx, id, kill()); return err },
					func() error { _, err := p.of(1).Commit(p.ctx, h, ending(to)); return err },
				)
				wantError(t, killErr, nil)
				wantError(t, commitErr, nil)
				p.wantState(t, id, job.Killed)
			}
		})
	}
}

func (p *protocol) takeoverClaims(t *testing.T) {
	t.Run("RacingACommitExactlyOneWins", func(t *testing.T) {
		for range duelRounds {
			id := p.submit(t)
			_, h := p.claim(t, id, "a")
			held := p.start(t, h)
			takeoverErr, commitErr := both(
				func() error {
					_, err := p.of(0).Takeover(p.ctx, held, "b", uuid.NewString(), protocolNow)
					return err
				},
				func() error { _, err := p.of(1).Commit(p.ctx, h, ending(job.Succeeded)); return err },
			)
			exactlyOne(t, takeoverErr, commitErr, ledger.ErrNoMatch)
			want := job.Succeeded
			if takeoverErr == nil {
				want = job.Queued
			}
			p.wantState(t, id, want)
		}
	})
	t.Run("OfRacersOneRequeues", func(t *testing.T) {
		id := p.submit(t)
		held, _ := p.claim(t, id, "a")
		errs := race(racers, func(i int) error {
			_, err := p.of(i).Takeover(p.ctx, held, fmt.Sprint(i), uuid.NewString(), protocolNow)
			return err
		})
		if won := wins(t, errs, ledger.ErrNoMatch); won != 1 {
			t.Fatalf("%d of %d took the job over", won, racers)
		}
		if j := p.wantState(t, id, job.Queued); j.Requeues != 1 || j.Lost != 1 {
			t.Errorf("%d requeues, %d hosts lost, want 1 and 1", j.Requeues, j.Lost)
		}
	})
	t.Run("OfAnEarlierReadIsRefused", func(t *testing.T) {
		id := p.submit(t)
		held, h := p.claim(t, id, "a")
		p.start(t, h) // the job moved on: what was decided by the old state no longer fits
		_, err := p.of(0).Takeover(p.ctx, held, "b", uuid.NewString(), protocolNow)
		wantError(t, err, ledger.ErrNoMatch)
		p.wantState(t, id, job.Running)
	})
	t.Run("OfAFlaggedJobKillsIt", func(t *testing.T) {
		id := p.submit(t)
		p.claim(t, id, "a")
		flagged, err := p.of(0).Kill(p.ctx, id, kill())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.of(1).Takeover(p.ctx, flagged, "b", uuid.NewString(), protocolNow); err != nil {
			t.Fatal(err)
		}
		p.wantState(t, id, job.Killed)
	})
	t.Run("RacingAKillTheJobIsKilled", func(t *testing.T) {
		for range duelRounds {
			id := p.submit(t)
			held, _ := p.claim(t, id, "a")
			killErr, takeoverErr := both(
				func() error { _, err := p.of(0).Kill(p.ctx, id, kill()); return err },
				func() error {
					_, err := p.of(1).Takeover(p.ctx, held, "b", uuid.NewString(), protocolNow)
					return err
				},
			)
			wantError(t, killErr, nil)
			if takeoverErr != nil { // flagged since it was read: the next tick reads it again
				wantError(t, takeoverErr, ledger.ErrNoMatch)
				if _, err := p.of(1).Takeover(p.ctx, p.job(t, id), "b", uuid.NewString(), protocolNow); err != nil {
					t.Fatal(err)
				}
			}
			p.wantState(t, id, job.Killed)
		}
	})
	t.Run("PublishingAgainOneWins", func(t *testing.T) {
		id := p.submit(t)
		read := p.job(t, id)
		errs := race(racers, func(i int) error { return p.of(i).Republish(p.ctx, read, true, later(time.Duration(i+1)*time.Second)) })
		if won := wins(t, errs, ledger.ErrNoMatch); won != 1 {
			t.Fatalf("%d of %d may publish", won, racers)
		}
	})
}
