package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gpuqd/daemon/runner/proctree"
)

// tickSeconds is the unit of times in /proc/<pid>/stat: USER_HZ is 100 on every
// Linux that Go runs on.
const tickSeconds = 0.01

// cpuTimes are the processor seconds of a process and of its children that it has
// waited for.
type cpuTimes struct{ self, children float64 }

// cpuOf reads /proc/<pid>/stat, fields 14 to 17. Source: proc(5).
func cpuOf(pid int) (t cpuTimes, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return t, err
	}
	// The name, in brackets, may hold anything.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 15 {
		return t, fmt.Errorf("/proc/%d/stat has %d fields after the name", pid, len(fields))
	}
	var ticks [4]float64
	for i := range ticks {
		if ticks[i], err = strconv.ParseFloat(fields[11+i], 64); err != nil {
			return t, err
		}
	}
	return cpuTimes{(ticks[0] + ticks[1]) * tickSeconds, (ticks[2] + ticks[3]) * tickSeconds}, nil
}

// treeCPU returns the processor seconds of a process and all below it.
func treeCPU(pid int) (float64, error) {
	below, err := proctree.Descendants(pid)
	if err != nil {
		return 0, err
	}
	own, err := cpuOf(pid)
	total := own.self + own.children
	for _, p := range below {
		if t, err := cpuOf(p.PID); err == nil { // else it has ended meanwhile
			total += t.self + t.children
		}
	}
	return total, err
}

// scheduled returns the seconds that the living threads of a process have run, to
// the nanosecond. Source: proc(5), /proc/<pid>/schedstat.
func scheduled(pid int) (float64, error) {
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	if len(paths) == 0 {
		return 0, fmt.Errorf("process %d has no threads: it has ended", pid)
	}
	var total float64
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		var ran int64
		if _, err := fmt.Sscan(string(data), &ran); err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		total += float64(ran) / 1e9
	}
	return total, nil
}

// Memory is what a process keeps in memory, in MiB.
type Memory struct {
	Resident     float64 `json:"resident_mib"`     // with what it shares with others
	Proportional float64 `json:"proportional_mib"` // what is shared divided by its users
}

// memoryOf reads /proc/<pid>/smaps_rollup, whose fields are in KiB.
func memoryOf(pid int) (m Memory, err error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return m, err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			continue
		}
		to := map[string]*float64{"Rss:": &m.Resident, "Pss:": &m.Proportional}[words[0]]
		if to == nil {
			continue
		}
		kib, err := strconv.ParseFloat(words[1], 64)
		if err != nil {
			return m, err
		}
		*to = kib / 1024
	}
	return m, nil
}
