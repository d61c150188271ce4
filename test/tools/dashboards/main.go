// Program dashboards writes gpuqd's Grafana dashboards: make dashboards. Its tests hold
// them to what gpuqd, the exporters and the runbooks have.
//
// A panel is a few lines in the dashboard's own file (fleet.go, host.go, ...):
//
//	graph("Retries", units.CountsPerSecond, "Attempts after which the job waits for another, on its budget.",
//		ratePerSecond(metric("gpuqd_retries_total"), "host").as("{{host}}")).runbook("JobsFailingFast"),
//
// query.go has a helper for each kind of metric: ratePerSecond and increase for counters,
// quantile for histograms, sumOf, maxOf and minOf for gauges. panel.go has the kinds of
// panels: graph, stack, number, bars, rows (a table) and lines (of logs).
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	root := flag.String("root", "../../..", "the checkout")
	flag.Parse()
	if err := write(*root); err != nil {
		fmt.Fprintln(os.Stderr, "dashboards:", err)
		os.Exit(1)
	}
}

// installed is where the role grafana takes dashboards from.
const installed = "ansible/roles/grafana/files/dashboards"

func write(root string) error {
	files, err := generate(root)
	if err != nil {
		return err
	}
	dir := filepath.Join(root, installed)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate makes all dashboards: content by file name. The runbooks are those of the
// checkout at root.
func generate(root string) (map[string][]byte, error) {
	runbooks, err := readRunbooks(filepath.Join(root, "docs/runbooks"))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, b := range append(boards(), runbooks.board()) {
		d, err := b.build(runbooks)
		if err != nil {
			return nil, err
		}
		if files[b.uid+".json"], err = encode(d); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func boards() []board { return []board{fleet(), host(), jobBoard(), queues(), hours()} }
