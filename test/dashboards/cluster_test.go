package dashboards

import (
	"errors"
	"testing"
	"time"

	"gpuqd/test/cluster"
	"gpuqd/test/wait"
	"gpuqd/test/watch"
)

// TestNothingIsEmptyOnAWatchedCluster lets jobs of some kinds run on a local cluster with
// real Prometheus, Loki and their kin, and asks every query of every dashboard.
func TestNothingIsEmptyOnAWatchedCluster(t *testing.T) {
	watch.Need(t)
	s := watch.Start(t, cluster.Options{Ledger: "sqlite"})
	for range 2 * len(s.Workers()) { // each has some
		s.Submit(t, "echo hello; sleep 2; echo bye")
	}
	s.Submit(t, "echo no; exit 3")
	last := s.Submit(t, "echo the last; sleep 2")
	s.WaitEnd(t, last)
	l := Live{
		Dir: "../../" + Dir, Prometheus: string(s.Prometheus), Loki: string(s.Loki),
		Span: 10 * time.Minute, Scrape: time.Second,
		Values: map[string]string{"job": string(last)},
		Allowed: []Allowed{
			{Board: "gpuq-host", Panel: "Warnings and errors", Reason: "a cluster that is well need not say any"},
		},
	}
	asked := 0
	// The ledger's counts and depths come with the next turn of the loops that look.
	wait.For(t, 3*time.Minute, func() error {
		empty, n, err := l.Check(t.Context())
		if err != nil {
			return err
		}
		asked = n
		var errs []error
		for _, e := range empty {
			errs = append(errs, errors.New(e.String()))
		}
		return errors.Join(errs...)
	})
	t.Logf("%d queries, all of them show something", asked)
}
