package watch

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/test/cluster"
	"gpuqd/test/services/monitoring"
	"gpuqd/test/wait"
)

// Need skips a test that was not asked for: what it starts takes gigabytes and
// minutes, and programs that make test does not install.
func Need(t *testing.T) {
	t.Helper()
	if os.Getenv("GPUQ_WATCH") == "" {
		t.Skip("GPUQ_WATCH is not set: make e2e/monitoring")
	}
}

// Site is a local cluster that is watched, for a test.
type Site struct {
	*cluster.Cluster
	Prometheus   monitoring.Prometheus
	Alertmanager monitoring.Alertmanager
	Loki         monitoring.Loki
	options      cluster.Options
}

// startTimeout bounds a start on two busy cores.
const startTimeout = 6 * time.Minute

// Start starts a cluster that ends with the test. Dir, BinDir and Monitoring may be
// left out of the options: programs are then built from the tree, and rules are a
// site's. Intervals are a second without others.
func Start(t *testing.T, opts cluster.Options) *Site {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	if opts.BinDir == "" {
		opts.BinDir = t.TempDir()
		if err := cluster.Build(ctx, opts.BinDir, "gpuqd", "gpuqctl", "gpuqd-shim"); err != nil {
			t.Fatal(err)
		}
	}
	if opts.Monitoring == nil {
		opts.Monitoring = &cluster.Monitoring{}
	}
	if opts.Monitoring.Interval == 0 {
		opts.Monitoring.Interval = time.Second
	}
	c, err := cluster.New(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return &Site{Cluster: c, Prometheus: c.Prometheus(), Alertmanager: c.Alertmanager(), Loki: c.Loki(), options: opts}
}

// ctl runs gpuqctl, which must succeed, and returns its stdout.
func (s *Site) ctl(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := s.Gpuqctl(ctx, args...)
	if err != nil || r.Code != 0 {
		t.Fatalf("gpuqctl %q: exit code %d, %v: %s", args, r.Code, err, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}

// Submit submits a job of a shell's command line.
func (s *Site) Submit(t *testing.T, line string) job.ID {
	t.Helper()
	id, err := job.ParseID(s.ctl(t, "submit", "--", "sh", "-c", line))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// WaitEnd waits until a job is over.
func (s *Site) WaitEnd(t *testing.T, id job.ID) (j job.Job) {
	t.Helper()
	wait.For(t, 2*time.Minute, func() error {
		j = job.Job{}
		if err := json.Unmarshal([]byte(s.ctl(t, "show", string(id), "--json")), &j); err != nil {
			return err
		}
		switch j.State {
		case job.Succeeded, job.Failed, job.Killed, job.Dead:
			return nil
		}
		return fmt.Errorf("job %s is %s (%s)", id, j.State, j.Reason)
	})
	return j
}

// WaitAlert waits until Alertmanager has an alert with these labels (alertname and
// others), and returns it and how long that took.
func (s *Site) WaitAlert(t *testing.T, within time.Duration, labels map[string]string) (found monitoring.Alert, took time.Duration) {
	t.Helper()
	began := time.Now()
	wait.For(t, within, func() error {
		alerts, err := s.Alertmanager.Alerts(t.Context())
		if err != nil {
			return err
		}
		for _, alert := range alerts {
			if has(alert.Labels, labels) {
				found = alert
				return nil
			}
		}
		return fmt.Errorf("of %d alerts none has %v", len(alerts), labels)
	})
	return found, time.Since(began)
}

// WaitResolved waits until Alertmanager has no alert with these labels.
func (s *Site) WaitResolved(t *testing.T, within time.Duration, labels map[string]string) {
	t.Helper()
	wait.For(t, within, func() error {
		alerts, err := s.Alertmanager.Alerts(t.Context())
		if err != nil {
			return err
		}
		for _, alert := range alerts {
			if has(alert.Labels, labels) {
				return fmt.Errorf("there still is %v", alert.Labels)
			}
		}
		return nil
	})
}

func has(labels, wanted map[string]string) bool {
	for name, value := range wanted {
		if labels[name] != value {
			return false
		}
	}
	return true
}

// value returns the sum of a PromQL expression's samples.
func (s *Site) value(t *testing.T, expression string) (sum float64, err error) {
	t.Helper()
	samples, err := s.Prometheus.Query(t.Context(), expression)
	for _, sample := range samples {
		sum += sample.Value
	}
	return sum, err
}
