package dashboards

import (
	"errors"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/test/cluster"
	"gpuqd/test/wait"
	"gpuqd/test/watch"
)

// TestNothingIsEmptyOnAWatchedCluster lets jobs of some kinds run on a local cluster with
// real Prometheus, Loki and their kin, and asks every query of every dashboard.
func TestNothingIsEmptyOnAWatchedCluster(t *testing.T) {
	watch.Need(t)
	s := watch.Start(t, cluster.Options{Ledger: "sqlite"})
	// A series that was born with its first count has no rate yet: what is counted once
	// must be counted again after a scrape.
	submitAll(t, s)
	wait.For(t, time.Minute, func() error {
		published, err := s.Prometheus.Query(t.Context(), `sum(gpuqd_broker_operation_duration_seconds_count{operation="publish",result="ok"}) > 0`)
		if err == nil && len(published) == 0 {
			err = errors.New("Prometheus has not seen that anything was published")
		}
		return err
	})
	last := submitAll(t, s)
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
	wait.For(t, 2*time.Minute, func() error {
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

// submitAll submits jobs enough that each worker has some, and one that fails.
func submitAll(t *testing.T, s *watch.Site) (last job.ID) {
	t.Helper()
	s.Submit(t, "echo no; exit 3")
	for range 2 * len(s.Workers()) {
		last = s.Submit(t, "echo hello; sleep 2; echo bye")
	}
	return last
}
