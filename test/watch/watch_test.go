package watch

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gpuqd/test/cluster"
	"gpuqd/test/wait"
)

// patience bounds the wait for what takes seconds.
const patience = time.Minute

// hostGone is a rule that a test can wait for: a site's waits for minutes.
const hostGone = `
groups:
  - name: own
    rules:
      - alert: HostGone
        expr: up{job="node"} == 0
        labels: {severity: critical}
        annotations: {summary: "{{ $labels.host }} is gone"}
`

// TestWatchedCluster runs all on one cluster, one after the other.
func TestWatchedCluster(t *testing.T) {
	Need(t)
	s := Start(t, cluster.Options{Ledger: "sqlite", Monitoring: &cluster.Monitoring{RulesDir: Rules(t, hostGone)}})
	for _, test := range []struct {
		claim string
		run   func(*testing.T, *Site)
	}{
		{"EveryTargetIsUp", testTargets},
		{"EveryRuleIsEvaluated", testRules},
		{"EveryWorkersLinesAreThere", testDaemons},
		{"JobsLinesAreFoundSoon", testSoon},
		{"AllAboutAJobIsOneQuery", testJob},
		{"LinesThatTheShimDropsAreCounted", testShimDrops},
		{"LinesThatJournaldDropsAreCounted", testJournaldDrops},
		{"NothingIsLostWhileLokiIsAway", testLokiAway},
		{"DeadHostIsAnAlertUntilItIsBack", testDeadHost},
		{"LabelsAreThree", testLabels},
	} {
		t.Run(test.claim, func(t *testing.T) { test.run(t, s) })
	}
}

func testTargets(t *testing.T, s *Site) {
	want := map[string]int{
		"prometheus": 1, "alertmanager": 1, "loki": 1, "redis": 1, "rabbitmq": len(s.RabbitNodes()),
		"gpuqd": len(s.Workers()), "node": len(s.Workers()), "logs": len(s.Workers()),
	}
	wait.For(t, patience, func() error {
		targets, err := s.Prometheus.Targets(t.Context())
		if err != nil {
			return err
		}
		got := map[string]int{}
		for _, target := range targets {
			got[target.Labels["job"]]++
			if target.Health != "up" || target.Labels["host"] == "" {
				return fmt.Errorf("target %v is %s: %s", target.Labels, target.Health, target.LastError)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("targets are %v, want %v", got, want)
		}
		return nil
	})
}

func testRules(t *testing.T, s *Site) {
	wait.For(t, patience, func() error {
		rules, err := s.Prometheus.Rules(t.Context())
		if err != nil {
			return err
		}
		names := map[string]bool{}
		for _, rule := range rules {
			names[rule.Name] = true
			if rule.Health != "ok" {
				return fmt.Errorf("rule %s is %s: %s", rule.Name, rule.Health, rule.LastError)
			}
		}
		if !names["HostDown"] || !names["HostGone"] {
			return fmt.Errorf("a site's rules or the test's are missing: %v", names)
		}
		return nil
	})
}

func testDaemons(t *testing.T, s *Site) {
	wait.For(t, patience, func() error {
		lines, err := s.Loki.Query(t.Context(), `{job="workers"} | identifier="gpuqd"`, time.Now().Add(-time.Hour), 5000)
		if err != nil {
			return err
		}
		of := map[string]int{}
		for _, line := range lines {
			of[line.Labels["host"]]++
		}
		for _, worker := range s.Workers() {
			if of[worker] == 0 {
				return fmt.Errorf("there is no line of gpuqd on %s: %v", worker, of)
			}
		}
		return nil
	})
}

// testSoon measures how long after a job has printed a line that is found by its ID.
func testSoon(t *testing.T, s *Site) {
	const jobs = 50
	var took []time.Duration
	for range jobs {
		id := s.Submit(t, `echo "printed at $(date +%s%N)"`)
		query := fmt.Sprintf(`{job="workers"} | job_id=%q | identifier="gpuqd-job"`, id)
		wait.For(t, patience, func() error {
			lines, err := s.Loki.Query(t.Context(), query, time.Now().Add(-time.Hour), 10)
			if err != nil {
				return err
			}
			if len(lines) == 0 {
				return fmt.Errorf("%s finds nothing", query)
			}
			ns, err := strconv.ParseInt(strings.TrimPrefix(lines[0].Text, "printed at "), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Since(time.Unix(0, ns)))
			return nil
		})
	}
	slices.Sort(took)
	t.Logf("a line is found after %s (median of %d jobs), %s (95 %%), %s (the longest)",
		took[jobs/2].Round(time.Millisecond), jobs, took[jobs*95/100].Round(time.Millisecond), took[jobs-1].Round(time.Millisecond))
}

func testJob(t *testing.T, s *Site) {
	id := s.Submit(t, "echo said by the job; echo and on stderr >&2; exit 3")
	s.WaitEnd(t, id)
	wait.For(t, patience, func() error {
		lines, err := s.Loki.Query(t.Context(), fmt.Sprintf(`{job="workers"} | job_id=%q`, id), time.Now().Add(-time.Hour), 100)
		if err != nil {
			return err
		}
		var all strings.Builder
		for _, line := range lines {
			fmt.Fprintf(&all, "%s/%s: %s\n", line.Labels["identifier"], line.Labels["level"], line.Text)
			if line.Labels["identifier"] == "gpuqd-job" && line.Labels["attempt"] != "1" {
				t.Errorf("a line has attempt %q: %s", line.Labels["attempt"], line.Text)
			}
		}
		for _, want := range []string{
			"gpuqd/info: attempt started", "gpuqd/info: attempt finished",
			"gpuqd-job/info: said by the job", "gpuqd-job/info: and on stderr",
		} {
			if !strings.Contains(all.String(), want) {
				return fmt.Errorf("%q is missing in\n%s", want, all.String())
			}
		}
		return nil
	})
}

func testLokiAway(t *testing.T, s *Site) {
	if err := s.KeepDown(t.Context(), "loki"); err != nil {
		t.Fatal(err)
	}
	// Not all at once: the shim drops what a busy journald does not take in time.
	const lines = 100
	id := s.Submit(t, fmt.Sprintf("for n in $(seq %d); do echo $n; sleep 0.02; done", lines))
	if j := s.WaitEnd(t, id); j.Result == nil || j.Result.JournalDroppedLines > 0 {
		t.Fatalf("journald has not got all lines: %+v", j.Result)
	}
	if err := s.StartUnit(t.Context(), "loki"); err != nil {
		t.Fatal(err)
	}
	// Promtail tries again after a pause that has grown meanwhile.
	wait.For(t, 5*time.Minute, func() error {
		n, err := s.Loki.Count(t.Context(), countOutput(string(id)))
		if err == nil && n != lines {
			err = fmt.Errorf("%v of %d lines are there", n, lines)
		}
		return err
	})
}

// countOutput is how many lines of a job's output Loki has.
func countOutput(id string) string {
	return fmt.Sprintf(`sum(count_over_time({job="workers"} | job_id=%q | identifier="gpuqd-job" [1h]))`, id)
}

func testDeadHost(t *testing.T, s *Site) {
	alert := map[string]string{"alertname": "HostGone", "host": "worker_3"}
	if err := s.KillHost(t.Context(), "worker_3"); err != nil {
		t.Fatal(err)
	}
	found, took := s.WaitAlert(t, patience, alert)
	t.Logf("Alertmanager had %q %s after the host was killed", found.Annotations["summary"], took.Round(time.Millisecond))
	if err := s.StartUnit(t.Context(), "worker_3"); err != nil {
		t.Fatal(err)
	}
	s.WaitResolved(t, patience, alert)
	testTargets(t, s)
}

func testLabels(t *testing.T, s *Site) {
	labels, err := s.Loki.Labels(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(labels)
	if want := []string{"host", "job", "level"}; !slices.Equal(labels, want) {
		t.Errorf("labels are %v, want %v alone: others make streams", labels, want)
	}
}
