package watch

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"

	"gpuqd/test/wait"
)

// The last comes last: some of Prometheus's samples are lost by it.
var monitoringFaults = []provocation{
	{
		fault:  "the file with the targets of the node exporters is empty",
		strike: targetsMissing,
		alerts: []wanted{{alert: "TargetsMissing", labels: map[string]string{"job": "node"}}},
	},
	{
		fault:  "a rule is added that matches series in no one way",
		strike: ruleFails,
		alerts: []wanted{{alert: "RulesFailing"}},
	},
	{
		fault:  "Prometheus is told to read a configuration with a mistake",
		strike: configRefused,
		alerts: []wanted{{alert: "MonitoringConfigRefused", labels: map[string]string{"job": "prometheus"}}},
	},
	{
		fault:  "who is to be told of alerts refuses (a webhook that answers 403)",
		strike: receiverRefuses,
		alerts: []wanted{{alert: "NotificationsFailing", labels: map[string]string{"integration": "webhook"}}},
	},
	{
		fault:  "Alertmanager is killed and kept down",
		strike: goesDown("alertmanager"),
		alerts: []wanted{{alert: "AlertmanagerUnreachable", unsent: true}},
	},
	{
		fault:  "none: it fires always, and is gone after Prometheus has ended",
		strike: prometheusEnds,
		alerts: []wanted{{alert: "Watchdog", lasting: true}},
	},
	{
		fault:  "a byte of Prometheus's write-ahead log is changed while it is down",
		strike: samplesDamaged,
		alerts: []wanted{{alert: "PrometheusStorageFailing"}},
	},
}

// change replaces a file by what a function makes of it. What it returns puts it back.
func change(t *testing.T, path string, how func([]byte) []byte) (back func()) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text []byte) {
		// Whole, since file_sd may read it at any moment.
		if err := errors.Join(os.WriteFile(path+".new", text, 0o644), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	write(how(slices.Clone(text)))
	return func() { write(text) }
}

// reload has a server read its configuration again, and returns what it said.
func reload(t *testing.T, address string) error {
	t.Helper()
	resp, err := http.Post(address+"/-/reload", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// mustReload is for configurations that are right.
func mustReload(t *testing.T, address string) {
	t.Helper()
	if err := reload(t, address); err != nil {
		t.Fatalf("reload %s: %v", address, err)
	}
}

func (s *Site) monitoringFile(parts ...string) string {
	return filepath.Join(append([]string{s.Dir(), "monitoring"}, parts...)...)
}

func targetsMissing(t *testing.T, s *Site) func() {
	return change(t, s.monitoringFile("prometheus", "targets", "node.yml"), func([]byte) []byte { return []byte("[]\n") })
}

// wrongRule is right to promtool, and wrong for the series that there are.
const wrongRule = `
groups:
  - name: wrong
    rules:
      - {record: gpuqd:wrong, expr: 'gpuqd_ready * on () gpuqd_ready'}
`

func ruleFails(t *testing.T, s *Site) func() {
	back := change(t, filepath.Join(s.options.Monitoring.RulesDir, "own.yml"), func([]byte) []byte { return []byte(wrongRule) })
	mustReload(t, string(s.Prometheus))
	return func() {
		back()
		mustReload(t, string(s.Prometheus))
	}
}

func configRefused(t *testing.T, s *Site) func() {
	back := change(t, s.monitoringFile("prometheus", "prometheus.yml"), func(text []byte) []byte {
		return bytes.Replace(text, []byte("scrape_interval"), []byte("scrape_intervall"), 1)
	})
	if err := reload(t, string(s.Prometheus)); err == nil {
		t.Fatal("Prometheus has taken a configuration with a mistake")
	}
	return func() {
		back()
		mustReload(t, string(s.Prometheus))
	}
}

// receiverRefuses gives Alertmanager somebody to tell, who does not want to hear. It tells
// again every second, and not every five minutes.
func receiverRefuses(t *testing.T, s *Site) func() {
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(hook.Close)
	back := change(t, s.monitoringFile("alertmanager", "alertmanager.yml"), func(text []byte) []byte {
		var config map[string]any
		if err := yaml.Unmarshal(text, &config); err != nil {
			t.Fatal(err)
		}
		receivers, _ := config["receivers"].([]any)
		for _, r := range receivers {
			if r, ok := r.(map[string]any); ok && r["name"] != "watchdog" {
				r["webhook_configs"] = []any{map[string]any{"url": hook.URL}}
			}
		}
		route, ok := config["route"].(map[string]any)
		if !ok || len(receivers) == 0 {
			t.Fatalf("Alertmanager's configuration has no route or no receivers:\n%s", text)
		}
		route["group_wait"], route["group_interval"] = "1s", "1s"
		text, err := yaml.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		return text
	})
	mustReload(t, string(s.Alertmanager))
	redis := s.down(t, "redis_exporter") // something to tell
	return func() {
		redis()
		back()
		mustReload(t, string(s.Alertmanager))
	}
}

func prometheusEnds(t *testing.T, s *Site) func() {
	return func() {
		up := s.down(t, "prometheus")
		t.Cleanup(up)
	}
}

// samplesDamaged changes a byte near the end of the last segment, once all that is counted
// has been in it.
func samplesDamaged(t *testing.T, s *Site) func() {
	const counted = "count_over_time(prometheus_tsdb_wal_corruptions_total[1m])"
	wait.For(t, patience, func() error { // whatever begins with 1 is no increase
		n, err := s.value(t, counted)
		if err == nil && n < 10 {
			err = fmt.Errorf("%s is %v", counted, n)
		}
		return err
	})
	if err := s.KeepDown(t.Context(), "prometheus"); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(s.monitoringFile("prometheus", "data", "wal", "0*"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("there is no write-ahead log: %v", err)
	}
	slices.Sort(segments)
	change(t, segments[len(segments)-1], func(log []byte) []byte {
		at := len(log) * 95 / 100
		log[at] ^= 0xff
		return log
	})
	s.up(t, "prometheus")
	return nothing
}
