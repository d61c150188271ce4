package ledgertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

// moves lists every transition method with the states that it may move a job
// from. Where a method's own rule is narrower than the table of transitions, the
// narrower set stands here.
var moves = []struct {
	name string
	from []job.State
	to   job.State
	move func(p *protocol, j *job.Job, h ledger.Hold) error
}{
	{"Claim", []job.State{job.Queued, job.Retrying}, job.Claimed, func(p *protocol, j *job.Job, _ ledger.Hold) error {
		_, err := p.of(0).Claim(p.ctx, bid(j.ID, "b"))
		return err
	}},
	{"Start", []job.State{job.Claimed}, job.Running, func(p *protocol, _ *job.Job, h ledger.Hold) error {
		_, err := p.of(0).Start(p.ctx, h, protocolNow)
		return err
	}},
	{"CommitSucceeded", []job.State{job.Claimed, job.Running}, job.Succeeded, commitTo(job.Succeeded)},
	{"CommitFailed", []job.State{job.Claimed, job.Running}, job.Failed, commitTo(job.Failed)},
	{"CommitRetrying", []job.State{job.Claimed, job.Running}, job.Retrying, commitTo(job.Retrying)},
	{"CommitQueued", []job.State{job.Claimed, job.Running}, job.Queued, commitTo(job.Queued)},
	{"CommitKilled", []job.State{job.Claimed, job.Running}, job.Killed, commitTo(job.Killed)},
	{"CommitDead", []job.State{job.Claimed, job.Running}, job.Dead, commitTo(job.Dead)},
	{"Takeover", []job.State{job.Claimed, job.Running}, job.Queued, func(p *protocol, j *job.Job, _ ledger.Hold) error {
		_, err := p.of(0).Takeover(p.ctx, j, "b", uuid.NewString(), protocolNow)
		return err
	}},
	{"Kill", []job.State{job.Waiting, job.Queued, job.Retrying}, job.Killed, func(p *protocol, j *job.Job, _ ledger.Hold) error {
		_, err := p.of(0).Kill(p.ctx, j.ID, kill())
		return err
	}},
	{"End", []job.State{job.Waiting, job.Queued, job.Retrying}, job.Dead, func(p *protocol, j *job.Job, _ ledger.Hold) error {
		_, err := p.of(0).End(p.ctx, j.ID, job.ClassExpired, "too late", uuid.NewString(), protocolNow)
		return err
	}},
	{"Park", []job.State{job.Queued, job.Retrying}, job.Waiting, func(p *protocol, j *job.Job, _ ledger.Hold) error {
		_, err := p.of(0).Park(p.ctx, j.ID, hold())
		return err
	}},
	{"Unpark", []job.State{job.Waiting}, job.Queued, func(p *protocol, j *job.Job, _ ledger.Hold) error {
		_, released, err := p.of(0).Unpark(p.ctx, j.ID, uuid.NewString(), "carol", protocolNow)
		if err == nil && !released {
			return ledger.ErrNoMatch
		}
		return err
	}},
}

func commitTo(to job.State) func(*protocol, *job.Job, ledger.Hold) error {
	return func(p *protocol, _ *job.Job, h ledger.Hold) error {
		_, err := p.of(0).Commit(p.ctx, h, ending(to))
		return err
	}
}

// illegalClaims puts a job in each state, with an owner and a fence that would
// satisfy every other condition, and tries each method on it.
func (p *protocol) illegalClaims(t *testing.T) {
	for _, m := range moves {
		for _, from := range job.States {
			t.Run(fmt.Sprintf("%s/%s", m.name, from), func(t *testing.T) {
				j, h := p.plant(t, from)
				before := mustJSON(t, p.job(t, j.ID))
				err := m.move(p, j, h)
				after := p.job(t, j.ID)
				switch {
				case slices.Contains(m.from, from):
					if err != nil || after.State != m.to {
						t.Fatalf("a legal move ended in %s with %v", after.State, err)
					}
				case m.name == "Kill" && from.Held(): // a flag for the owner, no transition
					if err != nil || after.State != from || after.Kill == nil {
						t.Fatalf("the flag ended in %s with %v", after.State, err)
					}
				case m.name == "Park" && from == job.Waiting: // held already
					wantError(t, err, nil)
					wantJSON(t, mustJSON(t, after), before)
				case !errors.Is(err, ledger.ErrNoMatch) && !errors.Is(err, ledger.ErrTerminal):
					t.Fatalf("got %v, want a refusal", err)
				default:
					wantJSON(t, mustJSON(t, after), before)
				}
				if after.State != from && !job.Allowed(from, after.State) {
					t.Errorf("the job moved from %s to %s", from, after.State)
				}
			})
		}
	}
}

// plant stores a job in the given state.
func (p *protocol) plant(t *testing.T, state job.State) (*job.Job, ledger.Hold) {
	t.Helper()
	j := p.freshJob(t)
	j.State, j.Attempt, j.Fence = state, 1, 1
	j.Owner = &job.Owner{Host: "a", Session: "session-of-a", ClaimID: uuid.NewString(), Devices: []string{}}
	if state == job.Waiting {
		h := hold()
		j.Hold = &h
	}
	if err := p.store.Insert(p.ctx, ledger.Jobs, string(j.ID), mustJSON(t, j)); err != nil {
		t.Fatal(err)
	}
	return j, holdOf(j)
}

// stormClaims lets daemons do everything they may to one job at once, until it
// is over, and judges the history that they leave.
func (p *protocol) stormClaims(t *testing.T) {
	const (
		storms  = 4
		daemons = 6
		steps   = 12
	)
	for range storms {
		seed := rand.Uint64()
		id := p.submit(t)
		for _, err := range race(daemons, func(i int) error {
			return p.storm(id, fmt.Sprint("host-", i), steps, rand.New(rand.NewPCG(seed, uint64(i))))
		}) {
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		j := p.job(t, id)
		wantLegalHistory(t, j)
		if t.Failed() {
			t.Fatalf("seed %d left %s", seed, mustJSON(t, j.History))
		}
	}
}

// storm is one daemon of a storm. It fails on any error that is not a lost race.
func (p *protocol) storm(id job.ID, host string, steps int, random *rand.Rand) error {
	l := p.of(random.IntN(len(p.ledgers)))
	var mine *ledger.Hold
	for range steps {
		current, err := l.Job(p.ctx, id)
		if err != nil {
			return err
		}
		switch n := random.IntN(20); {
		case mine == nil && n < 12:
			b := bid(id, host)
			b.Now = later(time.Hour)
			if current, err = l.Claim(p.ctx, b); err == nil {
				h := holdOf(current)
				mine = &h
			}
		case mine != nil && n < 4:
			_, err = l.Start(p.ctx, *mine, protocolNow)
		case mine != nil && n < 14:
			to := []job.State{job.Queued, job.Retrying, job.Queued, job.Retrying, job.Succeeded}[random.IntN(5)]
			_, err = l.Commit(p.ctx, *mine, ending(to))
			mine = nil
		case n == 19:
			_, err = l.Kill(p.ctx, id, kill())
		case n == 18:
			_, err = l.Park(p.ctx, id, hold())
		case n > 14:
			_, _, err = l.Unpark(p.ctx, id, uuid.NewString(), host, protocolNow)
		default:
			_, err = l.Takeover(p.ctx, current, host, uuid.NewString(), protocolNow)
		}
		if err != nil && !errors.Is(err, ledger.ErrNoMatch) && !errors.Is(err, ledger.ErrTerminal) {
			return fmt.Errorf("%s: %w", host, err)
		}
	}
	return nil
}
