package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/ledger/sqlite"
	"gpuqd/daemon/runner"
)

// handClock is a Clock that stands still until it is moved.
type handClock struct {
	mu   sync.Mutex
	wall time.Time
	boot time.Duration
}

func newHandClock() *handClock { return &handClock{wall: zeroHour, boot: time.Hour} }

func (c *handClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall
}

func (c *handClock) Boottime() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.boot
}

func (c *handClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.boot = c.wall.Add(d), c.boot+d
}

// jump sets the wall clock alone, as an operator or NTP does.
func (c *handClock) jump(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = c.wall.Add(d)
}

const leaseTTL = time.Minute

func openLease(c Clock) *lease {
	l := &lease{clock: c, ttl: leaseTTL}
	l.open("s1", 1)
	l.extend(2, c.Boottime(), c.Now())
	return l
}

func TestLease(t *testing.T) {
	t.Run("FreshOneGivesNoRight", func(t *testing.T) {
		l := &lease{clock: newHandClock(), ttl: leaseTTL}
		if l.hasMargin() || l.left() > 0 || l.current() != "" || !l.lastRenewal().IsZero() {
			t.Errorf("before any session: %s left", l.left())
		}
		l.open("s1", 1)
		if l.hasMargin() || l.left() > 0 {
			t.Errorf("an opened session that was not renewed: %s left", l.left())
		}
	})
	t.Run("DeadlineCountsFromTheRequest", func(t *testing.T) {
		c := newHandClock()
		l := openLease(c)
		requested := c.Boottime()
		c.pass(25 * time.Second) // the answer takes its time
		l.extend(3, requested, c.Now())
		if got := l.left(); got != leaseTTL-25*time.Second {
			t.Errorf("%s left after a renewal that took 25 s of %s", got, leaseTTL)
		}
		if session, seq, deadline := l.state(); session != "s1" || seq != 3 || deadline != requested+leaseTTL {
			t.Errorf("session %s, seq %d, deadline %s", session, seq, deadline)
		}
	})
	t.Run("RenewalSlowerThanTheLeaseGivesNoRight", func(t *testing.T) {
		c := newHandClock()
		l := openLease(c)
		requested := c.Boottime()
		c.pass(leaseTTL + time.Second)
		l.extend(3, requested, c.Now())
		if l.hasMargin() || l.left() != -time.Second {
			t.Errorf("%s left", l.left())
		}
	})
	t.Run("MarginIsAFifth", func(t *testing.T) {
		c := newHandClock()
		l := openLease(c)
		c.pass(leaseTTL*4/5 - 1)
		if !l.hasMargin() {
			t.Errorf("no margin with %s left", l.left())
		}
		c.pass(1)
		if l.hasMargin() {
			t.Errorf("margin with %s left", l.left())
		}
		l.extend(3, c.Boottime(), c.Now())
		if !l.hasMargin() {
			t.Error("no margin after a renewal")
		}
	})
	t.Run("WallClockDoesNotCount", func(t *testing.T) {
		c := newHandClock()
		l := openLease(c)
		for _, d := range []time.Duration{48 * time.Hour, -96 * time.Hour} {
			c.jump(d)
			if !l.hasMargin() || l.left() != leaseTTL {
				t.Errorf("%s left after the wall clock jumped by %s", l.left(), d)
			}
		}
	})
	t.Run("LostOneHasNoMarginUntilTheNextSession", func(t *testing.T) {
		c := newHandClock()
		l := openLease(c)
		l.lose()
		if l.hasMargin() {
			t.Error("margin on a lost session")
		}
		l.extend(3, c.Boottime(), c.Now())
		if l.hasMargin() {
			t.Error("a late renewal revives a lost session")
		}
		l.open("s2", 1)
		if l.hasMargin() {
			t.Error("margin before the new session's first renewal")
		}
		l.extend(2, c.Boottime(), c.Now())
		if !l.hasMargin() || l.current() != "s2" {
			t.Errorf("session %s, %s left", l.current(), l.left())
		}
	})
}

// slowStore is a real store in front of which time passes: the way to it, and
// the way back, take their time on the host's clock.
type slowStore struct {
	ledger.Store
	clock      *handClock
	there, way time.Duration
	cut        error        // returned after the write, as when the answer is lost
	gets       atomic.Int64 // single documents asked for
}

func (s *slowStore) Get(ctx context.Context, c ledger.Collection, id string) (json.RawMessage, error) {
	s.gets.Add(1)
	return s.Store.Get(ctx, c, id)
}

func (s *slowStore) Update(ctx context.Context, c ledger.Collection, id string, when []ledger.Cond, u ledger.Update) (json.RawMessage, error) {
	s.clock.pass(s.there)
	doc, err := s.Store.Update(ctx, c, id, when, u)
	s.clock.pass(s.way)
	if s.cut != nil {
		return nil, s.cut
	}
	return doc, err
}

// leaseBench is an agent with all that its lease needs: a real ledger and a
// journal on disk, and a clock in the test's hand.
type leaseBench struct {
	*Agent
	clock   *handClock
	store   *slowStore
	journal *runner.Journal
}

func newLeaseBench(t *testing.T) *leaseBench {
	t.Helper()
	clock := newHandClock()
	file, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "ledger.db")})
	if err != nil {
		t.Fatal(err)
	}
	store := &slowStore{Store: file, clock: clock}
	l, err := ledger.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	journal, err := runner.OpenJournal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := journal.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := config.Default()
	cfg.Host.Name = "a"
	cfg.Lease.TTL = job.Duration(leaseTTL)
	a := New(Options{
		Config: cfg, Identity: Identity{InstallID: "i", MachineID: "m", BootID: "b"}, Clock: clock,
		Devices: device.New("a", &device.Simulated{}, nil), Runner: Disk{Journal: journal},
	})
	a.ledger, a.renewals = l, l
	return &leaseBench{Agent: a, clock: clock, store: store, journal: journal}
}

// onDisk returns the deadline that the session's shims obey.
func (b *leaseBench) onDisk(t *testing.T) runner.Deadline {
	t.Helper()
	d, err := runner.ReadDeadline(b.journal.DeadlinePath(b.lease.current()))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestRenewal defends, against a real ledger: a slow success never stretches the
// lease, and the shims are told the same deadline as the daemon goes by.
func TestRenewal(t *testing.T) {
	t.Run("SlowRenewalDoesNotExtendTheDeadline", func(t *testing.T) {
		b := newLeaseBench(t)
		if err := b.openSession(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		requested := b.clock.Boottime()
		b.store.there, b.store.way = 10*time.Second, 15*time.Second
		if err := b.renewOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := b.lease.left(); got != leaseTTL-25*time.Second {
			t.Errorf("%s left after a renewal of 25 s", got)
		}
		want := runner.Deadline{Session: b.lease.current(), BootID: "b", At: requested + leaseTTL, State: runner.SessionLive}
		if got := b.onDisk(t); got != want {
			t.Errorf("shims read %+v, want %+v", got, want)
		}
	})
	t.Run("LostAnswerIsRecognisedAndNotCountedAgain", func(t *testing.T) {
		b := newLeaseBench(t)
		if err := b.openSession(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		_, before, _ := b.lease.state()
		b.store.cut = errors.New("connection reset")
		if err := b.renewOnce(t.Context()); err != nil {
			t.Fatal(err) // the document tells that the write was applied
		}
		b.store.cut = nil
		if err := b.renewOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, seq, _ := b.lease.state(); seq != before+2 {
			t.Errorf("renew_seq went from %d to %d in two renewals", before, seq)
		}
	})
	t.Run("FailedRenewalLeavesTheDeadline", func(t *testing.T) {
		b := newLeaseBench(t)
		if err := b.openSession(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		want := b.onDisk(t)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		b.clock.pass(20 * time.Second)
		if err := b.renewOnce(ended); err == nil || errors.Is(err, ledger.ErrSessionLost) {
			t.Fatalf("a renewal that never reached the ledger: %v", err)
		}
		if got := b.onDisk(t); got != want || b.lease.left() != leaseTTL-20*time.Second {
			t.Errorf("shims read %+v, want %+v; %s left", got, want, b.lease.left())
		}
	})
	t.Run("EarlierInstallationsSessionIsExpiredByItsSuccessor", func(t *testing.T) {
		b := newLeaseBench(t)
		if err := b.openSession(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		old := b.lease.current()
		next := New(Options{
			Config: b.cfg, Identity: Identity{InstallID: "i2", MachineID: "m", BootID: "b"}, Clock: b.clock,
			Devices: b.devices, Runner: Disk{Journal: b.journal},
		})
		next.ledger, next.renewals = b.ledger, b.renewals
		step := leaseTTL / 4
		refused := func() bool { return errors.Is(next.reconcile(t.Context()), ledger.ErrForeign) }
		if !refused() {
			t.Fatal("it starts beside a live session of another installation")
		}
		b.clock.pass(step)
		if err := b.renewOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		for waited := time.Duration(0); waited <= leaseTTL; waited += step { // it lives: that was one renewal
			if !refused() {
				t.Fatalf("it starts %s after the renewal", waited)
			}
			b.clock.pass(step)
		}
		for range 3 {
			if !refused() {
				break
			}
			b.clock.pass(step)
		}
		if now := next.lease.current(); now == "" || now == old {
			t.Errorf("long after the last renewal its session is %q, the earlier one's was %q", now, old)
		}
	})
	t.Run("ExpiredSessionIsReplacedAndItsShimsAreTold", func(t *testing.T) {
		b := newLeaseBench(t)
		if err := b.openSession(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		old, seq, _ := b.lease.state()
		if err := b.renewals.EndSession(t.Context(), "a", old, seq, ledger.Expired, "c"); err != nil {
			t.Fatal(err)
		}
		if err := b.renewOnce(t.Context()); !errors.Is(err, ledger.ErrSessionLost) {
			t.Fatalf("%v, want ErrSessionLost", err)
		}
		if err := b.replaceLostSession(t.Context()); err != nil {
			t.Fatal(err)
		}
		if b.lease.current() == old || !b.lease.hasMargin() {
			t.Errorf("session %s, %s left", b.lease.current(), b.lease.left())
		}
		// Nothing of the old session is left, so its file may be gone, too.
		d, err := runner.ReadDeadline(b.journal.DeadlinePath(old))
		if err == nil && d.State != runner.SessionExpired || err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a late shim of the old session reads %+v, %v", d, err)
		}
	})
	t.Run("LedgerThatHasGoneBackIsNamed", func(t *testing.T) {
		b := newLeaseBench(t)
		if err := b.openSession(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		_, err := b.store.Update(t.Context(), ledger.Hosts, "a", nil, ledger.Update{Set: map[string]any{"session.renew_seq": 1}})
		if err != nil {
			t.Fatal(err)
		}
		err = b.renewOnce(t.Context())
		if err == nil || errors.Is(err, ledger.ErrSessionLost) || !strings.Contains(err.Error(), "gpuqd --ledger-restored") {
			t.Errorf("%v, want what to do", err)
		}
	})
	t.Run("NoneIsOpenedInALedgerThatIsAnother", func(t *testing.T) {
		b := newLeaseBench(t)
		if err := b.openSession(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		old := b.lease.current()
		_, err := ledger.Restore(t.Context(), b.store, ledger.Restoration{
			Now: b.now, Watch: func(context.Context) error { return nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.renewTurn(t.Context()); !errors.Is(err, ledger.ErrReplaced) || !isFatal(err) {
			t.Errorf("%v, want ErrReplaced, for good", err)
		}
		h, err := b.renewals.Host(t.Context(), "a")
		if err != nil || h.Session.ID != old || h.Session.State != ledger.Expired {
			t.Errorf("the host's session is %+v, %v; want %s, expired", h, err, old)
		}
		if d, err := runner.ReadDeadline(b.journal.DeadlinePath(old)); err != nil || d.State != runner.SessionExpired {
			t.Errorf("its shims read %+v, %v", d, err)
		}
	})
	t.Run("NewSessionWaitsForTheOldOnesAttempts", func(t *testing.T) {
		b := newLeaseBench(t)
		if err := b.openSession(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		old, seq, _ := b.lease.state()
		if err := b.renewals.EndSession(t.Context(), "a", old, seq, ledger.Expired, "c"); err != nil {
			t.Fatal(err)
		}
		r := bareRun("claim-1", job.NewID())
		r.a = b.Agent
		b.runs.add(r)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		asked := b.store.gets.Load()
		if err := b.replaceLostSession(ended); !errors.Is(err, context.Canceled) {
			t.Fatalf("%v, want to wait until the context ends", err)
		}
		if n := b.store.gets.Load() - asked; n != 0 {
			t.Errorf("the ledger was asked %d times before the attempt was gone", n)
		}
		if b.lease.current() != old || b.lease.hasMargin() {
			t.Error("a session was opened over attempts of the old one")
		}
		if r.stopWish == nil || r.stopWish.Reason != runner.StopSessionExpired {
			t.Errorf("the attempt was asked to stop as %+v", r.stopWish)
		}
		b.runs.remove(r)
		if err := b.replaceLostSession(t.Context()); err != nil || b.lease.current() == old {
			t.Errorf("session %s, %v", b.lease.current(), err)
		}
	})
	t.Run("RestartCarriesTheSessionOn", func(t *testing.T) {
		b := newLeaseBench(t)
		if err := b.openSession(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		session, before, _ := b.lease.state()
		if err := b.openSession(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if again, seq, _ := b.lease.state(); again != session || seq != before+1 {
			t.Errorf("session %s at %d became %s at %d", session, before, again, seq)
		}
	})
}

// TestCarriedOnSessionKeepsItsTTLInStep: other hosts go by the TTL in the
// ledger, this one by its own; they must not differ.
func TestCarriedOnSessionKeepsItsTTLInStep(t *testing.T) {
	b := newLeaseBench(t)
	if err := b.openSession(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	// The operator lengthens the lease and restarts gpuqd.
	b.cfg.Lease.TTL = job.Duration(5 * leaseTTL)
	b.lease.ttl = 5 * leaseTTL
	if err := b.openSession(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	h, err := b.renewals.Host(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if watched := h.Session.TTL.Std() + (config.Lease{TTL: h.Session.TTL}).Grace(); b.lease.left() > watched {
		t.Errorf("its attempts run on for %s, the others take them over after %s", b.lease.left(), watched)
	}
}
