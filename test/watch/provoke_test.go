package watch

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/job"
	"gpuqd/test/cluster"
	"gpuqd/test/wait"
)

// The times of a site's rules are divided by scale, so that what takes it hours takes
// minutes here; scrapes and evaluations come fifteen times as often.
const (
	scale       = 60
	scaledLeast = 5 * time.Second
)

// provocation is a fault that is done to the watched cluster, and the alerts that it
// must bring to Alertmanager.
type provocation struct {
	fault string // as docs/reliability.md has it
	// strike does it, and returns what mends it.
	strike func(*testing.T, *Site) (mend func())
	alerts []wanted
	// within bounds the wait for all of them; 0 is provokedWithin.
	within time.Duration
	// long says that the rule looks back for long: that its alerts are over is waited for
	// at the end of the history.
	long bool
}

// wanted is one alert that a fault must bring.
type wanted struct {
	alert  string
	labels map[string]string
	// unsent alerts cannot come to Alertmanager: they are looked for in Prometheus.
	unsent bool
	// lasting alerts are there before.
	lasting bool
}

// provokedWithin is longer than any rule waits here; resolvedWithin is longer than any
// looks back, but those over more than an hour.
const (
	provokedWithin = 2 * time.Minute
	resolvedWithin = 4 * time.Minute
)

// history is what one cluster goes through, one provocation after the other.
type history struct {
	ledger       string
	options      cluster.Options
	provocations []provocation
}

func histories() []history {
	return []history{{
		ledger:  config.LedgerSQLite,
		options: cluster.Options{LeaseRenew: time.Second, Configure: quickToGiveUp, Simulate: true},
		provocations: concat(
			targetFaults, daemonFaults, hostFaults, deviceFaults, jobFaults, sqliteFaults, brokerFaults, logFaults, monitoringFaults,
		),
	}, {
		ledger:       config.LedgerMongoDB,
		options:      cluster.Options{RabbitNodes: 1, Workers: 1},
		provocations: mongoFaults,
	}}
}

func concat[T any](lists ...[]T) (all []T) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

// quickToGiveUp scales how long a question to the ledger may take, as the rules are.
func quickToGiveUp(_ string, cfg *config.Config) {
	cfg.Ledger.Timeout = job.Duration(500 * time.Millisecond)
}

// TestAlertsAreProvoked does real faults to real clusters. Each alert must not be there
// before its fault, must come to Alertmanager by it, and must be over after what mends it.
func TestAlertsAreProvoked(t *testing.T) {
	Need(t)
	came := map[string]time.Duration{}
	for _, h := range histories() {
		t.Run(h.ledger, func(t *testing.T) {
			h.options.Ledger = h.ledger
			h.options.Monitoring = &cluster.Monitoring{RulesDir: ScaledRules(t, 1.0/scale, scaledLeast)}
			s := Start(t, h.options)
			for _, p := range h.provocations {
				t.Run(p.alerts[0].alert, func(t *testing.T) { s.provoke(t, p, came) })
			}
			t.Run("AreOver", func(t *testing.T) {
				for _, p := range h.provocations {
					if p.long {
						s.waitOver(t, p)
					}
				}
			})
		})
	}
	writePage(t, came)
}

// provoke does one fault and mends it, and notes how long after it each alert came.
func (s *Site) provoke(t *testing.T, p provocation, came map[string]time.Duration) {
	testTargets(t, s) // nothing is left of the fault before
	for _, w := range p.alerts {
		if !w.lasting {
			s.waitAbsent(t, w)
		}
	}
	began := time.Now()
	mend := sync.OnceFunc(p.strike(t, s))
	defer mend() // whatever becomes of this one, the next is to find the cluster whole
	within := p.within
	if within == 0 {
		within = provokedWithin
	}
	seen := map[string]time.Duration{}
	wait.For(t, within, func() error {
		time.Sleep(pace)
		for _, w := range p.alerts {
			if seen[w.alert] > 0 || s.absent(t, w) == nil {
				continue
			}
			seen[w.alert] = time.Since(began)
			t.Logf("%s: %s came after %s", p.fault, w.alert, seen[w.alert].Round(100*time.Millisecond))
		}
		for _, w := range p.alerts {
			if seen[w.alert] == 0 {
				return fmt.Errorf("%s has not come by: %s", w.alert, p.fault)
			}
		}
		return nil
	})
	mend()
	if !p.long {
		s.waitOver(t, p)
	}
	maps.Copy(came, seen)
}

// pace keeps a wait of minutes from asking all the time; what is measured is as exact.
const pace = 50 * time.Millisecond

// waitOver waits until nothing is left of a provocation that was mended.
func (s *Site) waitOver(t *testing.T, p provocation) {
	t.Helper()
	for _, w := range p.alerts {
		s.waitAbsent(t, w)
	}
}

func (s *Site) waitAbsent(t *testing.T, w wanted) {
	t.Helper()
	wait.For(t, resolvedWithin, func() error {
		time.Sleep(pace)
		return s.absent(t, w)
	})
}

// absent returns nil while there is no such alert.
func (s *Site) absent(t *testing.T, w wanted) error {
	if w.unsent {
		samples, err := s.Prometheus.Query(t.Context(), fmt.Sprintf(`ALERTS{alertname=%q,alertstate="firing"}`, w.alert))
		if err == nil && len(samples) > 0 {
			err = fmt.Errorf("Prometheus has %v", samples[0].Labels)
		}
		return err
	}
	alerts, err := s.Alertmanager.Alerts(t.Context())
	if err != nil {
		return nil // it is away, and so has none
	}
	for _, alert := range alerts {
		if alert.Name() == w.alert && has(alert.Labels, w.labels) {
			return fmt.Errorf("there is %v", alert.Labels)
		}
	}
	return nil
}

// down takes a unit down, and returns what brings it up again.
func (s *Site) down(t *testing.T, unit string) (up func()) {
	t.Helper()
	if err := s.KillAndKeepDown(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	up = sync.OnceFunc(func() { s.up(t, unit) })
	t.Cleanup(up) // where the fault itself fails
	return up
}

func (s *Site) up(t *testing.T, unit string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startTimeout)
	defer cancel()
	if err := s.StartUnit(ctx, unit); err != nil {
		t.Fatal(err)
	}
}

// goesDown is a fault: kill -9 of a unit that nobody starts again.
func goesDown(unit string) func(*testing.T, *Site) func() {
	return func(t *testing.T, s *Site) func() { return s.down(t, unit) }
}

func nothing() {}

// of has labels of one host.
func of(host string) map[string]string { return map[string]string{"host": host} }
