package monitoring

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// promtool runs it; make deps installs it.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is not installed: make deps, or apt-get install prometheus (and stop the service that it starts)")
	}
	if out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatal("no file matches "+pattern, err)
	}
	return files
}

func TestPromtoolTakesTheRules(t *testing.T) {
	promtool(t, append([]string{"check", "rules"}, glob(t, rulesDir+"/*.yml")...)...)
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	for _, path := range glob(t, "rules/*.yml") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yml"), func(t *testing.T) {
			t.Parallel()
			promtool(t, "test", "rules", path)
		})
	}
}

// cases are promtool's, as far as they say which alert they try. An alert that has to
// fire is asked for as ALERTS, with its labels; one that must not, by its name.
type cases struct {
	Tests []struct {
		Name   string
		Quiet  []struct{ Alertname string } `yaml:"alert_rule_test"`
		Firing []struct {
			Samples []struct{ Labels string } `yaml:"exp_samples"`
		} `yaml:"promql_expr_test"`
	}
}

var alertLabel = regexp.MustCompile(`alertname="([A-Za-z]+)"`)

// tried returns how many cases say that an alert fires, and that it does not.
func tried(t *testing.T) (fires, quiet map[string]int) {
	t.Helper()
	fires, quiet = map[string]int{}, map[string]int{}
	for _, path := range glob(t, "rules/*.yml") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var file cases
		if err := yaml.Unmarshal(text, &file); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, one := range file.Tests {
			for _, c := range one.Quiet {
				quiet[c.Alertname]++
			}
			for _, c := range one.Firing {
				for _, s := range c.Samples {
					if m := alertLabel.FindStringSubmatch(s.Labels); m != nil {
						fires[m[1]]++
					}
				}
			}
		}
	}
	return fires, quiet
}

func TestEveryAlertIsTried(t *testing.T) {
	fires, quiet := tried(t)
	names := map[string]bool{}
	for _, a := range alerts(t) {
		names[a.Alert] = true
		if fires[a.Alert] == 0 {
			t.Errorf("no case makes %s fire", a.Alert)
		}
		if quiet[a.Alert] == 0 && a.Alert != watchdog {
			t.Errorf("no case has %s stay quiet", a.Alert)
		}
	}
	for _, name := range slices.Concat(slices.Collect(maps.Keys(fires)), slices.Collect(maps.Keys(quiet))) {
		if !names[name] {
			t.Errorf("a case tries %s, which is no alert", name)
		}
	}
}

// Every duration of the rules is scaled, or known not to be.
func TestScale(t *testing.T) {
	t.Run("EveryDurationIsMultiplied", func(t *testing.T) {
		const rules = `
  - name: g
    interval: 1m
    rules:
      - alert: A
        expr: rate(a[5m]) > 600 # seconds
          and max_over_time(sum(b)[1d2h:10m] offset 1h30m)
        for: 10m
`
		const want = `
  - name: g
    interval: 1000ms
    rules:
      - alert: A
        expr: rate(a[6000ms]) > 10 # seconds
          and max_over_time(sum(b)[1560000ms:10000ms] offset 90000ms)
        for: 10000ms
`
		got, err := Scale([]byte(rules), 1./60, 6*time.Second)
		if err != nil || string(got) != want {
			t.Errorf("got %s (%v), want %s", got, err, want)
		}
	})
	t.Run("PromtoolTakesScaledRules", func(t *testing.T) {
		duration := regexp.MustCompile(`[\[: ][0-9]+[smhdw]\b`)
		comment := regexp.MustCompile(`(?m)^ *#.*$|^ +(summary|description):(.*\n {12})*.*$`)
		for _, path := range glob(t, rulesDir+"/*.yml") {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			scaled, err := Scale(text, .01, 3*time.Second)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if left := duration.FindAll(comment.ReplaceAll(scaled, nil), -1); len(left) > 0 {
				t.Errorf("%s: these durations were not scaled: %q", path, left)
			}
			copied := filepath.Join(t.TempDir(), filepath.Base(path))
			if err := os.WriteFile(copied, scaled, 0o644); err != nil {
				t.Fatal(err)
			}
			promtool(t, "check", "rules", copied)
		}
	})
	t.Run("WhatIsNoDurationIsRefused", func(t *testing.T) {
		if _, err := Scale([]byte("        for: 5x\n"), 1, 0); err == nil {
			t.Error("5x was scaled")
		}
	})
}
