package bench

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"gpuqd/test/bench/floor"
)

func TestPageIsWhatTheResultSays(t *testing.T) {
	r, err := Load("results/sqlite.json")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(page, Report(r)) {
		t.Error("docs/performance.md is not what test/bench/results say: run make bench/report")
	}
}

func TestReportComparesRoundByRound(t *testing.T) {
	o := Defaults()
	r := &Result{
		Began: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC), Options: o,
		Machine: Machine{CPU: "a processor", Cores: 8, FileSystem: "ext4", Load: []float64{0.5, 1, 2}, Commit: "0123456789ab"},
		Waiting: []Waiting{{Waiting: 1_000_000, Jobs: 308, Rate: 31.4, CPU: CPU{Own: 9, Children: 40, Broker: 8.5}}},
		Share:   0.876,
	}
	for _, rates := range [][2]float64{{60, 100}, {90, 100}, {35, 50}} {
		r.Rounds = append(r.Rounds, Round{
			Gpuqd: Side{Rate: rates[0], Latency: Spread{P50: 30}, PerJob: floor.Operations{floor.Depth: 2.25}, CPU: CPU{Own: 4, Children: 6}},
			Floor: Side{Rate: rates[1], Latency: Spread{P50: 20}, PerJob: floor.Operations{floor.Depth: 2}, CPU: CPU{Own: 3, Children: 5}},
		})
	}
	text := string(Report(r))
	for _, want := range []string{
		"| commit | 0123456789ab |",
		"| load before (1, 5, 15 minutes) | 0.50, 1.00, 2.00 |",
		"| 2 | 90.0 | 100 | 90 % | 30.0 | 20.0 | 1.50 |",
		"| median | 60.0 | 100 | **70 %** | 30.0 | 20.0 | **1.50** |", // of the shares, not the share of medians
		"| gpuqd's share of it | **70 %** | median of 3 rounds; 60 % to 90 %;",
		"| `/bin/true` while 1,000,000 jobs wait | **31.4 jobs/s** | 308 jobs; processor time of each: gpuqd 9.0 ms, shim and command 40.0, RabbitMQ 8.5 |",
		"| device time used by jobs of 0.2 s | **87.6 %** |",
		"| broker: look at a depth | 2.25 | 2.00 |",
		"| together | 10.00 | 8.00 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not have %q:\n%s", want, text)
		}
	}
	var out strings.Builder
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "31.4 jobs/s") {
		t.Errorf("the text does not have the rate:\n%s", out.String())
	}
}
