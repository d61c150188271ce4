package proctree_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"gpuqd/daemon/runner/proctree"
	"gpuqd/test/wait"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// command starts a process that ends with the test.
func command(t *testing.T, env []string, name string, args ...string) (*exec.Cmd, proctree.Process) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // ended already, perhaps
		_ = cmd.Wait()
	})
	s, err := proctree.ReadStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, s.Process
}

func TestSignalSparesAReusedPID(t *testing.T) {
	cmd, p := command(t, nil, "sleep", "1000")
	other := p
	other.Ticks--
	if err := proctree.Signal(other, unix.SIGKILL); !errors.Is(err, unix.ESRCH) {
		t.Errorf("signal to another start: %v, want ESRCH", err)
	}
	if err := proctree.Signal(p, 0); err != nil {
		t.Errorf("the process should be alive: %v", err)
	}
	if err := proctree.Signal(p, unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("it ended with %v", err)
	}
	if err := proctree.Signal(p, unix.SIGTERM); !errors.Is(err, unix.ESRCH) {
		t.Errorf("signal to a process that is gone: %v, want ESRCH", err)
	}
	if err := proctree.Signal(proctree.Process{}, unix.SIGTERM); !errors.Is(err, unix.ESRCH) {
		t.Errorf("signal to nobody: %v, want ESRCH", err)
	}
}

func TestWaitGone(t *testing.T) {
	_, p := command(t, nil, "sleep", "1000")
	gaveUp := errors.New("gave up")
	ctx, cancel := context.WithTimeoutCause(context.Background(), 20*time.Millisecond, gaveUp)
	defer cancel()
	if err := proctree.WaitGone(ctx, p); !errors.Is(err, gaveUp) {
		t.Errorf("a living process: %v, want the context's cause", err)
	}
	other := p
	other.Ticks++
	if err := proctree.WaitGone(context.Background(), other); err != nil {
		t.Errorf("another start: %v", err)
	}
	done := make(chan error)
	go func() { done <- proctree.WaitGone(context.Background(), p) }()
	if err := proctree.Signal(p, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Errorf("a process that ends (and is a zombie): %v", err)
	}
}

func TestFindAsksForEveryVariableWhole(t *testing.T) {
	mark := fmt.Sprintf("PROCTREE_TEST=%d", os.Getpid())
	_, both := command(t, []string{mark, "PROCTREE_N=1"}, "sleep", "1000")
	command(t, []string{mark, "PROCTREE_N=11"}, "sleep", "1000")
	command(t, []string{"X" + mark, "PROCTREE_N=1"}, "sleep", "1000")
	var got []proctree.Process
	// A process shows its environment only once it has executed.
	for end := time.Now().Add(10 * time.Second); len(got) == 0 && time.Now().Before(end); {
		var err error
		if got, err = proctree.Find(proctree.Mark{Environ: []string{mark, "PROCTREE_N=1"}}); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got, []proctree.Process{both}) {
		t.Errorf("found %v, want %v alone", got, both)
	}
}

func TestFindDistrustsAReusedSession(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	s, err := proctree.ReadStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := proctree.Find(proctree.Mark{Leader: s.Process}); err != nil || len(got) != 1 {
		t.Errorf("its own session: %v, %v", got, err)
	}
	s.Ticks++
	if got, err := proctree.Find(proctree.Mark{Leader: s.Process}); err != nil || len(got) != 0 {
		t.Errorf("a session of the same number: %v, %v", got, err)
	}
}

// What replaces itself all the time, in sessions of its own, is known by its
// environment alone: between two looks it is another process.
func TestKillAllEndsWhatReplacesItself(t *testing.T) {
	script := filepath.Join(t.TempDir(), "hop")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nsleep 0.01\nsetsid "+script+" &\nexit\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for n := range 10 {
		mark := proctree.Mark{Environ: []string{fmt.Sprintf("PROCTREE_HOP=%d.%d", os.Getpid(), n)}}
		cmd := exec.Command(script)
		cmd.Env = append(os.Environ(), mark.Environ...)
		if err := cmd.Run(); err != nil { // its successor goes on
			t.Fatal(err)
		}
		left, err := proctree.KillAll(mark, 20*time.Second)
		if err != nil || len(left) > 0 {
			t.Errorf("left %v, %v", left, err)
		}
		// Whoever has got away is soon seen again.
		for range 20 {
			if found, err := proctree.Find(mark); err != nil || len(found) > 0 {
				t.Errorf("found %v, %v", found, err)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

func TestFindNothingForAnEmptyMark(t *testing.T) {
	if got, err := proctree.Find(proctree.Mark{}); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestCgroupFreezesKillsAndGoes(t *testing.T) {
	c, err := proctree.NewCgroup(fmt.Sprintf("gpuqd-test-%d", os.Getpid()))
	if err != nil {
		t.Skipf("no cgroup can be had here: %v", err)
	}
	defer func() {
		if err := c.Remove(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(string(c)); !os.IsNotExist(err) {
			t.Errorf("it is still there: %v", err)
		}
	}()
	dir, err := os.Open(string(c))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("sh", "-c", "while :; do sleep 0.01; done")
	cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !c.Has(cmd.Process.Pid) || c.Has(os.Getpid()) {
		t.Error("Has is wrong about its members")
	}
	if err := c.Freeze(true); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(10 * time.Second); !c.Frozen() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if !c.Frozen() {
		t.Error("it does not freeze")
	}
	if err := c.Kill(); err != nil { // frozen as it is
		t.Error(err)
	}
	_ = cmd.Wait()
	// The shell has ended; what it had started dies on its own.
	wait.For(t, time.Minute, func() error {
		pids, err := c.PIDs()
		if err == nil && len(pids) > 0 {
			err = fmt.Errorf("%v are in it", pids)
		}
		return err
	})
}

// Since leaves out what is older than the attempt, and nothing else.
func TestProcessIsFoundByItsEnvironmentWhereverTheVariableStands(t *testing.T) {
	long := "LONG=" + strings.Repeat("x", 100_000) // several reads
	for name, c := range map[string]struct {
		env  []string
		want bool
	}{
		"Alone":    {[]string{"PROBE=7"}, true},
		"First":    {[]string{"PROBE=7", long}, true},
		"Last":     {[]string{long, "PROBE=7"}, true},
		"Between":  {[]string{"A=1", "PROBE=7", "B=2"}, true},
		"Absent":   {[]string{long}, false},
		"Longer":   {[]string{"PROBE=77"}, false},
		"Suffixed": {[]string{"APROBE=7"}, false},
		"Value":    {[]string{"A=PROBE=7"}, false},
		"Nothing":  {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, _ := command(t, append([]string{}, c.env...), "/bin/sleep", "1000")
			stat, err := proctree.ReadStat(cmd.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			for since, want := range map[uint64]bool{0: c.want, stat.Ticks: c.want, stat.Ticks + 1: false} {
				found, err := proctree.Find(proctree.Mark{Environ: []string{"PROBE=7"}, Since: since})
				if err != nil || slices.Contains(found, stat.Process) != want {
					t.Errorf("since %d of %d: found %v, %v, want %t", since, stat.Ticks, found, err, want)
				}
			}
		})
	}
}
