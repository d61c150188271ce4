package ledgertest

import (
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

// freshHost returns a host with a session to open.
func freshHost(name string) *ledger.Host {
	return &ledger.Host{
		Name: name, InstallID: "install", MachineID: "machine", BootID: "boot-1", Pools: []string{"default"}, Devices: []ledger.HostDevice{},
		Session: ledger.Session{ID: uuid.NewString(), State: ledger.Live, RenewSeq: 1, TTL: job.Duration(time.Minute), OpenedAt: protocolNow},
	}
}

func (p *protocol) openSession(t *testing.T) *ledger.Host {
	t.Helper()
	h, err := p.of(0).OpenSession(p.ctx, freshHost("host-"+uuid.NewString()), false)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func renewal(h *ledger.Host) ledger.Renewal {
	return ledger.Renewal{Host: h.Name, Session: h.Session.ID, Seq: h.Session.RenewSeq, Now: protocolNow, Devices: []ledger.HostDevice{}}
}

func (p *protocol) expire(h *ledger.Host, i int) error {
	return p.of(i).EndSession(p.ctx, h.Name, h.Session.ID, h.Session.RenewSeq, ledger.Expired, "another")
}

func (p *protocol) wantSession(t *testing.T, host, session string, state ledger.SessionState) {
	t.Helper()
	h, err := p.of(1).Host(p.ctx, host)
	if err != nil {
		t.Fatal(err)
	}
	if h.Session.ID != session || h.Session.State != state {
		t.Fatalf("the session is %s, %s; want %s, %s", h.Session.ID, h.Session.State, session, state)
	}
}

func (p *protocol) sessionClaims(t *testing.T) {
	t.Run("RenewRacingExpiryExactlyOneWins", func(t *testing.T) {
		for range duelRounds {
			h := p.openSession(t)
			renewErr, expireErr := both(
				func() error { _, err := p.of(0).Renew(p.ctx, renewal(h)); return err },
				func() error { return p.expire(h, 1) },
			)
			exactlyOne(t, renewErr, expireErr, ledger.ErrNoMatch, ledger.ErrSessionLost)
			want := ledger.Live
			if expireErr == nil {
				want = ledger.Expired
			}
			p.wantSession(t, h.Name, h.Session.ID, want)
		}
	})
	t.Run("OfRacersOneExpires", func(t *testing.T) {
		h := p.openSession(t)
		if won := wins(t, race(racers, func(i int) error { return p.expire(h, i) }), ledger.ErrNoMatch); won != 1 {
			t.Fatalf("%d of %d expired it", won, racers)
		}
	})
	t.Run("RepeatedRenewalIsRecognised", func(t *testing.T) {
		h := p.openSession(t)
		for range 2 {
			now, err := p.of(0).Renew(p.ctx, renewal(h))
			if err != nil || now.Session.RenewSeq != h.Session.RenewSeq+1 {
				t.Fatalf("renew: %v", err)
			}
		}
	})
	for _, over := range []ledger.SessionState{ledger.Expired, ledger.Closed} {
		t.Run("OnceOverIsNeverRenewed/"+string(over), func(t *testing.T) {
			h := p.openSession(t)
			if err := p.of(1).EndSession(p.ctx, h.Name, h.Session.ID, h.Session.RenewSeq, over, "another"); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				_, err := p.of(0).Renew(p.ctx, renewal(h))
				wantError(t, err, ledger.ErrSessionLost)
			}
			p.wantSession(t, h.Name, h.Session.ID, over)
		})
	}
	t.Run("HostClosesItsOwn", func(t *testing.T) {
		h := p.openSession(t)
		for range 2 { // the second after an unknown outcome
			wantError(t, p.of(0).CloseSession(p.ctx, h.Name, h.Session.ID, h.Session.RenewSeq), nil)
			p.wantSession(t, h.Name, h.Session.ID, ledger.Closed)
		}
		h = p.openSession(t)
		if _, err := p.of(0).Renew(p.ctx, renewal(h)); err != nil { // and its answer was lost
			t.Fatal(err)
		}
		wantError(t, p.of(0).CloseSession(p.ctx, h.Name, h.Session.ID, h.Session.RenewSeq), nil)
		p.wantSession(t, h.Name, h.Session.ID, ledger.Closed)
		h = p.openSession(t)
		if err := p.expire(h, 1); err != nil {
			t.Fatal(err)
		}
		wantError(t, p.of(0).CloseSession(p.ctx, h.Name, h.Session.ID, h.Session.RenewSeq), nil)
		p.wantSession(t, h.Name, h.Session.ID, ledger.Expired) // others may have acted on it
	})
	t.Run("OnceOverIsNeverOpenedAgain", func(t *testing.T) {
		h := p.openSession(t)
		if err := p.expire(h, 1); err != nil {
			t.Fatal(err)
		}
		_, err := p.of(0).OpenSession(p.ctx, h, true) // repeated late, after an unknown outcome
		wantError(t, err, ledger.ErrSessionLost)
		p.wantSession(t, h.Name, h.Session.ID, ledger.Expired)
	})
	t.Run("OfRacersOneReplacesAnOverOne", func(t *testing.T) {
		h := p.openSession(t)
		if err := p.expire(h, 0); err != nil {
			t.Fatal(err)
		}
		docs := make([]*ledger.Host, racers)
		errs := race(racers, func(i int) (err error) {
			docs[i], err = p.of(i).OpenSession(p.ctx, freshHost(h.Name), false)
			return err
		})
		wins(t, errs, ledger.ErrSessionLost) // a racer that comes later carries the winner's on
		now, err := p.of(0).Host(p.ctx, h.Name)
		if err != nil {
			t.Fatal(err)
		}
		for i, doc := range docs {
			if errs[i] == nil && doc.Session.ID != now.Session.ID {
				t.Errorf("a racer holds the session %s, the host has %s", doc.Session.ID, now.Session.ID)
			}
		}
		if now.Session.ID == h.Session.ID || now.Session.State != ledger.Live {
			t.Errorf("the host has the session %s, %s", now.Session.ID, now.Session.State)
		}
	})
	t.Run("SameBootCarriesTheSessionOn", func(t *testing.T) {
		h := p.openSession(t)
		again, err := p.of(1).OpenSession(p.ctx, freshHost(h.Name), false)
		wantError(t, err, nil)
		if again.Session.ID != h.Session.ID {
			t.Error("the restart opened a session of its own")
		}
	})
	t.Run("AnotherInstallationIsForeign", func(t *testing.T) {
		h := p.openSession(t)
		for _, change := range []func(*ledger.Host){
			func(h *ledger.Host) { h.InstallID = "other" },
			func(h *ledger.Host) { h.MachineID = "other" },
		} {
			other := freshHost(h.Name)
			change(other)
			_, err := p.of(1).OpenSession(p.ctx, other, true)
			wantError(t, err, ledger.ErrForeign)
		}
		p.wantSession(t, h.Name, h.Session.ID, ledger.Live)
	})
	t.Run("NewBootReplacesOnlyWhenTold", func(t *testing.T) {
		h := p.openSession(t)
		next := freshHost(h.Name)
		next.BootID = "boot-2"
		_, err := p.of(1).OpenSession(p.ctx, next, false)
		wantError(t, err, ledger.ErrRebooted)
		p.wantSession(t, h.Name, h.Session.ID, ledger.Live)
		if _, err := p.of(1).OpenSession(p.ctx, next, true); err != nil {
			t.Fatal(err)
		}
		p.wantSession(t, h.Name, next.Session.ID, ledger.Live)
		_, err = p.of(0).Renew(p.ctx, renewal(h))
		wantError(t, err, ledger.ErrSessionLost)
	})
}
