package proctree

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Memory is a cgroup that accounts for memory, of either version; the zero value
// is none.
type Memory struct {
	dir    string
	legacy bool // version 1
}

// OwnMemory returns the cgroup of the given name that accounts for the caller's
// memory: its own, or one above it. It returns none where that is another's: its
// figures would be those of strangers.
func OwnMemory(name string) Memory {
	for _, m := range []struct{ controller, file string }{{"", "memory.events"}, {"memory", "memory.oom_control"}} {
		dir, err := ownCgroup(m.controller)
		if err != nil {
			continue
		}
		for ; len(dir) > 1 && filepath.Base(dir) != name; dir = filepath.Dir(dir) {
		}
		if _, err := os.Stat(filepath.Join(dir, m.file)); len(dir) > 1 && err == nil {
			return Memory{dir, m.controller != ""}
		}
	}
	return Memory{}
}

// Memory returns c as the cgroup that accounts for what is in it.
func (c Cgroup) Memory() Memory { return Memory{dir: string(c)} }

// Peak returns the largest memory use in bytes; false where nobody counts it.
func (m Memory) Peak() (int64, bool) {
	file := "memory.peak"
	if m.legacy {
		file = "memory.max_usage_in_bytes"
	}
	return m.number(file, "")
}

// OOM returns how many processes the kernel has killed for want of memory in the
// cgroup and below it, and whether its own limit was ever reached: else the host,
// or a cgroup above, ran out. false where nobody counts.
func (m Memory) OOM() (kills int64, atLimit, ok bool) {
	if m.legacy {
		kills, ok = m.number("memory.oom_control", "oom_kill")
		failed, _ := m.number("memory.failcnt", "")
		return kills, failed > 0, ok
	}
	kills, ok = m.number("memory.events", "oom_kill")
	limit, _ := m.number("memory.events", "oom")
	return kills, limit > 0, ok
}

// number reads a file with one number, or the number behind a word.
func (m Memory) number(file, word string) (int64, bool) {
	if m.dir == "" {
		return 0, false
	}
	data, err := os.ReadFile(filepath.Join(m.dir, file))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		name, value, found := strings.Cut(strings.TrimSpace(line), " ")
		if word == "" {
			value = name
		} else if !found || name != word {
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		return n, err == nil
	}
	return 0, false
}
