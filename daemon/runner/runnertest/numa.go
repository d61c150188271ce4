package runnertest

import (
	"os"
	"strings"

	"gpuqd/daemon/runner"
)

// numaTests: a command runs beside its devices where that can be had, and else it
// runs.
var numaTests = map[string]func(*Bench){
	"CommandIsBoundToItsNode":       boundToNode,
	"CommandMayTakeNoOtherMemory":   strictMemory,
	"MissingNodeIsNotedAndNoMatter": missingNode,
}

// where is a script that tells the CPUs and the memory policy that the command has
// been given, as the kernel sees them.
const where = `sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status; head -n 1 /proc/self/numa_maps 2>/dev/null | cut -d' ' -f2`

// runBound runs where with a NUMA binding, and returns its answer and what the shim
// noted.
func runBound(b *Bench, n *runner.NUMA) (cpus, policy, notes string) {
	b.Helper()
	in := b.Intent(where)
	in.NUMA = n
	a := b.Start(in)
	if e := b.Wait(a); e.Code != 0 {
		b.Fatalf("got %+v", e)
	}
	output, err := a.LogTail(1000)
	b.Must(err)
	text, err := os.ReadFile(a.ShimLogPath())
	b.Must(err)
	cpus, policy, _ = strings.Cut(strings.TrimSpace(string(output)), "\n")
	return cpus, policy, string(text)
}

// node0 returns the CPUs of node 0, and skips where there is none.
func node0(b *Bench) string {
	text, err := os.ReadFile("/sys/devices/system/node/node0/cpulist")
	if err != nil {
		b.Skipf("this kernel knows no NUMA nodes: %v", err)
	}
	return strings.TrimSpace(string(text))
}

func boundToNode(b *Bench)  { checkBound(b, &runner.NUMA{Nodes: []int{0}}, "prefer:0") }
func strictMemory(b *Bench) { checkBound(b, &runner.NUMA{Nodes: []int{0}, Strict: true}, "bind:0") }

func checkBound(b *Bench, n *runner.NUMA, wantPolicy string) {
	want := node0(b)
	free, usual, _ := runBound(b, nil)
	if usual != "" && usual != "default" {
		b.Fatalf("a command that is bound to nothing has the memory policy %q", usual)
	}
	cpus, policy, notes := runBound(b, n)
	if cpus != want && cpus != free { // this test itself may be held to a part of the node
		b.Errorf("the command runs on CPUs %s; node 0 has %s, and without a binding it has %s", cpus, want, free)
	}
	switch {
	case policy == wantPolicy && !strings.Contains(notes, "bound"):
	case strings.Contains(notes, "not to their memory"):
		b.Logf("this kernel, or this container, does not let a process choose its memory: %s", notes)
	default:
		b.Errorf("the command's memory policy is %q, want %q; the shim noted: %s", policy, wantPolicy, notes)
	}
}

func missingNode(b *Bench) {
	const none = runner.NUMANodesMax - 1
	free, usual, _ := runBound(b, nil)
	cpus, policy, notes := runBound(b, &runner.NUMA{Nodes: []int{0, none}, Strict: true})
	if cpus != free || policy != usual {
		b.Errorf("CPUs %s and policy %s, want %s and %s", cpus, policy, free, usual)
	}
	if !strings.Contains(notes, "not bound") || !strings.Contains(notes, "node1023") {
		b.Errorf("the shim noted %q", notes)
	}
}
