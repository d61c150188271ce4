package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// known is what is known of a metric.
type known struct {
	kind   string // counter, gauge, histogram, summary, untyped
	labels []string
}

// ofTargets are the labels that Prometheus gives every series (role prometheus).
var ofTargets = []string{"job", "host", "instance"}

// A row of docs/metrics.md: name, type, labels. A test of the daemon holds the page to
// what it serves.
var (
	pageRow  = regexp.MustCompile("(?m)^\\| `(gpuqd_[a-z_]+)` \\| ([a-z]+) \\|([^|]*)\\|")
	codeSpan = regexp.MustCompile("`([^`]+)`")
)

// metricsThatExist are gpuqd's own and those of the programs scraped beside it. What gpuqd
// has of Prometheus's Go client is not on its page.
func metricsThatExist(t *testing.T) map[string]known {
	t.Helper()
	all := map[string]known{
		"up":                         {"gauge", nil},
		"process_start_time_seconds": {"gauge", nil},
		"ALERTS":                     {"gauge", []string{"alertname", "alertstate", "severity"}},
	}
	page, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	own := pageRow.FindAllStringSubmatch(string(page), -1)
	for _, row := range own {
		k := known{kind: row[2]}
		for _, label := range codeSpan.FindAllStringSubmatch(row[3], -1) {
			k.labels = append(k.labels, label[1])
		}
		all[row[1]] = k
	}
	others, err := filepath.Glob("../../monitoring/thirdparty/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range others {
		for _, words := range wordLines(t, path) {
			all[words[0]] = known{kind: words[1]}
		}
	}
	for _, words := range wordLines(t, "labels.txt") {
		k, ok := all[words[0]]
		if !ok {
			t.Errorf("labels.txt has %s, of which test/monitoring/thirdparty knows nothing", words[0])
		}
		k.labels = words[1:]
		all[words[0]] = k
	}
	if len(own) < 40 || len(all) < len(own)+300 {
		t.Fatalf("only %d metrics of gpuqd and %d in all are known", len(own), len(all))
	}
	return all
}

// wordLines returns the lines of a file with two words or more, without its comments.
func wordLines(t *testing.T, path string) (lines [][]string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] != "#" {
			lines = append(lines, words)
		}
	}
	return lines
}

// find returns what is known of a series by its name: a histogram is three of them.
func find(all map[string]known, name string) (known, bool) {
	if k, ok := all[name]; ok && k.kind != "histogram" {
		k.labels = slices.Concat(k.labels, ofTargets)
		return k, true
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		base, ok := strings.CutSuffix(name, suffix)
		k := all[base]
		if !ok || k.kind != "histogram" && (k.kind != "summary" || suffix == "_bucket") {
			continue
		}
		k.kind = "counter"
		k.labels = slices.Concat(k.labels, ofTargets)
		if suffix == "_bucket" {
			k.labels = append(k.labels, "le")
		}
		return k, true
	}
	return known{}, false
}
