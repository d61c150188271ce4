package main

import (
	"fmt"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/proctree"
)

// memory returns the cgroup that accounts for the attempt's memory: its unit's,
// else its own, where the kernel counts there.
func (s *supervisor) memory() proctree.Memory {
	if s.place.unit != "" {
		return s.place.memory
	}
	return s.cmd.cgroup.Memory()
}

// classOOM classes the end of a command that lost a process, or itself, to the
// kernel for want of memory. One that then succeeded has got on without it, and a
// stop came from somebody else.
//
// Source: cgroup v2, memory.events; cgroup v1, memory.oom_control.
func (s *supervisor) classOOM(exit *runner.Exit) {
	if exit.Class != job.ClassUser {
		return
	}
	kills, atLimit, ok := s.memory().OOM()
	if !ok || kills == 0 {
		return
	}
	exit.Class, exit.Reason = job.ClassOOMHost, oomText(s.in.Limits.MemoryBytesMax, atLimit, kills)
}

func oomText(limit int64, atLimit bool, kills int64) string {
	processes := "a process"
	if kills > 1 {
		processes = fmt.Sprintf("%d processes", kills)
	}
	if limit > 0 && atLimit {
		return fmt.Sprintf("out of memory: the kernel ended %s of the job at its limit of %s (memory_max); submit with a higher --memory, or use less", processes, bytesText(limit))
	}
	return fmt.Sprintf("out of memory: the host, or the part of it that this user's jobs may have, ran out, and the kernel ended %s of the job; "+
		"run fewer jobs there, give each a --memory limit, or use less", processes)
}

// bytesText writes a size in the largest unit that it is whole in.
func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for n%1024 == 0 && n > 0 && i < len(units)-1 {
		n /= 1024
		i++
	}
	return fmt.Sprintf("%d %s", n, units[i])
}
