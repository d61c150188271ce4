package monitoring

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rendered returns a role's configuration as JSON, and skips where Debian's Jinja is
// not installed.
func rendered(t *testing.T, role, template string, variables map[string]any) (map[string]any, string) {
	t.Helper()
	for _, dir := range []string{"jinja2", "yaml"} {
		if _, err := os.Stat(filepath.Join("/usr/lib/python3/dist-packages", dir)); err != nil {
			t.Skipf("%s is not installed: %s", dir, howToInstall)
		}
	}
	config, err := render(t.Context(), role, template, variables)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return config, string(text)
}

func TestRender(t *testing.T) {
	t.Run("PromtailHasTheDefaultsOfRoleLogs", func(t *testing.T) {
		_, text := rendered(t, "logs,promtail", "gpuq.yml.j2", map[string]any{
			"gpuq_logs_job": "workers", "gpuq_logs_host": "here", "gpuq_logs_urls": []string{"http://127.0.0.1:1/push"},
			"gpuq_logs_retries": 0,
		})
		for _, want := range []string{
			`"source_labels":["__journal_gpuq_job_id"],"target_label":"job_id"`, `"labels":{"host":"here","job":"workers"}`,
			`"job_id":"job_id"`, `"url":"http://127.0.0.1:1/push"`, `"max_age":"24h"`,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%s is missing in %s", want, text)
			}
		}
	})
	t.Run("PrometheusHasTheJobsOfItsRole", func(t *testing.T) {
		config, _ := rendered(t, "prometheus", "prometheus.yml.j2", map[string]any{
			"prometheus_peers": []string{}, "gpuq_site_groups": []string{}, "gpuq_logs_agent": "promtail",
		})
		got := strings.Join(jobs(config), " ")
		if want := "gpuqd node rabbitmq redis mongodb loki logs grafana"; got != want {
			t.Errorf("jobs are %s, want %s: a change here is one of test/cluster, too", got, want)
		}
	})
	t.Run("AlertmanagerKeepsAlertsOfADeadHostBack", func(t *testing.T) {
		_, text := rendered(t, "prometheus", "alertmanager.yml.j2", map[string]any{})
		if !strings.Contains(text, `"inhibit_rules":[{"equal":["host"]`) {
			t.Errorf("got %s", text)
		}
	})
	t.Run("GrafanaAsksTheseServers", func(t *testing.T) {
		_, text := rendered(t, "grafana", "datasources.yml.j2", map[string]any{"gpuq_prometheus_port": 1, "gpuq_loki_port": 2})
		for _, want := range []string{`"url":"http://127.0.0.1:1"`, `"url":"http://127.0.0.1:2"`} {
			if !strings.Contains(text, want) {
				t.Errorf("%s is missing in %s", want, text)
			}
		}
	})
	t.Run("MissingVariableIsNamed", func(t *testing.T) {
		rendered(t, "prometheus", "alertmanager.yml.j2", map[string]any{})
		_, err := render(t.Context(), "promtail", "gpuq.yml.j2", map[string]any{})
		if err == nil || !strings.Contains(err.Error(), "gpuq_logs_listen_address") {
			t.Errorf("%v, want the name of what is missing", err)
		}
	})
}

func TestLay(t *testing.T) {
	under := map[string]any{"a": map[string]any{"b": 1, "c": 2}, "d": 3}
	lay(under, map[string]any{"a": map[string]any{"b": 9}, "e": map[string]any{"f": 5}})
	text, err := json.Marshal(under)
	if want := `{"a":{"b":9,"c":2},"d":3,"e":{"f":5}}`; err != nil || string(text) != want {
		t.Errorf("%s %v, want %s", text, err, want)
	}
}
