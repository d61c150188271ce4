package main

import (
	"strings"
	"testing"

	"gpuqd/daemon/runner"
)

func TestOOMTextNamesTheLimitAndWhatToDo(t *testing.T) {
	for _, c := range []struct {
		limit   int64
		atLimit bool
		kills   int64
		want    []string
	}{
		{16 << 30, true, 1, []string{"a process", "limit of 16 GiB", "--memory"}},
		{1<<30 + 1<<20, true, 2, []string{"2 processes", "limit of 1025 MiB"}},
		{16 << 30, false, 1, []string{"the host", "run fewer jobs"}},
		{0, true, 1, []string{"the host"}},
	} {
		got := oomText(c.limit, c.atLimit, c.kills)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%+v: %q lacks %q", c, got, want)
			}
		}
	}
}

func TestUnheldLimitsAreSaid(t *testing.T) {
	limits := runner.Limits{MemoryBytesMax: 1 << 30}
	if got := unheld(limits, place{}); !strings.Contains(got, "not enforced") {
		t.Errorf("outside a unit: %q", got)
	}
	if got := unheld(limits, place{unit: "x.service"}); !strings.Contains(got, "memory_max is not enforced") {
		t.Errorf("where nobody counts memory: %q", got)
	}
	if got := unheld(runner.Limits{TasksMax: 5}, place{unit: "x.service"}); got != "" {
		t.Errorf("in a unit: %q", got)
	}
	if got := unheld(runner.Limits{}, place{}); got != "" {
		t.Errorf("without limits: %q", got)
	}
}
