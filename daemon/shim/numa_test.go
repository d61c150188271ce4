package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/runner"
)

func TestListsOfCPUsAreReadAsTheKernelWritesThem(t *testing.T) {
	for _, c := range []struct {
		list string
		want []int
		ok   bool
	}{
		{"", nil, true},
		{"5", []int{5}, true},
		{"0-3,8,10-11", []int{0, 1, 2, 3, 8, 10, 11}, true},
		{"1023", []int{1023}, true},
		{"1024", nil, false},
		{"3-1", nil, false},
		{"-1", nil, false},
		{"a", nil, false},
		{"1-", nil, false},
		{"1,,2", nil, false},
	} {
		var got, want unix.CPUSet
		err := addCPUs(&got, c.list)
		for _, cpu := range c.want {
			want.Set(cpu)
		}
		if (err == nil) != c.ok || c.ok && got != want {
			t.Errorf("%q: %d CPUs, %v", c.list, got.Count(), err)
		}
	}
}

// nodes makes a directory as the kernel has one of NUMA nodes.
func nodes(t *testing.T, cpulists map[int]string) string {
	t.Helper()
	dir := t.TempDir()
	for node, list := range cpulists {
		sub := filepath.Join(dir, fmt.Sprintf("node%d", node))
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, "cpulist"), []byte(list+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// onThread calls f on a thread of its own, which ends with it: whatever f does to
// the thread is nobody else's. f returns what to say of a failure.
func onThread(t *testing.T, f func() string) {
	t.Helper()
	done := make(chan string)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- f()
	}()
	if problem := <-done; problem != "" {
		t.Error(problem)
	}
}

func mine(t *testing.T) (set unix.CPUSet, list []int) {
	t.Helper()
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	for cpu := range cpusMax {
		if set.IsSet(cpu) {
			list = append(list, cpu)
		}
	}
	return set, list
}

func TestThreadIsBoundToWhatNodesAndShimShare(t *testing.T) {
	_, cpus := mine(t)
	last := cpus[len(cpus)-1]
	for name, c := range map[string]struct {
		cpulists map[int]string
		nodes    []int
		want     []int
	}{
		"one CPU of the node is the shim's": {map[int]string{0: fmt.Sprintf("%d,900-1000", last)}, []int{0}, []int{last}},
		"the nodes together":                {map[int]string{0: fmt.Sprint(cpus[0]), 1: fmt.Sprint(last)}, []int{0, 1}, []int{cpus[0], last}},
		"a node of memory alone":            {map[int]string{0: fmt.Sprint(last), 1: ""}, []int{0, 1}, []int{last}},
	} {
		dir := nodes(t, c.cpulists)
		onThread(t, func() string {
			err := bind(&runner.NUMA{Nodes: c.nodes}, dir)
			// Of the memory this machine may know fewer nodes, or nothing.
			if err != nil && !strings.Contains(err.Error(), "but not to their memory") {
				return fmt.Sprintf("%s: %v", name, err)
			}
			var got, want unix.CPUSet
			for _, cpu := range c.want {
				want.Set(cpu)
			}
			if err := unix.SchedGetaffinity(0, &got); err != nil || got != want {
				return fmt.Sprintf("%s: bound to %d CPUs, %v; want %v", name, got.Count(), err, c.want)
			}
			return ""
		})
	}
}

func TestWhatCannotBeBoundIsLeftAsItIs(t *testing.T) {
	before, cpus := mine(t)
	for want, c := range map[string]struct {
		cpulists map[int]string
		nodes    []int
	}{
		"node1":                            {map[int]string{0: fmt.Sprint(cpus[0])}, []int{0, 1}},
		"none of their CPUs may be used":   {map[int]string{0: "1000-1010"}, []int{0}},
		"read the CPUs of node 0: \"all\"": {map[int]string{0: "all"}, []int{0}},
	} {
		dir := nodes(t, c.cpulists)
		onThread(t, func() string {
			err := bind(&runner.NUMA{Nodes: c.nodes}, dir)
			if err == nil || !strings.Contains(err.Error(), want) {
				return fmt.Sprintf("%v, want it to say %q", err, want)
			}
			var got unix.CPUSet
			if err := unix.SchedGetaffinity(0, &got); err != nil || got != before {
				return fmt.Sprintf("%s: bound to %d CPUs all the same, %v", want, got.Count(), err)
			}
			return ""
		})
	}
}

// forbidMemory has the calling thread's set_mempolicy answer with an error, as a
// container's seccomp profile does.
//
// Source: seccomp(2).
func forbidMemory(errno unix.Errno) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SET_MEMPOLICY, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

// Where memory cannot be chosen, the CPUs are bound all the same, and it is said.
func TestCPUsAreBoundWhereMemoryCannotBe(t *testing.T) {
	_, cpus := mine(t)
	last := cpus[len(cpus)-1]
	dir := nodes(t, map[int]string{0: fmt.Sprint(last)})
	for errno, want := range map[unix.Errno]string{unix.EPERM: "seccomp", unix.ENOSYS: "not to their memory: function not implemented"} {
		onThread(t, func() string {
			if err := forbidMemory(errno); err != nil {
				return "set a seccomp filter: " + err.Error()
			}
			err := bind(&runner.NUMA{Nodes: []int{0}}, dir)
			if err == nil || !strings.Contains(err.Error(), want) {
				return fmt.Sprintf("%v, want it to say %q", err, want)
			}
			var got, only unix.CPUSet
			only.Set(last)
			if err := unix.SchedGetaffinity(0, &got); err != nil || got != only {
				return fmt.Sprintf("bound to %d CPUs, %v; want CPU %d", got.Count(), err, last)
			}
			return ""
		})
	}
}
