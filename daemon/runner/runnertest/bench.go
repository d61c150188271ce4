// Package runnertest holds the suite that every runner.Starter must pass, and
// what its tests need: a built shim, a journal, and attempts made of real
// processes.
package runnertest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/proctree"
)

// patience bounds every wait in these tests; a slow machine is no failure. One that
// is emulated needs more: GPUQD_TEST_PATIENCE=5m.
var patience = func() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("GPUQD_TEST_PATIENCE")); err == nil {
		return d
	}
	return 30 * time.Second
}()

// BuildShim builds gpuqd-shim into dir, as it is shipped, and returns its path.
func BuildShim(dir string) (string, error) {
	path := filepath.Join(dir, "gpuqd-shim")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "gpuqd/daemon/shim")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build gpuqd-shim: %w\n%s", err, out)
	}
	return path, nil
}

// Bench is one test's journal, session and starter.
type Bench struct {
	testing.TB
	State   string
	Journal *runner.Journal
	Starter runner.Starter
	Session string
	atEnd   []func() // called when nothing of the attempts is left
}

// NewBench opens a journal in a directory of its own. At the test's end nothing
// of its attempts may be running.
func NewBench(t testing.TB, newStarter func(testing.TB) runner.Starter) *Bench {
	t.Helper()
	b := &Bench{TB: t, State: t.TempDir(), Starter: newStarter(t), Session: string(job.NewID())}
	b.Open()
	t.Cleanup(b.close)
	return b
}

// Open opens the journal, as a daemon does that starts.
func (b *Bench) Open() {
	b.Helper()
	j, err := runner.OpenJournal(b.State)
	b.Must(err)
	b.Journal = j
}

// close ends every attempt that the test left, and fails for what then remains.
func (b *Bench) close() {
	if b.Journal == nil {
		b.Open()
	}
	list, _ := b.Journal.List() // a test of damage has looked at the error itself
	for _, a := range list {
		if s, ok, _ := a.Started(); ok {
			shim := proctree.Process{PID: s.ShimPID, Ticks: s.ShimTicks}
			if b.Failed() {
				text, _ := os.ReadFile(filepath.Join(a.Dir(), "shim.log"))
				b.Logf("shim.log of %s:\n%s", a.Key(), text)
			}
			if _, ended, _ := a.Exit(); !ended {
				b.Errorf("attempt %s is still running at the end of the test", a.Key())
				_ = proctree.Signal(shim, 9)
			}
			_ = proctree.WaitGone(context.Background(), shim)
		}
		// A unit has its witness to write, in the directory that is about to go.
		if err := b.Starter.Kill(context.Background(), a); err != nil {
			b.Error(err)
		}
		if s, ok, _ := a.Started(); ok && s.Cgroup != "" {
			if _, err := os.Stat(s.Cgroup); err == nil {
				b.Errorf("the cgroup %s is left", s.Cgroup)
			}
		}
	}
	// A shim that was started in vain can be late.
	b.Until("no shim is left", func() bool { return !b.anyShim() })
	if err := b.Starter.Close(); err != nil {
		b.Error(err)
	}
	b.Must(b.Journal.Close())
	for _, f := range b.atEnd {
		f()
	}
}

// anyShim reports whether a process has the bench's directory as an argument.
func (b *Bench) anyShim() bool {
	all, err := proctree.All()
	b.Must(err)
	for pid, s := range all {
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && s.Alive() && strings.Contains(string(args), "\x00"+b.State+"/attempts/") {
			return true
		}
	}
	return false
}

// Must fails the test on an error.
func (b *Bench) Must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// Intent returns an intent that runs a shell script, with no lease.
func (b *Bench) Intent(script string) runner.Intent {
	in := runner.Intent{
		JobID: job.NewID(), Attempt: 1, Fence: 1, ClaimID: string(job.NewID()), Session: b.Session,
		Host: "host1", Submitter: "alice", Command: []string{"/bin/sh", "-c", script},
		Workdir: filepath.Join(b.State, "work"), Grace: 10 * time.Second, ClaimedAt: time.Now(),
	}
	if b.units() { // else a unit runs nothing; the suite reads its payloads' files
		in.Account = &runner.Account{Name: "root", Home: "/root", Shell: "/bin/sh", AllowRoot: true}
	}
	return in
}

// units reports whether attempts are units, one per job, which somebody else ends
// when their shim is gone.
func (b *Bench) units() bool { return b.Starter.Name() == "systemd" }

// Begin journals an attempt.
func (b *Bench) Begin(in runner.Intent) *runner.Attempt {
	b.Helper()
	a, err := b.Journal.Begin(in)
	b.Must(err)
	return a
}

// Start journals an attempt and starts it.
func (b *Bench) Start(in runner.Intent) *runner.Attempt {
	b.Helper()
	a := b.Begin(in)
	b.Must(b.Starter.Start(b.ctx(), a))
	return a
}

func (b *Bench) ctx() context.Context {
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, errors.New("the test lost its patience"))
	b.Cleanup(cancel)
	return ctx
}

// Wait returns how an attempt ended, and fails the test if anything of it is left.
func (b *Bench) Wait(a *runner.Attempt) *runner.Exit {
	b.Helper()
	exit, err := a.Wait(b.ctx())
	b.Must(err)
	b.WantNothingLeft(a)
	return exit
}

// WantNothingLeft fails the test if a process of the attempt is alive.
func (b *Bench) WantNothingLeft(a *runner.Attempt) {
	b.Helper()
	left, err := a.Leftovers()
	b.Must(err)
	if len(left) > 0 {
		b.Errorf("processes %v of attempt %s are left", left, a.Key())
	}
}

// Run runs a script to its end.
func (b *Bench) Run(script string) *runner.Exit {
	b.Helper()
	return b.Wait(b.Start(b.Intent(script)))
}

// Until waits for a condition.
func (b *Bench) Until(what string, is func() bool) {
	b.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("waited in vain until %s", what)
		}
	}
}

// File returns a path in the test's directory for a payload to write to.
func (b *Bench) File(name string) string { return filepath.Join(b.State, name) }

// PIDs waits until the file has n lines, each a PID, and returns them.
func (b *Bench) PIDs(path string, n int) []int {
	b.Helper()
	var pids []int
	b.Until(fmt.Sprintf("%d processes wrote their PID", n), func() bool {
		data, err := os.ReadFile(path)
		if err != nil || strings.Count(string(data), "\n") < n {
			return false
		}
		pids = pids[:0]
		for _, f := range strings.Fields(string(data)) {
			pid, err := strconv.Atoi(f)
			b.Must(err)
			pids = append(pids, pid)
		}
		return true
	})
	return pids
}

// Alive returns which of the processes are alive.
func Alive(pids []int) []int {
	return slices.DeleteFunc(slices.Clone(pids), func(pid int) bool {
		s, err := proctree.ReadStat(pid)
		return err != nil || !s.Alive()
	})
}

// Size returns a file's size, 0 where there is none: the progress of a payload
// that appends to it.
func (b *Bench) Size(path string) int64 {
	b.Helper()
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	b.Must(err)
	return info.Size()
}

// Lease writes the session's deadline, d from now, and returns its file.
func (b *Bench) Lease(d time.Duration, state string) string {
	b.Helper()
	boot, err := runner.BootID()
	b.Must(err)
	path := b.Journal.DeadlinePath(b.Session)
	b.Must(runner.WriteDeadline(path, runner.Deadline{
		Session: b.Session, BootID: boot, At: runner.Boottime() + d, State: state,
	}))
	return path
}
