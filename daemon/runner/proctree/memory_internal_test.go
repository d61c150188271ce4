package proctree

import (
	"os"
	"path/filepath"
	"testing"
)

// The files are as Linux 6.1 (version 2) and 6.18 (version 1) show them.
func TestMemoryOfBothVersions(t *testing.T) {
	for _, c := range []struct {
		what    string
		legacy  bool
		files   map[string]string
		peak    int64
		kills   int64
		atLimit bool
		counts  bool
	}{
		{"AtItsLimit", false, map[string]string{
			"memory.peak": "67108864\n", "memory.events": "low 0\nhigh 0\nmax 341\noom 2\noom_kill 1\noom_group_kill 0\n",
		}, 67108864, 1, true, true},
		{"TheHostRanOut", false, map[string]string{
			"memory.peak": "4096\n", "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 3\noom_group_kill 0\n",
		}, 4096, 3, false, true},
		{"Version1", true, map[string]string{
			"memory.max_usage_in_bytes": "67108864\n", "memory.failcnt": "120\n",
			"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
		}, 67108864, 1, true, true},
		{"Nobody counts", false, nil, 0, 0, false, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			m := Memory{dir, c.legacy}
			if peak, ok := m.Peak(); peak != c.peak || ok != c.counts {
				t.Errorf("peak %d, %v", peak, ok)
			}
			if kills, atLimit, ok := m.OOM(); kills != c.kills || atLimit != c.atLimit || ok != c.counts {
				t.Errorf("OOM %d, %v, %v", kills, atLimit, ok)
			}
		})
	}
	if _, ok := (Memory{}).Peak(); ok {
		t.Error("no cgroup has a peak")
	}
}

// The figures of a cgroup that others share are not an attempt's.
func TestOwnMemoryIsOfTheNamedCgroupAlone(t *testing.T) {
	if m := OwnMemory("gpuqd-job-x.service"); m != (Memory{}) {
		t.Errorf("got %+v", m)
	}
}
