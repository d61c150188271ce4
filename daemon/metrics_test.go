package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/broker"
	"gpuqd/daemon/config"
	"gpuqd/daemon/dedup"
	"gpuqd/daemon/device"
	"gpuqd/daemon/version"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// metric is what is known of one metric: its row of docs/metrics.md, or how the
// daemon describes it.
type metric struct {
	kind   string
	labels []string // sorted
	help   string
}

// pageRow is a row of docs/metrics.md: name, type, labels.
var pageRow = regexp.MustCompile("(?m)^\\| `(gpuqd_[a-z_]+)` \\| ([a-z]+) \\|([^|]*)\\|")

var codeSpan = regexp.MustCompile("`([^`]+)`")

func onPage(t *testing.T) map[string]metric {
	t.Helper()
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	page := map[string]metric{}
	for _, row := range pageRow.FindAllStringSubmatch(string(text), -1) {
		m := metric{kind: row[2]}
		for _, label := range codeSpan.FindAllStringSubmatch(row[3], -1) {
			m.labels = append(m.labels, label[1])
		}
		slices.Sort(m.labels)
		if _, twice := page[row[1]]; twice {
			t.Errorf("%s is on the page twice", row[1])
		}
		page[row[1]] = m
	}
	return page
}

// descText is a prometheus.Desc as text: the library gives its parts in no other way.
var descText = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: "(.*)", constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

// inCode returns the metrics of a daemon wired as run does it, without the Go
// client's own.
func inCode(t *testing.T) map[string]metric {
	t.Helper()
	m := newMeters(version.Get())
	m.registry.MustRegister(standing{
		func() []broker.Connection { return broker.New(broker.Config{}).Connections() },
		func() []dedup.Circuit { return nil },
	})
	cfg := config.Default()
	cfg.Host.Name = "h"
	agent.New(agent.Options{
		Config: cfg, Registerer: m.registry, Devices: device.New("h", &device.Simulated{Host: "h", Count: 1}, nil),
	})
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		m.registry.Describe(descs)
	}()
	code := map[string]metric{}
	for d := range descs {
		part := descText.FindStringSubmatch(d.String())
		if part == nil {
			t.Fatalf("a description of another form: %s", d)
		}
		if !strings.HasPrefix(part[1], "gpuqd_") {
			continue
		}
		found := metric{help: part[2]}
		for _, label := range strings.Split(part[3]+","+part[4], ",") {
			if name, _, _ := strings.Cut(label, "="); name != "" {
				found.labels = append(found.labels, name)
			}
		}
		slices.Sort(found.labels)
		code[part[1]] = found
	}
	return code
}

func TestEveryMetricIsOnThePage(t *testing.T) {
	page, code := onPage(t), inCode(t)
	if len(code) < 40 {
		t.Fatalf("only %d metrics were found", len(code))
	}
	for name, m := range code {
		row, ok := page[name]
		if !ok {
			t.Errorf("%s is not in docs/metrics.md", name)
		} else if !slices.Equal(row.labels, m.labels) {
			t.Errorf("%s has the labels %q, docs/metrics.md says %q", name, m.labels, row.labels)
		}
	}
	for name := range page {
		if _, ok := code[name]; !ok {
			t.Errorf("docs/metrics.md has %s, the daemon does not", name)
		}
	}
}

// What promtool check metrics finds fault with, as if each metric had been moved.
// The types are the page's: the end-to-end suite holds those to running daemons.
func TestMetricsKeepPrometheusRules(t *testing.T) {
	page, code := onPage(t), inCode(t)
	var text strings.Builder
	for name, m := range code {
		kind, labels := page[name].kind, ""
		for _, label := range m.labels {
			labels += label + `="x",`
		}
		text.WriteString("# HELP " + name + " " + m.help + "\n# TYPE " + name + " " + kind + "\n")
		if kind == "histogram" {
			text.WriteString(name + "_bucket{" + labels + `le="+Inf"} 0` + "\n" + name + "_sum{" + labels + "} 0\n" + name + "_count{" + labels + "} 0\n")
		} else {
			text.WriteString(name + "{" + labels + "} 0\n")
		}
	}
	problems, err := promlint.New(strings.NewReader(text.String())).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
