package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/test/history"
	"gpuqd/test/sim/world"
)

// site is a world with one process that has a ledger.
type site struct {
	*ledger.Ledger
	t       *testing.T
	world   *world.World
	server  *Server
	process *world.Process
	port    *Port
}

// opened is one ledger, opened once, for all sites of one test.
func opened(t *testing.T) (*Port, *ledger.Ledger) {
	t.Helper()
	p := NewPort()
	l, err := ledger.Open(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return p, l
}

func inSite(t *testing.T, seed uint64, f func(*testing.T, *site)) {
	t.Helper()
	p, l := opened(t)
	synctest.Test(t, func(t *testing.T) { f(t, newSite(t, seed, p, l)) })
}

func newSite(t *testing.T, seed uint64, p *Port, l *ledger.Ledger) *site {
	w := world.New(seed)
	w.SetRates(Part, world.Rates{Fast: time.Millisecond, Slow: 3 * time.Millisecond})
	s := &site{Ledger: l, t: t, world: w, server: NewServer(w), process: w.NewHost("h1").Start("gpuqd", nil), port: p}
	s.server.Attach(p, s.process, "work")
	return s
}

func (s *site) now() job.Time { return job.At(time.Now()) }

// submit adds a job; n tells it from others.
func (s *site) submit(n int) *job.Job {
	s.t.Helper()
	spec := job.DefaultSpec()
	spec.Command = []string{"true"}
	j, _, err := s.Submit(context.Background(), job.New(job.KeyID("test", fmt.Sprint(n)), "alice", spec, s.now()))
	if err != nil {
		s.t.Fatal(err)
	}
	return j
}

func (s *site) claim(id job.ID) (*job.Job, error) {
	return s.Claim(context.Background(), ledger.Claim{
		JobID: id, Host: "h1", Session: "s1", ClaimID: "claim-1", Devices: []string{"GPU-1"}, Now: s.now(),
	})
}

func (s *site) hold(j *job.Job) ledger.Hold {
	return ledger.Hold{JobID: j.ID, ClaimID: j.Owner.ClaimID, Fence: j.Fence, Host: "h1"}
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestStepsAreNamedByTheProtocol(t *testing.T) {
	inSite(t, 1, func(t *testing.T, s *site) {
		var got []string
		s.world.OnStep(func(step world.Step) {
			if !step.After {
				got = append(got, step.Name)
			}
		})
		ctx := context.Background()
		j := s.submit(1)
		j = must[*job.Job](t)(s.claim(j.ID))
		h := s.hold(j)
		j = must[*job.Job](t)(s.Start(ctx, h, s.now()))
		must[*job.Job](t)(s.Kill(ctx, j.ID, job.Kill{ID: "k", Reason: "enough", At: s.now()}))
		must[*job.Job](t)(s.Commit(ctx, h, ledger.Commit{ID: "c", Verdict: job.Verdict{State: job.Succeeded}, Result: &job.Result{}, Now: s.now()}))
		other := s.submit(2)
		if err := s.Republish(ctx, other, true, s.now()); err != nil {
			t.Fatal(err)
		}
		other = must[*job.Job](t)(s.claim(other.ID))
		must[*job.Job](t)(s.Takeover(ctx, other, "h2", "t", s.now()))
		must[*job.Job](t)(s.End(ctx, other.ID, job.ClassExpired, "too late", "e", s.now()))
		must[[]*job.Job](t)(s.Held(ctx))
		host := &ledger.Host{Name: "h1", BootID: "b1", Session: ledger.Session{ID: "s1", State: ledger.Live, RenewSeq: 1}}
		must[*ledger.Host](t)(s.OpenSession(ctx, host, false))
		must[*ledger.Host](t)(s.Renew(ctx, ledger.Renewal{Host: "h1", Session: "s1", Seq: 1, Now: s.now()}))
		if err := s.EndSession(ctx, "h1", "s1", 2, ledger.Closed, "h1"); err != nil {
			t.Fatal(err)
		}
		host.Session.ID = "s2"
		must[*ledger.Host](t)(s.OpenSession(ctx, host, false))
		must[[]*ledger.Host](t)(s.HostList(ctx))
		for _, err := range []error{
			s.RecordEvent(ctx, ledger.Event{}), s.RecordDeadLetter(ctx, ledger.DeadLetter{ID: "d"}),
			s.RegisterShape(ctx, "q", 9, s.now()), s.Probe(ctx, s.now()),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		want := []string{
			"submit", "claimed", "running", "killed", "read job", "flag kill", "succeeded",
			"submit", "republish", "claimed", "takeover", "dead", "find jobs",
			"read host", "insert host", "renew", "end session", "read host", "open session", "list hosts",
			"event", "dead letter", "list shapes", "shape", "probe",
		}
		for i := range want {
			want[i] = "ledger " + want[i]
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	})
}

func TestTransitionsAreRecorded(t *testing.T) {
	inSite(t, 1, func(t *testing.T, s *site) {
		ctx := context.Background()
		s.process.Host().StepClock(time.Hour) // what hosts write does not matter
		var asked, republished time.Time
		s.server.Needless = func(_ job.ID, published time.Time) bool {
			asked, republished = published, time.Now()
			return true
		}
		j := s.submit(1)
		time.Sleep(time.Minute)
		if err := s.Republish(ctx, j, true, job.At(s.process.Host().Now())); err != nil {
			t.Fatal(err)
		}
		j = must[*job.Job](t)(s.claim(j.ID))
		h := s.hold(j)
		must[*job.Job](t)(s.Start(ctx, h, s.now()))
		if _, err := s.claim(j.ID); err != nil { // recognised as its own: nothing is written
			t.Fatal(err)
		}
		must[*job.Job](t)(s.Commit(ctx, h, ledger.Commit{
			ID: "commit-1", Now: s.now(), Result: &job.Result{},
			Verdict: job.Verdict{State: job.Failed, Class: job.ClassUser, Reason: "exit code 3"},
		}))
		want := []history.Event{
			{Kind: history.Changed, Host: "h1", State: job.Queued, Reason: "submitted by alice"},
			{Kind: history.Republished, Host: "h1", State: job.Queued, Needless: true},
			{Kind: history.Changed, Host: "h1", State: job.Claimed, Attempt: 1, Fence: 1, ID: "claim-1", Claim: "claim-1", Devices: []string{"GPU-1"}, Reason: "claimed by h1"},
			{Kind: history.Changed, Host: "h1", State: job.Running, Attempt: 1, Fence: 1, ID: "start-claim-1", Claim: "claim-1", Devices: []string{"GPU-1"}, Reason: "running on h1"},
			{Kind: history.Changed, Host: "h1", State: job.Failed, Attempt: 1, Fence: 1, ID: "commit-1", Class: "user", Reason: "exit code 3"},
		}
		got := s.world.Events()
		for i := range got {
			got[i].At = time.Time{}
			if i < len(want) {
				want[i].Job = j.ID
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %#v\nwant %#v", got, want)
		}
		if ago := republished.Sub(asked); ago < time.Minute || ago > time.Minute+10*time.Millisecond {
			t.Errorf("asked about a promise made %s before", ago)
		}
		s.world.Do(func() {
			if j := s.server.Job(j.ID); j == nil || j.State != job.Failed || len(s.server.Jobs()) != 1 || s.server.Jobs()[0] != j {
				t.Errorf("the server shows %+v", j)
			}
		})
	})
}

func TestPortServesOneProcessAfterAnother(t *testing.T) {
	p, l := opened(t)
	for seed := range uint64(3) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, seed, p, l)
			if l.ID() != LedgerID {
				t.Fatalf("the ledger is %s", l.ID())
			}
			s.submit(1) // of each world anew
			second := s.world.NewHost("h2").Start("gpuqd", nil)
			s.process.Kill()
			if _, err := l.Job(t.Context(), "x"); !errors.Is(err, world.ErrDead) {
				t.Errorf("a dead process read: %v", err)
			}
			p.Detach()
			if _, err := l.Job(t.Context(), "x"); !errors.Is(err, world.ErrDead) {
				t.Errorf("nobody's port read: %v", err)
			}
			s.server.Attach(p, second, "lease")
			s.submit(2)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Job(t.Context(), "x"); err == nil || errors.Is(err, ledger.ErrNotFound) {
				t.Errorf("a closed port read: %v", err)
			}
			s.world.Do(func() {
				if n := len(s.server.Jobs()); n != 2 {
					t.Errorf("%d jobs", n)
				}
			})
		})
	}
}

func TestCrashBetweenWriteAndAnswer(t *testing.T) {
	inSite(t, 1, func(t *testing.T, s *site) {
		j := s.submit(1)
		s.world.OnStep(func(step world.Step) {
			if step.Name == "ledger claimed" && step.After {
				step.Process.Kill()
			}
		})
		if _, err := s.claim(j.ID); !errors.Is(err, world.ErrDead) {
			t.Errorf("the dead process heard %v", err)
		}
		s.world.Do(func() {
			if s.server.Job(j.ID).State != job.Claimed {
				t.Error("the claim is lost")
			}
		})
	})
}

// The answers of an effect are its own, whatever the caller's document becomes.
func TestInsertTakesACopy(t *testing.T) {
	p := NewPort()
	doc := json.RawMessage(`{"id":"a","n":1}`)
	if err := p.Insert(t.Context(), ledger.Scratch, "a", doc); err != nil {
		t.Fatal(err)
	}
	clear(doc)
	if got, err := p.Get(t.Context(), ledger.Scratch, "a"); err != nil || string(got) != `{"id":"a","n":1}` {
		t.Errorf("got %s, %v", got, err)
	}
}
