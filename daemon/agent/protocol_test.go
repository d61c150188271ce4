package agent

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/proctree"

	"github.com/prometheus/client_golang/prometheus"
)

// awayStore is a real store whose answers can be lost: for a while, of writes
// (which are applied all the same) and of reads.
type awayStore struct {
	ledger.Store
	lost bool
}

var errAway = errors.New("connection reset")

func (s *awayStore) Update(ctx context.Context, c ledger.Collection, id string, when []ledger.Cond, u ledger.Update) (json.RawMessage, error) {
	doc, err := s.Store.Update(ctx, c, id, when, u)
	if s.lost {
		return nil, errAway
	}
	return doc, err
}

func (s *awayStore) Get(ctx context.Context, c ledger.Collection, id string) (json.RawMessage, error) {
	if s.lost {
		return nil, errAway
	}
	return s.Store.Get(ctx, c, id)
}

// away puts an awayStore before the bench's ledger.
func (b *leaseBench) away(t *testing.T) *awayStore {
	t.Helper()
	store := &awayStore{Store: b.store}
	l, err := ledger.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	b.ledger, b.renewals = l, l
	return store
}

// TestRenewalRecognisedLaterCountsFromItsOwnRequest: the other hosts count from
// the moment the renewal was applied, so the host must not count from the later
// call that found it.
func TestRenewalRecognisedLaterCountsFromItsOwnRequest(t *testing.T) {
	b := newLeaseBench(t)
	store := b.away(t)
	if err := b.openSession(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	store.lost = true // applied, but neither the answer nor the read comes through
	if err := b.renewOnce(t.Context()); err == nil {
		t.Fatal("no answer came, and the renewal succeeded")
	}
	host := func() int64 {
		store.lost = false
		h, err := b.renewals.Host(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		return h.Session.RenewSeq
	}
	before := host()
	b.clock.pass(40 * time.Second)
	if err := b.renewOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := host(); after == before && b.lease.left() > leaseTTL-40*time.Second {
		t.Errorf("renew_seq has stood at %d for 40 s, and the host believes in %s more of a lease of %s",
			after, b.lease.left(), leaseTTL)
	}
}

// muteBroker takes no message; nothing here depends on it.
type muteBroker struct{ Broker }

func (muteBroker) Publish(context.Context, broker.Message) error { return broker.ErrUnreachable }
func (muteBroker) PauseSubmit()                                  {}

// heldAttempt is a job that the session holds, whose attempt runs: its lock is
// held and a process stands for its shim.
func heldAttempt(t *testing.T, b *leaseBench) (*job.Job, *runner.Attempt) {
	t.Helper()
	spec := job.DefaultSpec()
	spec.Command = []string{"true"}
	j, _, err := b.ledger.Submit(t.Context(), job.New(job.NewID(), "u", spec, b.now()))
	if err != nil {
		t.Fatal(err)
	}
	j, err = b.ledger.Claim(t.Context(), ledger.Claim{
		JobID: j.ID, Host: "a", Session: b.lease.current(), ClaimID: "claim-1", Now: b.now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	attempt, err := b.journal.Begin(runner.Intent{
		JobID: j.ID, Attempt: j.Attempt, Fence: j.Fence, ClaimID: "claim-1", Session: b.lease.current(), Host: "a",
		Command: spec.Command, DeadlineFile: b.journal.DeadlinePath(b.lease.current()), Spec: journalled(j),
	})
	if err != nil {
		t.Fatal(err)
	}
	lock, err := attempt.Lock()
	if err != nil {
		t.Fatal(err)
	}
	shim := exec.Command("sleep", "600")
	if err := shim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shim.Process.Kill(); _ = shim.Wait(); _ = lock.Close() })
	stat, err := proctree.ReadStat(shim.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := proctree.BootID()
	if err != nil {
		t.Fatal(err)
	}
	err = attempt.WriteStarted(runner.Started{
		PID: shim.Process.Pid, StartTicks: stat.Ticks, ShimPID: shim.Process.Pid, ShimTicks: stat.Ticks, BootID: boot, Time: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return j, attempt
}

// runFor gives the agent's goroutines a context, and waits for them at the end.
func runFor(t *testing.T, b *leaseBench) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() { cancel(); b.work.Wait() })
	return ctx
}

// TestStartUpStopsAdoptedAttemptsOfASessionThatExpiredMeanwhile: start-up is
// repeated until it succeeds. An attempt that an early turn adopted under a live
// session must be stopped by a later turn that finds the session over; else the
// later turn waits for it, and nothing ever ends it: frozen, it stays.
func TestStartUpStopsAdoptedAttemptsOfASessionThatExpiredMeanwhile(t *testing.T) {
	b := newLeaseBench(t)
	b.broker = muteBroker{}
	store := b.away(t)
	if err := b.openSession(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	_, attempt := heldAttempt(t, b)
	session := b.lease.current()
	ctx := runFor(t, b)

	host, err := b.renewals.Host(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	// First turn: the session is live, the attempt is adopted, and then the
	// ledger goes before the renewal.
	if err := b.reconcileAttempt(ctx, Attempt(attempt)); err != nil {
		t.Fatal(err)
	}
	store.lost = true
	if err := b.openSession(ctx, false); err == nil {
		t.Fatal("a session was opened without a ledger")
	}
	store.lost = false
	if err := b.ledger.EndSession(ctx, "a", session, host.Session.RenewSeq, ledger.Expired, "c"); err != nil {
		t.Fatal(err)
	}
	// Second turn. It has to wait for the attempt, and to have it stopped.
	brief, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := b.reconcile(brief); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v, want to wait for the attempt", err)
	}
	if _, asked, err := attempt.StopRequest(); err != nil || !asked {
		t.Errorf("start-up waits for an attempt that nobody asked to stop (%v)", err)
	}
	if d, err := runner.ReadDeadline(b.journal.DeadlinePath(session)); err != nil || d.State != runner.SessionExpired {
		t.Errorf("its shim reads %+v (%v), so it stays frozen", d, err)
	}
}

// TestStartUpReleasesNoJobWhoseAttemptItCannotRead: an attempt whose entry is
// damaged but whose shim lives still runs its job.
func TestStartUpReleasesNoJobWhoseAttemptItCannotRead(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, a *runner.Attempt){
		"DamagedIntentUnderALivingShim": func(t *testing.T, a *runner.Attempt) {
			if err := os.WriteFile(filepath.Join(a.Dir(), "intent"), []byte("no intent"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"JournalCannotBeListed": func(t *testing.T, a *runner.Attempt) {
			dir := filepath.Dir(a.Dir())
			if err := os.Rename(dir, dir+".elsewhere"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newLeaseBench(t)
			b.broker = muteBroker{}
			if err := b.openSession(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			j, attempt := heldAttempt(t, b)
			damage(t, attempt)
			ctx := runFor(t, b)
			brief, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_ = b.reconcile(brief) // an error is right, success too
			for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				now, err := b.ledger.Job(ctx, j.ID)
				if err != nil {
					t.Fatal(err)
				}
				if !now.State.Held() {
					t.Fatalf("its attempt runs, and the job is %s: %s", now.State, now.Reason)
				}
			}
		})
	}
}

// TestTagOfferedToARunThatIsOverIsNotKept: nobody would ever settle it.
func TestTagOfferedToARunThatIsOverIsNotKept(t *testing.T) {
	r := bareRun("claim-1", job.NewID())
	r.offerTag(broker.Tag{Generation: 1, Delivery: 1})
	r.takeTag() // close
	if ackNew := r.offerTag(broker.Tag{Generation: 1, Delivery: 2}); !ackNew {
		t.Error("a run that is over keeps a delivery")
	}
}

// TestMessageFromTheFutureIsNoEvidence: a retry that is due in a day comes back after the
// ladder's longest step, an hour, with its due time as its time of entry. For
// the 23 hours after that it must not make every waiting message look lost.
func TestMessageFromTheFutureIsNoEvidence(t *testing.T) {
	e := newEvidence(30 * time.Second)
	e.taken("q", job.At(zeroHour.Add(23*time.Hour)), zeroHour)
	entered := zeroHour.Add(time.Hour) // published after that message was taken
	if e.lost("q", job.At(entered)) {
		t.Error("a message that came in an hour after the last one taken is called lost")
	}
}

// TestCopiedStateDirectoryAdoptsNothing: a copy on another machine has the same
// install ID and the same journal, but no shims; it must not end the jobs that
// the original runs.
func TestCopiedStateDirectoryAdoptsNothing(t *testing.T) {
	b := newLeaseBench(t)
	b.broker = muteBroker{}
	if err := b.openSession(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	j, _ := heldAttempt(t, b)
	b.identity.MachineID = "another"
	ctx := runFor(t, b)
	if err := b.reconcile(ctx); !errors.Is(err, ledger.ErrForeign) {
		t.Errorf("start-up of the copy: %v, want ErrForeign", err)
	}
	now, err := b.ledger.Job(ctx, j.ID)
	if err != nil {
		t.Fatal(err)
	}
	if !now.State.Held() || b.runs.len() != 0 {
		t.Errorf("the copy adopted %d attempts, and the original's job is %s", b.runs.len(), now.State)
	}
}

// TestHostWhoseClockIsOffLeavesSweepingToOthers: stamps compare only among
// clocks that agree, and only a majority of the hosts proves that one is off.
func TestHostWhoseClockIsOffLeavesSweepingToOthers(t *testing.T) {
	b := newLeaseBench(t)
	for name, c := range map[string]struct {
		behind []time.Duration // how far the others' last renewals lie in the past
		off    bool
	}{
		"AllAgree":             {[]time.Duration{time.Second, 15 * time.Second, -time.Second}, false},
		"OwnIsAnHourAhead":     {[]time.Duration{time.Hour, time.Hour}, true},
		"OwnIsAnHourBehind":    {[]time.Duration{-time.Hour, -time.Hour}, true},
		"OneOtherIsOff":        {[]time.Duration{time.Second, time.Hour, time.Second}, false},
		"OneOtherProvesNoMore": {[]time.Duration{time.Hour}, false},
		"OneOfThreeIsOff":      {[]time.Duration{time.Second, -time.Hour}, false}, // else nobody of the three would sweep
		"NobodyAgrees":         {[]time.Duration{time.Hour, -time.Hour}, false},
		"HalfIsOff":            {[]time.Duration{time.Second, time.Hour, time.Hour}, false},
		"MostAgreeElsewhere":   {[]time.Duration{time.Second, time.Hour, time.Hour, time.Hour}, true},
	} {
		var hosts []*ledger.Host
		for i, behind := range c.behind {
			h := hostWith(string(rune('b'+i)), "s", 1)
			h.Session.RenewedAt = job.At(b.clock.Now().Add(-behind))
			hosts = append(hosts, h)
		}
		b.hosts.Store(&hosts)
		if got := b.clockOff(); (got != 0) != c.off {
			t.Errorf("%s: off by %s", name, got)
		}
	}
}

// TestHostThatDoesNotSweepTellsOfNoAges: what its last sweep saw would be told as the
// oldest message of now for as long as that lasts, and raise an alert.
func TestHostThatDoesNotSweepTellsOfNoAges(t *testing.T) {
	b := newLeaseBench(t)
	r := prometheus.NewRegistry()
	b.metrics = newMetrics(r)
	const queue = "gpuq.job.default.normal.g1.any"
	ages := func() (n int) {
		for series := range values(t, r) {
			if strings.HasPrefix(series, "gpuqd_queue_oldest_seconds") {
				n++
			}
		}
		return n
	}
	b.metrics.countOldest(queue, b.now(), nil)
	if ages() != 1 {
		t.Fatal("a sweep's age is not told")
	}
	var hosts []*ledger.Host
	for _, name := range []string{"b", "c"} {
		h := hostWith(name, "s", 1)
		h.Session.RenewedAt = job.At(b.clock.Now().Add(-time.Hour))
		hosts = append(hosts, h)
	}
	b.hosts.Store(&hosts)
	if err := b.sweepOnce(t.Context()); err == nil || ages() != 0 {
		t.Errorf("a host whose clock is off swept (%v), and tells of %d ages", err, ages())
	}
}
