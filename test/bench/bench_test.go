package bench

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/test/bench/floor"
)

// smokeTimeout bounds the smallest run on two busy cores; most of it is RabbitMQ's
// start.
const smokeTimeout = 5 * time.Minute

// TestSmallestRunMeasuresEverything runs all of it with a few jobs. No time is
// judged: only that there is a figure for everything, and that nothing is left.
func TestSmallestRunMeasuresEverything(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a cluster")
	}
	dir := t.TempDir()
	var progress bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), smokeTimeout)
	defer cancel()
	r, err := Run(ctx, Options{
		Program: program(t, "gpuq-bench"), BinDir: binDir, Dir: dir,
		Devices: 2, Nodes: 1, Rounds: 1, Jobs: 6, Samples: 3, Busy: 4, Work: 20 * time.Millisecond,
		Idle: 200 * time.Millisecond, Waiting: []int{6, 12}, Dispatch: 3, Progress: &progress,
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	t.Logf("\n%s", progress.String())
	for name, figure := range map[string]float64{
		"submit": r.Submit.P50, "latency": r.Latency.P50, "latency with gpuqctl": r.WithGpuqctl.P50, "payload": r.Payload.P50,
		"rate": r.Rate.P50, "share": r.Share, "gap": r.Gap.P50, "memory of gpuqd": r.Daemon.Memory.Resident,
		"memory of the shim": r.Shim.Memory.Resident, "rate of the floor": r.Rounds[0].Floor.Rate, "latency of the floor": r.FloorLatency.P50,
	} {
		if figure <= 0 {
			t.Errorf("%s: %g", name, figure)
		}
	}
	if len(r.Waiting) != 2 || r.Waiting[1].Jobs < 3 || r.Waiting[1].Rate <= 0 {
		t.Errorf("while others wait: %+v", r.Waiting)
	}
	expectSameProtocol(t, r.Rounds[0])
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left in its directory, %v", left, err)
	}
	expectNothingLeft(t)
}

// expectSameProtocol checks that the floor does what the protocol fixes as often
// as gpuqd: an operation that gpuqd gains or loses has to come to the floor.
func expectSameProtocol(t *testing.T, r Round) {
	t.Helper()
	for _, name := range []string{floor.LedgerInsert, floor.LedgerUpdate, floor.Publish, floor.Get, floor.Ack, floor.CacheGet, floor.CacheSet, floor.JournalSync, floor.Start} {
		// Six jobs, and what each side does beside them: a renewal, the drain, the
		// last get, which is empty.
		if a, b := r.Gpuqd.PerJob[name], r.Floor.PerJob[name]; a < b-0.5 || a > b+0.9 {
			t.Errorf("%s: gpuqd %.2f times a job, the floor %.2f", name, a, b)
		}
	}
}

// expectNothingLeft checks that no process of this test runs on.
func expectNothingLeft(t *testing.T) {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		args, err := os.ReadFile(path)
		if err == nil && bytes.Contains(args, []byte(binDir)) {
			t.Errorf("left behind: %s", bytes.ReplaceAll(args, []byte{0}, []byte{' '}))
		}
	}
}

// TestShimSyncsAreAsMany: no metric tells of the shim's syncs, so they are counted
// from outside, for both shims, with and without output.
func TestShimSyncsAreAsMany(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("no strace to count them with")
	}
	journal, err := runner.OpenJournal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	for _, c := range []struct {
		command []string
		want    int
	}{{[]string{trueCommand}, ShimSyncs - 1}, {[]string{"/bin/echo", "hello"}, ShimSyncs}} {
		for _, name := range []string{"gpuqd-shim", floorShim} {
			a, err := journal.Begin(runner.Intent{JobID: job.NewID(), Attempt: 1, Command: c.command})
			if err != nil {
				t.Fatal(err)
			}
			args := []string{"run", a.Dir()}
			if name == floorShim {
				args = append(args, "-", strconv.Itoa(ShimSyncs))
				args = append(args, c.command...)
			}
			if got := syncsOf(t, program(t, name), args...); got != c.want {
				t.Errorf("%s with %v syncs %d times, want %d", name, c.command, got, c.want)
			}
		}
	}
}

// syncsOf counts the syncs of a program and its children.
func syncsOf(t *testing.T, program string, args ...string) int {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.CommandContext(t.Context(), "strace", append([]string{"-f", "-o", trace, "-e", "trace=fsync,fdatasync", program}, args...)...)
	cmd.ExtraFiles = []*os.File{null} // for the answer of the floor's
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", program, args, err, out)
	}
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(text, []byte("sync("))
}
