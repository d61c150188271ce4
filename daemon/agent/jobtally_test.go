package agent

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"gpuqd/daemon/ledger"

	"github.com/prometheus/client_golang/prometheus"
)

func TestFirstLiveHostCounts(t *testing.T) {
	host := func(name, state string) *ledger.Host {
		h := &ledger.Host{Name: name}
		h.Session.State = ledger.SessionState(state)
		return h
	}
	live := string(ledger.Live)
	for name, c := range map[string]struct {
		hosts []*ledger.Host
		want  bool
	}{
		"Alone":              {[]*ledger.Host{host("b", live)}, true},
		"AfterAnother":       {[]*ledger.Host{host("a", live), host("b", live)}, false},
		"BeforeAnother":      {[]*ledger.Host{host("c", live), host("b", live)}, true},
		"TheFirstIsNotLive":  {[]*ledger.Host{host("a", "expired"), host("b", live)}, true},
		"ItsOwnSessionEnded": {[]*ledger.Host{host("b", "expired"), host("c", live)}, false},
	} {
		if got := firstLive("b", c.hosts); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// uncountedStore is a store in which jobs cannot be counted in time.
type uncountedStore struct {
	ledger.Store
	asked int
}

func (s *uncountedStore) Find(ctx context.Context, c ledger.Collection, q ledger.Query) ([]json.RawMessage, error) {
	if q.Limit != tallyMost {
		return s.Store.Find(ctx, c, q)
	}
	s.asked++
	return nil, errors.New("too slow")
}

// TestLedgerThatDoesNotCountIsInReach: a question for the metrics alone keeps no host
// from taking jobs, and is not asked again at once.
func TestLedgerThatDoesNotCountIsInReach(t *testing.T) {
	b := newLeaseBench(t)
	store := &uncountedStore{Store: b.store}
	l, err := ledger.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	b.ledger, b.renewals, b.metrics = l, l, newMetrics(prometheus.NewRegistry())
	if err := b.openSession(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	w := newWatcher(b.host, b.cfg.Lease)
	for range 3 {
		if err := b.watchOnce(t.Context(), w); err != nil {
			t.Errorf("the ledger is taken to be out of reach: %v", err)
		}
	}
	if store.asked != 1 || len(b.jobsCounted()) != 0 {
		t.Errorf("it was asked %d times, and %v is told", store.asked, b.jobsCounted())
	}
}
