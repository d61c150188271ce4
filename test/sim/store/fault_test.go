package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/test/sim/world"
)

func TestRefusedOperationChangesNothing(t *testing.T) {
	inSite(t, 1, func(t *testing.T, s *site) {
		j := s.submit(1)
		s.server.Refuse("ledger claimed", 2)
		for range 2 {
			if _, err := s.claim(j.ID); !errors.Is(err, ErrServer) {
				t.Errorf("got %v", err)
			}
		}
		must[*job.Job](t)(s.claim(j.ID))
		if n := len(s.world.Events()); n != 2 {
			t.Errorf("%d events, want the submission and one claim", n)
		}
	})
}

func TestUnconfirmedWriteIsAppliedAndFoundByReadingBack(t *testing.T) {
	for name, set := range map[string]func(*Server){
		"OneStep": func(s *Server) { s.Unconfirm("ledger claimed", 1) },
		"All":     func(s *Server) { s.Unconfirmed(1) },
	} {
		t.Run(name, func(t *testing.T) {
			inSite(t, 1, func(t *testing.T, s *site) {
				j := s.submit(1)
				set(s.server)
				reads := 0
				s.world.OnStep(countStep("ledger read job", &reads))
				if j = must[*job.Job](t)(s.claim(j.ID)); j.State != job.Claimed || reads != 1 {
					t.Errorf("%s after %d reads", j.State, reads)
				}
				s.server.Unconfirm("ledger update job", 1)
				if err := s.rename(j.ID, "renamed"); !errors.Is(err, ErrUnconfirmed) || s.reason(j.ID) != "renamed" {
					t.Errorf("the store answered %v", err)
				}
			})
		})
	}
}

func countStep(name string, n *int) func(world.Step) {
	return func(s world.Step) {
		if s.Name == name && !s.After {
			*n++
		}
	}
}

// rename is an update without read-back: it shows what the store itself answers.
func (s *site) rename(id job.ID, name string) error {
	_, err := s.port.Update(context.Background(), ledger.Jobs, string(id), nil, ledger.Update{Set: map[string]any{"reason": name}})
	return err
}

func (s *site) reason(id job.ID) (reason string) {
	s.world.Do(func() { reason = s.server.Job(id).Reason })
	return reason
}

func TestShortFailOverIsADelay(t *testing.T) {
	p, l := opened(t)
	waited := 0
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, seed, p, l)
			j := s.submit(1)
			s.server.FailOver(time.Second)
			began := time.Now()
			_, err := l.Job(t.Context(), j.ID)
			if took := time.Since(began); err == nil && (took < time.Second || took > 1500*time.Millisecond) {
				t.Errorf("a read took %s", took)
			}
			if err == nil {
				waited++
			}
			time.Sleep(5 * time.Second)
			if err := s.rename(j.ID, "after"); err != nil {
				t.Errorf("after the election: %v", err)
			}
		})
	}
	if waited == 0 || waited == 20 {
		t.Errorf("%d of 20 reads waited for the new primary; the others went to the old one", waited)
	}
}

// What becomes of a write while there is no primary is unknown: all of its fates
// must come up.
func TestLongFailOverLeavesWritesUnknown(t *testing.T) {
	p, l := opened(t)
	fates := map[string]int{}
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, seed, p, l)
			j := s.submit(1)
			s.server.FailOver(10 * time.Second)
			if err := s.rename(j.ID, "renamed"); err == nil {
				t.Error("a write was confirmed without a primary")
			}
			if _, err := l.Job(t.Context(), j.ID); err == nil || errors.Is(err, ledger.ErrNotFound) {
				t.Errorf("a linearizable read was answered without a primary: %v", err)
			}
			if _, err := l.JobsByID(t.Context(), []job.ID{j.ID}); err == nil {
				t.Error("a search was answered without a primary")
			}
			at := s.reason(j.ID) == "renamed"
			time.Sleep(10 * time.Second)
			after := s.reason(j.ID) == "renamed"
			fates[fmt.Sprint(at, after)]++
			must[*job.Job](t)(l.Job(t.Context(), j.ID))
		})
	}
	if fates["true true"] == 0 || fates["false true"] == 0 || fates["false false"] == 0 || len(fates) != 3 {
		t.Errorf("applied at once, in the end: %v", fates)
	}
}

// held searches for held jobs by their state and returns their IDs.
func (s *site) held() []job.ID {
	s.t.Helper()
	var ids []job.ID
	for _, j := range must[[]*job.Job](s.t)(s.Held(context.Background())) {
		ids = append(ids, j.ID)
	}
	return ids
}

func TestDeposedPrimaryAnswersMajorityFindsFromItsPast(t *testing.T) {
	inSite(t, 1, func(t *testing.T, s *site) {
		j := s.submit(1)
		s.server.MajorityFinds(true)
		s.server.FailOver(2 * time.Second)
		s.world.Do(func() { // what the new primary's side decides meanwhile
			w := write{collection: ledger.Jobs, id: string(j.ID), changes: must[[]change](t)(changesOf(ledger.Update{Set: map[string]any{"state": job.Claimed}}))}
			in := &instant{docs: s.server.docs, at: s.world.Now() + 1}
			if _, err := in.update(&w); err != nil {
				t.Error(err)
			}
		})
		if got := s.held(); len(got) != 0 {
			t.Errorf("found %v", got)
		}
		time.Sleep(3 * time.Second)
		if got := s.held(); len(got) != 1 {
			t.Errorf("found %v after the election", got)
		}
	})
}

func TestStaleFindsAreOfABoundedAge(t *testing.T) {
	p, l := opened(t)
	stale := 0
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, seed, p, l)
			s.server.StaleFinds(1, time.Second)
			j := s.submit(1)
			time.Sleep(5 * time.Second)
			must[*job.Job](t)(s.claim(j.ID))
			stale += 1 - len(s.held())
			if got := must[*job.Job](t)(l.Job(t.Context(), j.ID)); got.State != job.Claimed {
				t.Error("a linearizable read was stale")
			}
			time.Sleep(time.Second)
			if len(s.held()) != 1 {
				t.Error("a search was staler than its bound")
			}
		})
	}
	if stale == 0 {
		t.Error("no search was stale")
	}
}

// A search by state that meets a transition sees the job before it, after it,
// twice or not at all; a search by identity sees it once.
func TestTornFinds(t *testing.T) {
	p, l := opened(t)
	byState, byID := map[string]int{}, map[string]int{}
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, seed, p, l)
			s.server.TornFinds(1)
			j := s.submit(1)
			j = must[*job.Job](t)(s.claim(j.ID))
			search := func(q ledger.Query, counts map[string]int, change func() error) {
				done := make(chan error)
				time.AfterFunc(200*time.Microsecond, func() { done <- change() })
				docs, err := s.port.Find(t.Context(), ledger.Jobs, q)
				if err := errors.Join(err, <-done); err != nil {
					t.Fatal(err)
				}
				var seen string
				for _, doc := range docs {
					seen += (&state{text: doc}).decoded().Reason + " "
				}
				counts[seen]++
			}
			search(ledger.Query{When: []ledger.Cond{{Field: "state", Op: ledger.In, Value: []string{"claimed", "running"}}}}, byState, func() error {
				_, err := l.Start(t.Context(), s.hold(j), s.now())
				return err
			})
			search(ledger.Query{When: []ledger.Cond{{Field: "id", Op: ledger.In, Value: []string{string(j.ID)}}}}, byID, func() error {
				return s.rename(j.ID, "renamed")
			})
		})
	}
	if len(byState) != 4 || byState[""] == 0 {
		t.Errorf("searches by state saw %v, want nothing, either and both", byState)
	}
	if len(byID) != 2 || byID[""] != 0 {
		t.Errorf("searches by identity saw %v, want either", byID)
	}
}
