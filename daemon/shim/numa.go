package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/runner"
)

// nodesDir is where the kernel tells which CPUs a NUMA node has.
//
// Source: Documentation/ABI/stable/sysfs-devices-node of the kernel.
const nodesDir = "/sys/devices/system/node"

// bind puts the calling thread, and so the command that it is about to become, on
// the CPUs and the memory of the nodes. Both survive an exec and are inherited. It
// returns what could not be done: a job runs slower for it, and is not refused.
//
// Source: sched_setaffinity(2), set_mempolicy(2).
func bind(n *runner.NUMA, dir string) error {
	cpus, err := cpusOf(n.Nodes, dir)
	if err != nil {
		return fmt.Errorf("not bound to the devices' NUMA nodes %v: %w", n.Nodes, err)
	}
	var mine unix.CPUSet
	if err := unix.SchedGetaffinity(0, &mine); err != nil {
		return fmt.Errorf("not bound to the devices' NUMA nodes %v: ask which CPUs there are: %w", n.Nodes, err)
	}
	both, count := intersect(mine, cpus)
	if count == 0 {
		return fmt.Errorf("not bound to the devices' NUMA nodes %v: none of their CPUs may be used here; look at CPUAffinity= and AllowedCPUs=, or at the container's cpuset", n.Nodes)
	}
	if err := unix.SchedSetaffinity(0, &both); err != nil {
		return fmt.Errorf("not bound to the devices' NUMA nodes %v: %w", n.Nodes, err)
	}
	if err := takeMemoryOf(n); err != nil {
		return fmt.Errorf("bound to the CPUs of the devices' NUMA nodes %v, but not to their memory: %w", n.Nodes, err)
	}
	return nil
}

// takeMemoryOf sets the memory policy. A kernel before 5.15 can prefer one node
// only; of several, the one whose CPU runs a thread is its first choice anyway.
func takeMemoryOf(n *runner.NUMA) error {
	var nodes unix.CPUSet
	for _, node := range n.Nodes {
		nodes.Set(node)
	}
	mode := unix.MPOL_PREFERRED
	switch {
	case n.Strict:
		mode = unix.MPOL_BIND
	case nodes.Count() > 1:
		mode = unix.MPOL_PREFERRED_MANY
	}
	err := unix.SetMemPolicy(mode, &nodes)
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: a container's seccomp profile may forbid set_mempolicy; allow it, or give the container CAP_SYS_NICE", err)
	case errors.Is(err, unix.EINVAL) && mode == unix.MPOL_PREFERRED_MANY:
		return fmt.Errorf("%w: this kernel cannot prefer several nodes", err)
	}
	return err
}

// cpusOf returns the CPUs of the nodes. One node that is missing leaves the others
// out, too: a command must not be kept from the CPUs beside one of its devices.
func cpusOf(nodes []int, dir string) (unix.CPUSet, error) {
	var all unix.CPUSet
	for _, node := range nodes {
		text, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("node%d", node), "cpulist"))
		if err != nil {
			return all, err
		}
		if err := addCPUs(&all, strings.TrimSpace(string(text))); err != nil {
			return all, fmt.Errorf("read the CPUs of node %d: %w", node, err)
		}
	}
	return all, nil
}

// addCPUs adds a list such as "0-15,32-47". A node of memory alone has an empty one.
//
// Source: cpuset(7), List Format.
func addCPUs(set *unix.CPUSet, list string) error {
	if list == "" {
		return nil
	}
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		if err = errors.Join(err, err2); err != nil || first < 0 || last < first || last >= cpusMax {
			return fmt.Errorf("%q is no list of CPUs below %d", list, cpusMax)
		}
		for cpu := first; cpu <= last; cpu++ {
			set.Set(cpu)
		}
	}
	return nil
}

// cpusMax is how many CPUs a set has room for.
const cpusMax = len(unix.CPUSet{}) * strconv.IntSize

// intersect returns the CPUs that are in both sets, and how many those are.
func intersect(a, b unix.CPUSet) (unix.CPUSet, int) {
	for i := range a {
		a[i] &= b[i]
	}
	return a, a.Count()
}

// noteFromSecondStage writes a line into shim.log. The second stage's stderr is the
// command's, and the command must not find our words in its output.
func noteFromSecondStage(a *runner.Attempt, err error) {
	file, openErr := os.OpenFile(a.ShimLogPath(), os.O_APPEND|os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if openErr != nil {
		return // nothing depends on it
	}
	defer file.Close()
	_, _ = fmt.Fprintf(file, "%s %v\n", time.Now().UTC().Format(time.RFC3339Nano), err)
}
