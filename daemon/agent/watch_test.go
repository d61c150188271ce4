package agent

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gpuqd/daemon/config"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
)

// A lease of 60 s, so that the gap that restarts watches is 20 s, grace is 5 s,
// and a session is overdue 65 s after its last renewal was first seen.
var watchLease = config.Lease{TTL: job.Duration(time.Minute), Renew: job.Duration(10 * time.Second)}

const watchOverdue = 65 * time.Second

func hostWith(name, session string, seq int64) *ledger.Host {
	return &ledger.Host{Name: name, Session: ledger.Session{
		ID: session, State: ledger.Live, RenewSeq: seq, TTL: watchLease.TTL,
	}}
}

// watchScript drives a watcher through reads at given times.
type watchScript struct {
	t       *testing.T
	w       *watcher
	now     time.Time
	renewed time.Time // own renewal; follows now unless a test holds it back
}

func newWatchScript(t *testing.T) *watchScript {
	return &watchScript{t: t, w: newWatcher("self", watchLease), now: zeroHour}
}

// read moves the clock by d, renews the own lease, reads the hosts and returns
// the names of those overdue.
func (s *watchScript) read(d time.Duration, hosts ...*ledger.Host) []string {
	s.now = s.now.Add(d)
	s.renewed = s.now
	return s.readWithoutRenewal(0, hosts...)
}

func (s *watchScript) readWithoutRenewal(d time.Duration, hosts ...*ledger.Host) []string {
	s.now = s.now.Add(d)
	var names []string
	for _, h := range s.w.observe(s.now, s.renewed, hosts) {
		names = append(names, h.Name)
	}
	return names
}

// pass reads every 5 s for the given time and fails on any that is overdue.
func (s *watchScript) pass(d time.Duration, hosts ...*ledger.Host) {
	s.t.Helper()
	for end := s.now.Add(d); s.now.Before(end); {
		if names := s.read(min(5*time.Second, end.Sub(s.now)), hosts...); len(names) > 0 {
			s.t.Fatalf("%q overdue at %s", names, s.now.Sub(zeroHour))
		}
	}
}

func (s *watchScript) wantOverdue(got []string, want ...string) {
	s.t.Helper()
	if !slices.Equal(got, want) {
		s.t.Fatalf("overdue at %s: %q, want %q", s.now.Sub(zeroHour), got, want)
	}
}

func TestWatch(t *testing.T) {
	t.Run("SilentSessionIsOverdueAfterTTLAndGrace", func(t *testing.T) {
		s := newWatchScript(t)
		h := hostWith("b", "s1", 7)
		s.read(0, h)
		s.pass(watchOverdue-time.Millisecond, h)
		s.wantOverdue(s.read(time.Millisecond, h), "b")
		s.wantOverdue(s.read(5*time.Second, h), "b") // until it is expired
	})
	t.Run("OnlyTheSilentOneIsOverdue", func(t *testing.T) {
		s := newWatchScript(t)
		silent := hostWith("b", "s1", 7)
		s.read(0, silent, hostWith("c", "s2", 0))
		for seq := int64(1); seq <= 12; seq++ {
			s.wantOverdue(s.read(5*time.Second, silent, hostWith("c", "s2", seq)))
		}
		s.wantOverdue(s.read(5*time.Second, silent, hostWith("c", "s2", 13)), "b")
	})
	t.Run("RenewalRestarts", func(t *testing.T) {
		s := newWatchScript(t)
		s.read(0, hostWith("b", "s1", 7))
		s.pass(watchOverdue-time.Second, hostWith("b", "s1", 7))
		s.read(0, hostWith("b", "s1", 8))
		s.pass(watchOverdue-time.Second, hostWith("b", "s1", 8))
		s.wantOverdue(s.read(time.Second, hostWith("b", "s1", 8)), "b")
	})
	t.Run("NewSessionRestarts", func(t *testing.T) {
		s := newWatchScript(t)
		s.read(0, hostWith("b", "s1", 7))
		s.pass(watchOverdue-time.Second, hostWith("b", "s1", 7))
		s.read(0, hostWith("b", "s2", 7)) // another session whose number is the same by chance
		s.pass(watchOverdue-time.Second, hostWith("b", "s2", 7))
		s.wantOverdue(s.read(time.Second, hostWith("b", "s2", 7)), "b")
	})
	t.Run("GapInOwnReadsRestartsAll", func(t *testing.T) {
		s := newWatchScript(t)
		b, c := hostWith("b", "s1", 7), hostWith("c", "s2", 9)
		s.read(0, b, c)
		s.pass(60*time.Second, b, c)
		s.wantOverdue(s.read(20*time.Second+time.Millisecond, b, c))
		s.pass(watchOverdue-time.Second, b, c)
		s.wantOverdue(s.read(time.Second, b, c), "b", "c")
	})
	t.Run("ReadsAtTheBoundAreNoGap", func(t *testing.T) {
		s := newWatchScript(t)
		b := hostWith("b", "s1", 7)
		s.read(0, b)
		for range 3 {
			s.wantOverdue(s.read(20*time.Second, b))
		}
		s.wantOverdue(s.read(20*time.Second, b), "b")
	})
	t.Run("GapInOwnRenewalsRestartsAll", func(t *testing.T) {
		s := newWatchScript(t)
		b := hostWith("b", "s1", 7)
		s.read(0, b)
		s.pass(20*time.Second, b)
		for range 8 { // 20.8 s: reads go on, renewals do not, as where the ledger takes no writes
			s.wantOverdue(s.readWithoutRenewal(2600*time.Millisecond, b))
		}
		restarted := s.now
		s.pass(watchOverdue-time.Second, b)
		s.wantOverdue(s.read(time.Second, b), "b")
		if got := s.now.Sub(restarted); got != watchOverdue {
			t.Errorf("overdue %s after the gap, want %s", got, watchOverdue)
		}
	})
	t.Run("WithoutRenewalsOfItsOwnAHostExpiresNobody", func(t *testing.T) {
		s := newWatchScript(t)
		b := hostWith("b", "s1", 7)
		for range 100 {
			s.wantOverdue(s.readWithoutRenewal(5*time.Second, b))
		}
	})
	t.Run("OwnHostIsNotWatched", func(t *testing.T) {
		newWatchScript(t).pass(10*watchOverdue, hostWith("self", "s1", 7))
	})
	t.Run("SessionThatIsOverIsNotWatched", func(t *testing.T) {
		for _, state := range []ledger.SessionState{ledger.Expired, ledger.Closed, ""} {
			h := hostWith("b", "s1", 7)
			h.Session.State = state
			newWatchScript(t).pass(10*watchOverdue, h)
		}
	})
	t.Run("HostThatWasAwayIsSeenAnew", func(t *testing.T) {
		s := newWatchScript(t)
		b := hostWith("b", "s1", 7)
		s.read(0, b)
		s.pass(60 * time.Second) // reads without it
		s.read(0, b)
		s.pass(watchOverdue-time.Second, b)
		s.wantOverdue(s.read(time.Second, b), "b")
	})
	t.Run("SessionsOwnTTLCounts", func(t *testing.T) {
		s := newWatchScript(t)
		short, long := hostWith("b", "s1", 7), hostWith("c", "s2", 7)
		short.Session.TTL = job.Duration(15 * time.Second)
		long.Session.TTL = job.Duration(2 * time.Hour) // grace is 1 % here: 72 s
		s.read(0, short, long)
		s.pass(19*time.Second, short, long)
		s.wantOverdue(s.read(time.Second, short, long), "b")
		s.pass(2*time.Hour+71*time.Second-20*time.Second, long)
		s.wantOverdue(s.read(time.Second, long), "c")
	})
}

// sawHost is what one read showed of the watched host, with whether the reader
// trusted what it had seen before.
type sawHost struct {
	at      time.Time
	gap     bool
	present bool
	session string
	seq     int64
}

// overdueByDefinition: a stretch of reads without a gap, all of which showed the
// same renewal of the same session, is at least TTL and grace long.
func overdueByDefinition(reads []sawHost) bool {
	last := reads[len(reads)-1]
	if !last.present {
		return false
	}
	since := last.at
	for i := len(reads) - 1; i > 0 && !reads[i].gap; i-- {
		before := reads[i-1]
		if !before.present || before.session != last.session || before.seq != last.seq {
			break
		}
		since = before.at
	}
	return last.at.Sub(since) >= watchOverdue
}

// TestWatcherAgreesWithItsDefinition draws any history of reads, renewals and
// outages, and compares each answer with the definition over the whole history.
func TestWatcherAgreesWithItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWatcher("self", watchLease)
		now, renewed := zeroHour, time.Time{}
		var lastRead time.Time
		session, seq := 1, int64(1)
		var reads []sawHost
		for range rapid.IntRange(1, 80).Draw(t, "reads") {
			// Mostly steps of a healthy host, sometimes a gap.
			step := rapid.SampledFrom([]int{1, 5, 10, 10, 15, 20, 20, 21, 60}).Draw(t, "step")
			now = now.Add(time.Duration(step) * time.Second)
			if rapid.IntRange(0, 9).Draw(t, "own renewal") > 0 {
				renewed = now.Add(-time.Duration(rapid.IntRange(0, 10).Draw(t, "renewal age")) * time.Second)
			}
			switch rapid.IntRange(0, 19).Draw(t, "event") {
			case 0:
				seq++
			case 1:
				session, seq = session+1, 1
			}
			present := rapid.IntRange(0, 29).Draw(t, "present") > 0
			hosts := []*ledger.Host{hostWith("self", "own", 1)}
			name := fmt.Sprintf("s%d", session)
			if present {
				hosts = append(hosts, hostWith("b", name, seq))
			}
			gap := now.Sub(lastRead) > 20*time.Second || now.Sub(renewed) > 20*time.Second
			lastRead = now
			reads = append(reads, sawHost{now, gap, present, name, seq})
			got := w.observe(now, renewed, hosts)
			if want := overdueByDefinition(reads); (len(got) > 0) != want || len(got) > 1 {
				t.Fatalf("overdue is %v, want %v, after %+v", len(got) > 0, want, reads)
			}
		}
	})
}

// TestShortestLegalLeaseIsWatched: lease.ttl may be three times lease.renew;
// ticks that are a moment late are no gap.
func TestShortestLegalLeaseIsWatched(t *testing.T) {
	l := config.Lease{TTL: job.Duration(30 * time.Second), Renew: job.Duration(10 * time.Second)}
	w := newWatcher("self", l)
	now := zeroHour
	for range 100 {
		now = now.Add(l.Renew.Std() + time.Millisecond)
		h := hostWith("b", "s1", 7)
		h.Session.TTL = l.TTL
		if len(w.observe(now, now.Add(-5*time.Millisecond), []*ledger.Host{h})) > 0 {
			return
		}
	}
	t.Errorf("a session that was silent for %s is not overdue", now.Sub(zeroHour))
}
