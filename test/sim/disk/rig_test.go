package disk_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/proctree"
	"gpuqd/daemon/runner/runnertest"
	"gpuqd/test/history"
	"gpuqd/test/sim/disk"
	"gpuqd/test/sim/world"
)

// rig is a host to play scenes on: a real one, or a simulated one.
type rig interface {
	agent.Runner
	agent.Clock
	BootID() string
	// Intent returns an intent of a job that does what p says.
	Intent(p disk.Payload) runner.Intent
	// Reopen ends the daemon that has the journal, and starts another.
	Reopen()
	KillShim(a agent.Attempt)
	// Ran, Froze and Thawed count what happened to an attempt's payload so far.
	Ran(a agent.Attempt) int
	Froze(a agent.Attempt) int
	Thawed(a agent.Attempt) int
	// Stopping reports whether the reason of a stop is on disk.
	Stopping(a agent.Attempt) bool
	// Left reports whether anything of the attempt's payload is alive.
	Left(a agent.Attempt) bool
}

// shim is the path of the gpuqd-shim that these tests build.
var shim string

func TestMain(m *testing.M) { os.Exit(withShim(m)) }

func withShim(m *testing.M) int {
	flag.Parse()
	// The real scenes mostly wait for processes; they need no processor each.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	dir, err := os.MkdirTemp("", "gpuqd-shim-")
	if err == nil {
		defer os.RemoveAll(dir)
		shim, err = runnertest.BuildShim(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// realRig is this machine, with the process starter.
type realRig struct {
	agent.Disk
	agent.SystemClock
	t     testing.TB
	state string
	boot  string
}

func newRealRig(t testing.TB) *realRig {
	starter, err := runner.NewProcessStarter(shim)
	must(t, err)
	r := &realRig{t: t, state: t.TempDir()}
	r.boot, err = runner.BootID()
	must(t, err)
	r.Starter = starter
	r.Journal, err = runner.OpenJournal(r.state)
	must(t, err)
	t.Cleanup(r.close)
	return r
}

// close ends what a scene left running.
func (r *realRig) close() {
	list, err := r.Journal.List()
	must(r.t, err)
	for _, a := range list {
		if started, ok, _ := a.Started(); ok {
			process := proctree.Process{PID: started.ShimPID, Ticks: started.ShimTicks}
			_ = proctree.Signal(process, unix.SIGKILL)
			must(r.t, proctree.WaitGone(context.Background(), process))
		}
		must(r.t, a.KillLeftovers())
	}
	must(r.t, r.Starter.Close())
	must(r.t, r.Journal.Close())
}

func (r *realRig) BootID() string { return r.boot }

func (r *realRig) Intent(p disk.Payload) runner.Intent {
	in := intent(filepath.Join(r.state, "work"))
	in.Grace = 10 * time.Second // what obeys needs less, however busy the machine is
	body := fmt.Sprintf("exec sleep %f", p.Run.Seconds())
	if p.Code != 0 {
		body = fmt.Sprintf("sleep %f; exit %d", p.Run.Seconds(), p.Code)
	}
	witness := "printf %s '" + disk.Witness(in.JobID, in.Attempt, in.Host) + "'; "
	if p.IgnoresTERM { // from before it is heard of
		witness = "trap '' TERM; " + witness
	}
	if p.Forks { // who sees the witness sees the fork, too
		in.Command = []string{"/bin/sh", "-c", "( " + witness + body + " ) & wait $!"}
		return in
	}
	in.Command = []string{"/bin/sh", "-c", witness + body}
	return in
}

func (r *realRig) Reopen() {
	must(r.t, r.Journal.Close())
	var err error
	r.Journal, err = runner.OpenJournal(r.state)
	must(r.t, err)
}

func (r *realRig) KillShim(a agent.Attempt) {
	started, ok, err := a.Started()
	if !ok {
		r.t.Fatalf("no shim to kill: %v", err)
	}
	must(r.t, proctree.Signal(proctree.Process{PID: started.ShimPID, Ticks: started.ShimTicks}, unix.SIGKILL))
}

// Ran tells by the line that the payload writes.
func (r *realRig) Ran(a agent.Attempt) int {
	data, err := a.ReadLog(0, 1<<20)
	must(r.t, err)
	return strings.Count(string(data), "witness")
}

func (r *realRig) Froze(a agent.Attempt) int  { return r.said(a, " frozen:") }
func (r *realRig) Thawed(a agent.Attempt) int { return r.said(a, " thawed:") }

// said counts a word in the shim's log.
func (r *realRig) said(a agent.Attempt, word string) int {
	data, err := os.ReadFile(filepath.Join(a.(*runner.Attempt).Dir(), "shim.log"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	must(r.t, err)
	return strings.Count(string(data), word)
}

func (r *realRig) Stopping(a agent.Attempt) bool {
	_, ok, err := a.(*runner.Attempt).Stopping()
	must(r.t, err)
	return ok
}

func (r *realRig) Left(a agent.Attempt) bool {
	left, err := a.(*runner.Attempt).Leftovers()
	must(r.t, err)
	return len(left) > 0
}

// simRig is a simulated host. It lives in a bubble.
type simRig struct {
	*disk.Runner
	t    testing.TB
	host *world.Host
	disk *disk.Disk
	p    *world.Process
	does map[job.ID]disk.Payload
}

func newSimRig(t testing.TB, seed uint64) *simRig {
	w := world.New(seed)
	w.SetRates(disk.Part, world.Rates{Fast: 200 * time.Microsecond, Slow: 3 * time.Millisecond})
	r := &simRig{t: t, host: w.NewHost("host1"), does: map[job.ID]disk.Payload{}}
	r.disk = disk.New(r.host, disk.Options{Payload: func(id job.ID, _ int) disk.Payload { return r.does[id] }})
	r.open()
	return r
}

func (r *simRig) open() {
	r.p = r.host.Start("gpuqd", nil)
	r.Runner = r.disk.Open(r.p)
}

// close ends everything, and lets what sleeps in a call hear of it.
func (r *simRig) close() {
	r.host.Crash()
	time.Sleep(time.Second)
}

func (r *simRig) Now() time.Time          { return r.host.Now() }
func (r *simRig) Boottime() time.Duration { return r.host.Boottime() }
func (r *simRig) BootID() string          { return r.host.BootID() }

// Intent gives jobs IDs that are the same in every run: they decide chances.
func (r *simRig) Intent(p disk.Payload) runner.Intent {
	in := intent("/work")
	in.JobID = job.ID(fmt.Sprintf("00000000-0000-7000-8000-%012d", len(r.does)+1))
	in.Command = []string{"simulated"}
	r.does[in.JobID] = p
	return in
}

func (r *simRig) Reopen() {
	r.p.Kill()
	r.open()
}

func (r *simRig) KillShim(agent.Attempt) {
	if !r.disk.KillShim() {
		r.t.Fatal("no shim to kill")
	}
}

func (r *simRig) count(a agent.Attempt, kind history.Kind) (n int) {
	w := r.host.World()
	w.Do(func() {
		for _, e := range w.Events() {
			if e.Kind == kind && e.Job == a.Key().JobID && e.Attempt == a.Key().Attempt {
				n++
			}
		}
	})
	return n
}

func (r *simRig) Ran(a agent.Attempt) int    { return r.count(a, history.Began) }
func (r *simRig) Froze(a agent.Attempt) int  { return r.count(a, history.Halted) }
func (r *simRig) Thawed(a agent.Attempt) int { return r.count(a, history.Went) }

func (r *simRig) Stopping(a agent.Attempt) bool { return r.disk.Stopping(a.Key()) }

func (r *simRig) Left(a agent.Attempt) bool {
	return r.count(a, history.Began) > r.count(a, history.Finished)
}

// intent is what both kinds of host have in common.
func intent(workdir string) runner.Intent {
	return runner.Intent{
		JobID: job.NewID(), Attempt: 1, Fence: 1, ClaimID: "claim", Session: "session", Host: "host1", Submitter: "alice",
		Devices: []string{"GPU-1"}, Workdir: workdir, Grace: 300 * time.Millisecond, ClaimedAt: time.Now(),
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
