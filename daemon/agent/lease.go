package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"gpuqd/daemon/ledger"
	"gpuqd/daemon/runner"

	"github.com/google/uuid"
)

// lease is this host's right to run its session's jobs. The deadline counts
// from before the renewal was requested, so a slow answer never stretches it.
type lease struct {
	clock Clock
	ttl   time.Duration

	mu       sync.Mutex
	session  string        // "" before the first
	seq      int64         // renew_seq as the ledger has it
	deadline time.Duration // on CLOCK_BOOTTIME
	renewed  time.Time     // the last success, for the watch
	asked    time.Duration // on CLOCK_BOOTTIME: the first request for the renewal after seq; 0 before it
	lost     bool          // the session is over, or about to be; no claim is made under it
	closed   bool          // this host released it, and has none until the next is opened
}

func (l *lease) open(session string, seq int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session, l.seq, l.lost, l.closed, l.deadline, l.asked = session, seq, false, false, 0, 0
}

// request notes that the next renewal is asked for, and returns when it was
// first: after an unknown outcome an earlier request may be the one that the
// others have seen, and they count from then.
func (l *lease) request() (first time.Duration) {
	now := l.clock.Boottime()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked == 0 {
		l.asked = now
	}
	return l.asked
}

func (l *lease) extend(seq int64, requested time.Duration, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq, l.deadline, l.renewed, l.asked = seq, requested+l.ttl, now, 0
}

func (l *lease) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = true
}

// regain takes lose back, where the session was not ended after all.
func (l *lease) regain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = false
}

func (l *lease) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost, l.closed = true, true
}

func (l *lease) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

func (l *lease) current() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session
}

func (l *lease) state() (session string, seq int64, deadline time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session, l.seq, l.deadline
}

func (l *lease) lastRenewal() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.renewed
}

// left returns the time until the deadline; negative past it.
func (l *lease) left() time.Duration {
	now := l.clock.Boottime()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.deadline - now
}

// hasMargin reports whether a claim made now can be started well within the
// lease: a fifth of it must be left.
func (l *lease) hasMargin() bool {
	l.mu.Lock()
	lost := l.lost
	l.mu.Unlock()
	return !lost && l.left() > l.ttl/5
}

// renewLoop renews the lease every renewal interval, and does between two
// renewals what the host's shutdown asks of the session: no two goroutines end,
// open or renew one.
func (a *Agent) renewLoop(ctx context.Context) error {
	for {
		tick := time.NewTimer(a.interval("renew", a.cfg.Lease.Renew.Std()))
		beat(ctx)
		switch {
		case !a.lease.isClosed():
			if err := a.renewTurn(ctx); err != nil {
				tick.Stop()
				return err
			}
		case a.parting.reason() == "":
			a.openAgain(ctx)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case ask := <-a.parting.asks:
			ask.answer(ctx)
		}
		tick.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// renewTurn renews the lease, and a renewal that failed soon again: a lease may
// have room for three of them only. An error is one that no waiting mends.
func (a *Agent) renewTurn(ctx context.Context) error {
	err := a.persist(ctx, "renew the lease", func(ctx context.Context) error {
		err := a.renewOnce(ctx)
		switch {
		case errors.Is(err, ledger.ErrSessionLost):
			return fatal{err}
		case errors.Is(err, errDeadlineFile):
			a.log.Error("shims cannot be told of the renewal; they freeze at the old deadline", "err", err)
		default:
			a.ledgerFailedIn(ctx, err)
		}
		return err
	})
	if errors.Is(err, ledger.ErrSessionLost) {
		err = a.persist(ctx, "open a new session", a.replaceLostSession)
	}
	if isFatal(err) {
		return err
	}
	return nil // or ended by ctx
}

// renewOnce renews the lease and tells the shims. Where it had to be asked for
// more than once, the lease counts from the first time, and is renewed again for
// its whole length.
func (a *Agent) renewOnce(ctx context.Context) error {
	now := a.clock.Boottime()
	requested, err := a.renewFrom(ctx)
	beat(ctx)
	if err == nil && requested < now {
		_, err = a.renewFrom(ctx)
	}
	return err
}

func (a *Agent) renewFrom(ctx context.Context) (requested time.Duration, err error) {
	session, seq, _ := a.lease.state()
	requested = a.lease.request()
	began := time.Now()
	host, err := a.renewals.Renew(ctx, ledger.Renewal{
		Host: a.host, Session: session, Seq: seq, Now: a.now(), TTL: a.cfg.Lease.TTL, Pools: a.cfg.Host.Pools,
		Devices: hostDevices(a.devices.Snapshot()), Version: a.version,
	})
	a.metrics.countRenewal(err, time.Since(began))
	if err != nil {
		return requested, err
	}
	a.lease.extend(host.Session.RenewSeq, requested, a.clock.Now())
	if !bugged(DrainUnread) {
		a.learnDrains(host)
	}
	err = a.writeDeadline(session, runner.SessionLive)
	if err == nil {
		a.lease.regain() // where its release was begun and called off
	}
	return requested, err
}

func (a *Agent) writeDeadline(session, state string) error {
	_, _, deadline := a.lease.state()
	err := a.runner.WriteDeadline(runner.Deadline{
		Session: session, BootID: a.identity.BootID, At: deadline, State: state,
	})
	if err != nil {
		a.metrics.renewalsFailed.WithLabelValues("deadline_file").Inc()
		return fmt.Errorf("%w: %w", errDeadlineFile, err)
	}
	return nil
}

// errDeadlineFile tells trouble with this host's disk from trouble with the
// ledger.
var errDeadlineFile = errors.New("the deadline file could not be written")

// replaceLostSession stops what ran under a session that is over, waits until
// nothing of it is left, and only then opens a new one: attempts of one job
// must not overlap.
func (a *Agent) replaceLostSession(ctx context.Context) error {
	session := a.lease.current()
	a.lease.lose()
	a.metrics.sessionsLost.Inc()
	a.log.Warn("session is over; stopping its attempts", "session", session, "attempts", a.runs.len())
	if err := a.writeDeadline(session, runner.SessionExpired); err != nil {
		return err
	}
	if err := a.endRuns(ctx); err != nil {
		return err
	}
	if err := a.renewals.CheckID(ctx); err != nil {
		return replacedIsFatal(err)
	}
	return a.openSession(ctx, false)
}

// replacedIsFatal ends a daemon whose ledger was restored under it: the done-cache
// that it asks is that of the ledger before. The next start asks another, and
// settles what this one leaves.
func replacedIsFatal(err error) error {
	if errors.Is(err, ledger.ErrReplaced) {
		return fatal{fmt.Errorf("%w; gpuqd has to start anew", err)}
	}
	return err
}

// endRuns stops whatever runs under an earlier session, and waits until nothing is
// left of it.
func (a *Agent) endRuns(ctx context.Context) error {
	for _, r := range a.runs.all() {
		r.stop(runner.Stop{Reason: runner.StopSessionExpired, Detail: "the host's lease had ended", Grace: -1})
	}
	return a.runs.waitEmpty(ctx)
}

// carryOn goes on with the live session that an earlier daemon opened in this
// boot. It is renewed before anything else: should it have expired meanwhile,
// its attempts have to go first.
func (a *Agent) carryOn(ctx context.Context, s ledger.Session) error {
	if s.TTL > a.cfg.Lease.TTL {
		if err := a.shortenDeadline(s.ID); err != nil {
			return err
		}
	}
	a.lease.open(s.ID, s.RenewSeq)
	err := a.renewOnce(ctx)
	if errors.Is(err, ledger.ErrSessionLost) {
		return a.replaceLostSession(ctx)
	}
	if err == nil {
		a.log.Info("session carried on", "session", s.ID)
	}
	return err
}

// openSession opens a session and renews it at once. One of its own that an
// earlier call has opened, without knowing it, is as good.
func (a *Agent) openSession(ctx context.Context, replace bool) error {
	now := a.now()
	want := &ledger.Host{
		Name: a.host, InstallID: a.identity.InstallID, MachineID: a.identity.MachineID, BootID: a.identity.BootID,
		Session: ledger.Session{
			ID: uuid.NewString(), State: ledger.Live, RenewSeq: 1,
			TTL: a.cfg.Lease.TTL, OpenedAt: now, RenewedAt: now,
		},
		Pools: a.cfg.Host.Pools, Devices: hostDevices(a.devices.Snapshot()), Version: a.version,
	}
	got, err := a.renewals.OpenSession(ctx, want, replace)
	if errors.Is(err, ledger.ErrForeign) {
		return a.foreign(got)
	}
	if err != nil {
		return err
	}
	a.lease.open(got.Session.ID, got.Session.RenewSeq)
	a.log.Info("session open", "session", got.Session.ID)
	if err := a.renewOnce(ctx); err != nil {
		return err
	}
	a.runner.DropDeadlines(got.Session.ID)
	return nil
}

// shortenDeadline brings the shims' deadline within the lease that the next
// renewal announces, before it does: others then count by the shorter one.
func (a *Agent) shortenDeadline(session string) error {
	d, err := a.runner.ReadDeadline(session)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, runner.ErrDamaged) {
		return nil // nobody runs by it
	}
	if err != nil {
		return err
	}
	d.At = min(d.At, a.clock.Boottime()+a.cfg.Lease.TTL.Std())
	return a.runner.WriteDeadline(d)
}

// foreign says that another installation lives under this host's name.
func (a *Agent) foreign(h *ledger.Host) error {
	return fmt.Errorf("%w: %s is in use by install %s on machine %s (session %s); give this host another host.name, or wait until that session has expired",
		ledger.ErrForeign, a.host, h.InstallID, h.MachineID, h.Session.ID)
}
