package ledgertest

import (
	"fmt"
	"testing"
	"time"

	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

func drain() *ledger.Drain {
	return &ledger.Drain{
		ID: uuid.NewString(), Who: "bob", Reason: "row remap pending", At: protocolNow, Mode: "requeue", Deadline: later(time.Hour),
	}
}

func (p *protocol) setDrain(t *testing.T, host, device string, d *ledger.Drain) *ledger.Host {
	t.Helper()
	h, changed, err := p.of(0).SetDrain(p.ctx, host, device, d)
	if err != nil || !changed {
		t.Fatalf("set the drain of %q: changed %v, %v", device, changed, err)
	}
	return h
}

func (p *protocol) host(t *testing.T, name string) *ledger.Host {
	t.Helper()
	h, err := p.of(1).Host(p.ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// wantDrains checks what is drained: the host, and devices of it.
func wantDrains(t *testing.T, h *ledger.Host, host *ledger.Drain, devices map[string]*ledger.Drain) {
	t.Helper()
	if (h.Drain == nil) != (host == nil) || host != nil && *h.Drain != *host {
		t.Errorf("the host's drain is %+v, want %+v", h.Drain, host)
	}
	if len(h.DeviceDrains) != len(devices) {
		t.Errorf("%d devices are drained, want %d", len(h.DeviceDrains), len(devices))
	}
	for device, want := range devices {
		if got := h.DrainOf(device); got == nil || *got != *want {
			t.Errorf("the drain of %s is %+v, want %+v", device, got, want)
		}
	}
}

func (p *protocol) drainClaims(t *testing.T) {
	t.Run("OfHostAndDevicesStandApart", func(t *testing.T) {
		name := p.openSession(t).Name
		whole, one, two := drain(), drain(), drain()
		p.setDrain(t, name, "GPU-2", two)
		p.setDrain(t, name, "", whole)
		wantDrains(t, p.setDrain(t, name, "GPU-1", one), whole, map[string]*ledger.Drain{"GPU-1": one, "GPU-2": two})
		p.setDrain(t, name, "", nil)
		p.setDrain(t, name, "GPU-2", nil)
		wantDrains(t, p.host(t, name), nil, map[string]*ledger.Drain{"GPU-1": one})
		p.setDrain(t, name, "GPU-1", nil)
		wantDrains(t, p.host(t, name), nil, nil)
	})
	t.Run("TheNewOneReplacesTheOld", func(t *testing.T) {
		name := p.openSession(t).Name
		for _, device := range []string{"", "GPU-1"} {
			p.setDrain(t, name, device, drain())
			again := drain()
			if got := p.setDrain(t, name, device, again).DrainOf(device); *got != *again {
				t.Errorf("the drain of %q is %+v, want the later one", device, got)
			}
		}
	})
	t.Run("RepeatedOneIsRecognised", func(t *testing.T) {
		name := p.openSession(t).Name
		d := drain()
		for range 2 {
			if h := p.setDrain(t, name, "GPU-1", d); h.DrainSeq != 1 {
				t.Errorf("%d changes, want 1", h.DrainSeq)
			}
		}
	})
	t.Run("ResumeOfWhatNobodyDrainedChangesNothing", func(t *testing.T) {
		name := p.openSession(t).Name
		p.setDrain(t, name, "GPU-1", drain())
		for _, device := range []string{"", "GPU-2"} {
			h, changed, err := p.of(0).SetDrain(p.ctx, name, device, nil)
			if err != nil || changed || h.DrainSeq != 1 {
				t.Errorf("resume of %q: changed %v, %v", device, changed, err)
			}
		}
	})
	t.Run("OfAHostThatNobodyKnowsIsNotFound", func(t *testing.T) {
		for _, d := range []*ledger.Drain{drain(), nil} {
			_, _, err := p.of(0).SetDrain(p.ctx, "host-"+uuid.NewString(), "", d)
			wantError(t, err, ledger.ErrNotFound)
		}
	})
	t.Run("RacersOnDifferentDevicesAllStay", func(t *testing.T) {
		const many = 4 // fewer than the tries of each
		name := p.openSession(t).Name
		want := map[string]*ledger.Drain{}
		for i := range many {
			want[fmt.Sprint("GPU-", i)] = drain()
		}
		for _, err := range race(many, func(i int) error {
			device := fmt.Sprint("GPU-", i)
			_, _, err := p.of(i).SetDrain(p.ctx, name, device, want[device])
			return err
		}) {
			wantError(t, err, nil)
		}
		wantDrains(t, p.host(t, name), nil, want)
	})
	t.Run("RacingRenewalsNeitherIsLost", func(t *testing.T) {
		h := p.openSession(t)
		d := drain()
		renewErr, drainErr := both(
			func() (err error) {
				for range duelRounds {
					if h, err = p.of(0).Renew(p.ctx, renewal(h)); err != nil {
						return err
					}
				}
				return nil
			},
			func() error { _, _, err := p.of(1).SetDrain(p.ctx, h.Name, "", d); return err },
		)
		wantError(t, renewErr, nil)
		wantError(t, drainErr, nil)
		now := p.host(t, h.Name)
		wantDrains(t, now, d, nil)
		if now.Session.RenewSeq != 1+duelRounds {
			t.Errorf("%d renewals are left of %d", now.Session.RenewSeq-1, duelRounds)
		}
	})
	t.Run("OutlivesSessionsRestartsAndBoots", p.lastingDrain)
}

// lastingDrain takes a drained host through all that renews or replaces a session.
func (p *protocol) lastingDrain(t *testing.T) {
	h := p.openSession(t)
	whole, one := drain(), drain()
	p.setDrain(t, h.Name, "", whole)
	p.setDrain(t, h.Name, "GPU-1", one)
	check := func(when string) {
		t.Helper()
		now := p.host(t, h.Name)
		wantDrains(t, now, whole, map[string]*ledger.Drain{"GPU-1": one})
		if t.Failed() {
			t.Fatalf("the drains were lost %s", when)
		}
		h = now
	}
	if _, err := p.of(0).Renew(p.ctx, renewal(h)); err != nil {
		t.Fatal(err)
	}
	check("by a renewal")
	if _, err := p.of(0).OpenSession(p.ctx, freshHost(h.Name), false); err != nil {
		t.Fatal(err)
	}
	check("by a restart")
	rebooted := freshHost(h.Name)
	rebooted.BootID = "boot-2"
	if _, err := p.of(0).OpenSession(p.ctx, rebooted, true); err != nil {
		t.Fatal(err)
	}
	check("by a boot")
	if err := p.expire(h, 1); err != nil {
		t.Fatal(err)
	}
	check("by an expiry")
	other := freshHost(h.Name)
	other.InstallID, other.MachineID = "other", "other"
	if _, err := p.of(0).OpenSession(p.ctx, other, false); err != nil {
		t.Fatal(err)
	}
	check("by a new installation")
}
