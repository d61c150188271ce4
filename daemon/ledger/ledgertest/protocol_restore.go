package ledgertest

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

// restore makes another ledger of what the store holds; meanwhile is what happens
// under the watch.
func (p *protocol) restore(store ledger.Store, meanwhile func() error) (*ledger.Restored, error) {
	return ledger.Restore(p.ctx, store, ledger.Restoration{
		Who: "olga", Host: "host", Now: func() job.Time { return protocolNow },
		Watch: func(context.Context) error { return meanwhile() },
	})
}

func quiet() error { return nil }

func (p *protocol) restored(t *testing.T) *ledger.Restored {
	t.Helper()
	r, err := p.restore(p.store, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// identity returns the ledger's document.
func (p *protocol) identity(t *testing.T) (id string) {
	t.Helper()
	doc, err := p.store.Get(p.ctx, ledger.Meta, "ledger")
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		LedgerID string `json:"ledger_id"`
	}
	if err := json.Unmarshal(doc, &m); err != nil {
		t.Fatal(err)
	}
	return m.LedgerID
}

// restoreClaims comes last: the ledgers of the suite are of an ID that is gone then.
func (p *protocol) restoreClaims(t *testing.T) {
	p.restored(t) // ends the sessions of the cases before
	t.Run("RestoredLedgerIsAnother", func(t *testing.T) {
		before := p.identity(t)
		first, second := p.restored(t), p.restored(t)
		if first.Was != before || first.ID == before || second.Was != first.ID || second.ID == first.ID || p.identity(t) != second.ID {
			t.Errorf("it was %s; then %+v, %+v, and is %s", before, first, second, p.identity(t))
		}
		wantError(t, p.of(0).CheckID(p.ctx), ledger.ErrReplaced)
	})
	t.Run("SessionsOfThenAreOver", func(t *testing.T) {
		h := p.openSession(t)
		r := p.restored(t)
		if len(r.Sessions) != 1 || r.Sessions[0] != h.Name {
			t.Errorf("the sessions of %v were ended, want that of %s", r.Sessions, h.Name)
		}
		_, err := p.of(0).Renew(p.ctx, renewal(h))
		wantError(t, err, ledger.ErrSessionLost)
		next, err := p.of(0).OpenSession(p.ctx, freshHost(h.Name), false)
		if err != nil || next.Session.ID == h.Session.ID {
			t.Errorf("after it the host opens %+v, %v; want a session of its own", next, err)
		}
		p.restored(t)
	})
	t.Run("ClaimsOfThenAreVoidAtNoCost", p.voidClaims)
	t.Run("JobToBeKilledIsKilled", func(t *testing.T) {
		id := p.submit(t)
		j, h := p.claim(t, id, "a")
		p.start(t, h)
		if _, err := p.of(0).Kill(p.ctx, id, job.Kill{ID: uuid.NewString(), Who: "olga", Reason: "wrong data", At: protocolNow}); err != nil {
			t.Fatal(err)
		}
		r := p.restored(t)
		if len(r.Requeued) != 1 || r.Requeued[0].ID != j.ID || r.Requeued[0].State != job.Killed || r.Requeued[0].Reason != "wrong data" {
			t.Errorf("requeued: %+v, want %s killed", r.Requeued, j.ID)
		}
	})
	t.Run("GpuqdThatWorksWithItIsSeen", p.inUseClaims)
	t.Run("CutOffAnywhereItIsRepeated", p.cutOffClaims)
	t.Run("OtherSchemaIsRefused", func(t *testing.T) {
		set := func(schema int) {
			if _, err := p.store.Update(p.ctx, ledger.Meta, "ledger", nil, ledger.Update{Set: map[string]any{"schema": schema}}); err != nil {
				t.Fatal(err)
			}
		}
		before := p.identity(t)
		set(job.Schema + 1)
		_, err := p.restore(p.store, quiet)
		set(job.Schema)
		wantError(t, err, ledger.ErrUnfit)
		if p.identity(t) != before {
			t.Error("it was changed all the same")
		}
	})
	t.Run("StoreWithoutALedgerIsRefused", func(t *testing.T) {
		if err := p.store.Delete(p.ctx, ledger.Meta, "ledger"); err != nil {
			t.Fatal(err)
		}
		_, err := p.restore(p.store, quiet)
		wantError(t, err, ledger.ErrUnfit)
		if _, err := p.store.Get(p.ctx, ledger.Meta, "ledger"); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("it has an identity now: %v", err)
		}
	})
}

func (p *protocol) voidClaims(t *testing.T) {
	// Of the one two hosts were lost before its start: a third would be its end.
	claimed, running := p.submit(t), p.submit(t)
	for range job.LostMax - 1 {
		j, _ := p.claim(t, claimed, "a")
		if _, err := p.of(0).Takeover(p.ctx, j, "b", uuid.NewString(), protocolNow); err != nil {
			t.Fatal(err)
		}
	}
	before := map[job.ID]*job.Job{}
	holds := map[job.ID]ledger.Hold{}
	for _, id := range []job.ID{claimed, running} {
		before[id], holds[id] = p.claim(t, id, "a")
	}
	p.start(t, holds[running])
	if r := p.restored(t); len(r.Requeued) != 2 {
		t.Errorf("%d jobs were queued again, want 2", len(r.Requeued))
	}
	for id, hold := range holds {
		j, err := p.of(0).Job(p.ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if b := before[id]; j.State != job.Queued || j.Owner != nil || j.Failures != b.Failures || j.Requeues != b.Requeues || j.Lost != b.Lost {
			t.Errorf("job is %s, owner %v, failures %d, requeues %d, lost %d; before it had %d, %d, %d",
				j.State, j.Owner, j.Failures, j.Requeues, j.Lost, b.Failures, b.Requeues, b.Lost)
		}
		_, err = p.of(0).Start(p.ctx, hold, protocolNow)
		wantError(t, err, ledger.ErrNoMatch)
		_, err = p.of(0).Commit(p.ctx, hold, ledger.Commit{
			ID: "commit-" + hold.ClaimID, Verdict: job.Verdict{State: job.Succeeded}, Result: &job.Result{}, Now: protocolNow,
		})
		wantError(t, err, ledger.ErrNoMatch)
		if next, _ := p.claim(t, id, "b"); next.Fence <= hold.Fence {
			t.Errorf("the next claim has fence %d after %d", next.Fence, hold.Fence)
		}
	}
	p.restored(t)
}

func (p *protocol) inUseClaims(t *testing.T) {
	h := p.openSession(t)
	for _, sign := range []struct {
		name string
		make func() error
	}{
		{"renewal", func() error { _, err := p.of(0).Renew(p.ctx, renewal(h)); return err }},
		{"session of a new host", func() error {
			_, err := p.of(0).OpenSession(p.ctx, freshHost("host-"+uuid.NewString()), false)
			return err
		}},
		{"probe", func() error { return p.of(0).Probe(p.ctx, later(callTimeout)) }},
	} {
		before := p.identity(t)
		_, err := p.restore(p.store, sign.make)
		wantError(t, err, ledger.ErrInUse)
		p.wantSession(t, h.Name, h.Session.ID, ledger.Live)
		if p.identity(t) != before {
			t.Errorf("in spite of a %s it has another ID", sign.name)
		}
	}
	p.restored(t)
}

// cutOffClaims: whichever write is the last before a crash, the ledger has its old
// ID, and the next call does what is left.
func (p *protocol) cutOffClaims(t *testing.T) {
	for n := 0; ; n++ {
		h := p.openSession(t)
		id := p.submit(t)
		p.claim(t, id, "a")
		before := p.identity(t)
		_, err := p.restore(&cutOff{Store: p.store, writes: n}, quiet)
		if err != nil && p.identity(t) != before {
			t.Errorf("cut off after %d writes it has a new ID", n)
		}
		if err != nil {
			p.restored(t)
		}
		p.wantSession(t, h.Name, h.Session.ID, ledger.Expired)
		if j, jobErr := p.of(0).Job(p.ctx, id); jobErr != nil || j.State != job.Queued || p.identity(t) == before {
			t.Errorf("cut off after %d writes and repeated, the job is %+v, %v", n, j, jobErr)
		}
		if err == nil {
			if n < 3 {
				t.Errorf("it takes %d writes, want at least a session, a job and the ID", n)
			}
			return
		}
	}
}

// cutOff is a store that is out of reach after so many changes of documents.
type cutOff struct {
	ledger.Store
	writes int
}

var errCutOff = errors.New("cut off")

func (c *cutOff) Insert(ctx context.Context, in ledger.Collection, id string, doc json.RawMessage) error {
	if c.writes--; c.writes < 0 {
		return errCutOff
	}
	return c.Store.Insert(ctx, in, id, doc)
}

func (c *cutOff) Update(ctx context.Context, in ledger.Collection, id string, when []ledger.Cond, u ledger.Update) (json.RawMessage, error) {
	if c.writes--; c.writes < 0 {
		return nil, errCutOff
	}
	return c.Store.Update(ctx, in, id, when, u)
}
