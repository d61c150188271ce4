package campaign

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// results are the results that docs/reliability.md is written from.
func results(t *testing.T) []*Result {
	t.Helper()
	paths, err := filepath.Glob("results/*.json")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	slices.Reverse(paths) // sqlite before mongodb
	var list []*Result
	for _, path := range paths {
		r, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	if len(list) == 0 {
		t.Fatal("there are no results: run make campaign")
	}
	return list
}

func TestPageIsWhatTheResultsSay(t *testing.T) {
	page, err := os.ReadFile("../../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := Parts(page)
	if len(theirs) == 0 {
		t.Error("docs/reliability.md has nothing of test/watch's")
	}
	if !bytes.Equal(ours, Report(results(t))) {
		t.Error("docs/reliability.md is not what test/campaign/results say: run make campaign/report")
	}
}

func TestReportTellsWhatBroke(t *testing.T) {
	r := &Result{
		Seed: 42, Ledger: "sqlite", Store: "SQLite", Lost: 1,
		Faults: []FaultResult{
			{Number: 1, Class: ShimKilled, First: 1, All: 1, Claim: 1},
			{Number: 2, Class: ShimKilled, First: 3, All: 9, Claim: 2},
			{Number: 3, Class: ShimKilled, First: -1, All: -1, Claim: -1},
			{Number: 4, Class: DiskFull, Error: "no\ndisk"},
		},
		Timeouts: []float64{0.5, -1}, Problems: []string{"lost job=1:\n\tit was confirmed"},
	}
	if r.Good() || r.Done() != 3 {
		t.Errorf("good %t, %d faults done", r.Good(), r.Done())
	}
	text := string(Report([]*Result{r}))
	for _, want := range []string{
		"| **lost** | **1** |",
		"| shim_killed | 1 | 3 | 3.0 | 3.0 | 9.0 | 9.0 | 2.0 | 2.0 |",
		"| 3 shim_killed | 0.0 | 0.0 |  | never | never | never | 0 |",
		"not done: no disk",
		"- lost job=1: it was confirmed",
		"| consumer_timeout | 1 | 2 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report does not have %q", want)
		}
	}
	var out strings.Builder
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "PROBLEM: lost job=1") {
		t.Errorf("the text does not tell of the problem:\n%s", out.String())
	}
}
