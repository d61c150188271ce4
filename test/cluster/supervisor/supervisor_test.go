package supervisor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gpuqd/daemon/runner/proctree"
	"gpuqd/test/services"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that is sure to come.
const patience = 30 * time.Second

// shell is a unit that runs a shell script.
func shell(t *testing.T, name, script string) Unit {
	t.Helper()
	return Unit{Process: &services.Process{
		Name: name, Path: "/bin/sh", Args: []string{"-c", script}, LogPath: filepath.Join(t.TempDir(), name+".log"),
	}}
}

const forever = "exec sleep 1000"

func start(t *testing.T, opts Options, units ...Unit) *Supervisor {
	t.Helper()
	if opts.PauseMin == 0 {
		opts.PauseMin, opts.PauseMax = 10*time.Millisecond, 100*time.Millisecond
	}
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(Abort) })
	for _, u := range units {
		if err := s.Add(u); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// running waits until a unit runs and returns its process.
func running(t *testing.T, s *Supervisor, name string) proctree.Process {
	t.Helper()
	if err := s.Wait(within(t), name); err != nil {
		t.Fatal(err)
	}
	return process1(t, status(t, s, name).Pid)
}

func process1(t *testing.T, pid int) proctree.Process {
	t.Helper()
	stat, err := proctree.ReadStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	return stat.Process
}

func status(t *testing.T, s *Supervisor, name string) Status {
	t.Helper()
	service, err := s.get(name)
	if err != nil {
		t.Fatal(err)
	}
	st, _ := service.get()
	return st
}

// until waits until a unit's status is as wanted.
func until(t *testing.T, s *Supervisor, name, what string, want func(Status) bool) Status {
	t.Helper()
	service, err := s.get(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t)
	for {
		st, changed := service.get()
		if want(st) {
			return st
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s: never %s, but %+v", name, what, st)
		}
	}
}

func gone(t *testing.T, p proctree.Process) {
	t.Helper()
	if err := proctree.WaitGone(within(t), p); err != nil {
		t.Fatalf("process %d still runs: %v", p.PID, err)
	}
}

func alive(p proctree.Process) bool {
	stat, err := proctree.ReadStat(p.PID)
	return err == nil && stat.Process == p && stat.Alive()
}

func TestRestart(t *testing.T) {
	t.Run("KilledUnitIsStartedAgain", func(t *testing.T) {
		s := start(t, Options{}, shell(t, "a", forever))
		first := running(t, s, "a")
		if err := s.Kill("a"); err != nil {
			t.Fatal(err)
		}
		st := until(t, s, "a", "started again", func(st Status) bool { return st.Phase == Running && st.Restarts == 1 })
		if st.Pid == first.PID {
			t.Errorf("the new process has the old number %d", st.Pid)
		}
		gone(t, first)
	})
	t.Run("UnitThatExits0IsStartedAgain", func(t *testing.T) {
		s := start(t, Options{}, shell(t, "a", "exit 0"))
		until(t, s, "a", "started three times more", func(st Status) bool { return st.Restarts >= 3 })
	})
	t.Run("WhatTheUnitForkedDiesWithIt", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "child")
		u := shell(t, "a", "sleep 1000 & echo $! >"+file+".tmp && mv "+file+".tmp "+file+"; wait")
		u.Process.Ready = func(context.Context) error { _, err := os.Stat(file); return err }
		s := start(t, Options{}, u)
		running(t, s, "a")
		child := process1(t, readPid(t, file))
		leader, _ := s.get("a")
		if err := syscall.Kill(leader.running().Pid(), syscall.SIGKILL); err != nil { // the leader alone
			t.Fatal(err)
		}
		gone(t, child)
	})
	t.Run("PauseGrowsAndIsBounded", func(t *testing.T) {
		began := time.Now()
		s := start(t, Options{PauseMin: 20 * time.Millisecond, PauseMax: 80 * time.Millisecond}, shell(t, "a", "exit 1"))
		until(t, s, "a", "started 5 times more", func(st Status) bool { return st.Restarts == 5 })
		if took, least := time.Since(began), (20+40+80+80+80)*time.Millisecond; took < least {
			t.Errorf("5 restarts after %s, want pauses of at least %s in all", took, least)
		}
	})
}

func TestKeepDown(t *testing.T) {
	t.Run("UnitStaysDownUntilStart", func(t *testing.T) {
		s := start(t, Options{}, shell(t, "a", forever), shell(t, "b", forever))
		first, other := running(t, s, "a"), running(t, s, "b")
		if err := s.KeepDown(within(t), "a", false); err != nil {
			t.Fatal(err)
		}
		gone(t, first)
		if err := s.Wait(within(t), "a"); err == nil {
			t.Error("a unit that is kept down was waited for in vain")
		}
		if err := s.Signal("a", syscall.SIGTERM); err == nil {
			t.Error("a signal to a unit that is down went somewhere")
		}
		if err := s.Start(within(t), "a"); err != nil {
			t.Fatal(err)
		}
		if st := status(t, s, "a"); st.Phase != Running || st.Restarts != 0 {
			t.Errorf("after Start: %+v, want it running with no restart counted", st)
		}
		if !alive(other) {
			t.Error("the other unit was touched")
		}
	})
	t.Run("StartInProgressIsGivenUp", func(t *testing.T) {
		u := shell(t, "a", forever)
		u.Process.Ready = func(context.Context) error { return errors.New("never") }
		s := start(t, Options{}, u)
		st := until(t, s, "a", "launched", func(st Status) bool { return st.Pid != 0 })
		p := process1(t, st.Pid)
		if err := s.KeepDown(within(t), "a", false); err != nil {
			t.Fatal(err)
		}
		gone(t, p)
	})
	t.Run("StubbornUnitIsKilledAfterGrace", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "ready")
		u := shell(t, "a", `trap "" TERM; touch `+file+`; while :; do sleep 1000; done`)
		u.StopGrace = 50 * time.Millisecond
		u.Process.Ready = func(context.Context) error { _, err := os.Stat(file); return err }
		s := start(t, Options{}, u)
		p := running(t, s, "a")
		if err := s.KeepDown(within(t), "a", false); err != nil {
			t.Fatal(err)
		}
		gone(t, p)
	})
	t.Run("PauseEndsAtOnce", func(t *testing.T) {
		s := start(t, Options{PauseMin: time.Hour, PauseMax: time.Hour}, shell(t, "a", "exit 1"))
		until(t, s, "a", "pausing", func(st Status) bool { return st.Phase == Pausing })
		if err := s.KeepDown(within(t), "a", true); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWait(t *testing.T) {
	t.Run("BlockedUnitIsReportedAtOnceAndRunsWhenMended", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "mended")
		u := shell(t, "a", forever)
		u.Check = func() error {
			if _, err := os.Stat(file); err != nil {
				return errors.New("port 1 is taken")
			}
			return nil
		}
		s := start(t, Options{}, u)
		err := s.Wait(within(t), "a")
		if err == nil || !strings.Contains(err.Error(), "port 1 is taken") {
			t.Fatalf("got %v, want what Check found", err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		until(t, s, "a", "running", func(st Status) bool { return st.Phase == Running && !st.Blocked })
	})
	t.Run("ThreeStartsInVainAreReported", func(t *testing.T) {
		u := shell(t, "a", "exit 1")
		u.Process.Ready = func(context.Context) error { return errors.New("no answer") }
		s := start(t, Options{}, u)
		if err := s.Wait(within(t), "a"); err == nil || !strings.Contains(err.Error(), "its log is") {
			t.Fatalf("got %v, want the failure with the log's path", err)
		}
	})
	t.Run("UnitThatIsNeverReadyIsStartedAnew", func(t *testing.T) {
		u := shell(t, "a", forever)
		u.Process.Ready = func(context.Context) error { return errors.New("no answer") }
		u.ReadyTimeout = 50 * time.Millisecond
		s := start(t, Options{}, u)
		until(t, s, "a", "tried twice", func(st Status) bool { return st.Failures >= 2 })
	})
	t.Run("UnknownNameListsTheOthers", func(t *testing.T) {
		s := start(t, Options{}, shell(t, "a", forever), shell(t, "b", forever))
		if err := s.Wait(within(t), "c"); err == nil || !strings.Contains(err.Error(), "a, b") {
			t.Fatalf("got %v, want the names there are", err)
		}
	})
}

func TestClose(t *testing.T) {
	for _, tc := range []struct {
		name  string
		end   End
		found bool // adopted, not started
	}{
		{"StopLeavesNothing", Stop, false},
		{"AbortLeavesNothing", Abort, false},
		{"StopLeavesNothingOfAdopted", Stop, true},
		{"AbortLeavesNothingOfAdopted", Abort, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			s := start(t, Options{RunDir: dir}, shell(t, "a", forever))
			p := running(t, s, "a")
			if tc.found {
				s.Close(Leave)
				s = start(t, Options{RunDir: dir}, shell(t, "a", forever))
				if again := running(t, s, "a"); again != p {
					t.Fatalf("process %d was not adopted, but %d started", p.PID, again.PID)
				}
			}
			s.Close(tc.end)
			gone(t, p)
			if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
				t.Errorf("records left: %v", left)
			}
			s.Close(tc.end) // idempotent
		})
	}
	t.Run("EndsAStartInProgress", func(t *testing.T) {
		u := shell(t, "a", forever)
		u.Process.Ready = func(context.Context) error { return errors.New("never") }
		s := start(t, Options{}, u)
		st := until(t, s, "a", "launched", func(st Status) bool { return st.Pid != 0 })
		p := process1(t, st.Pid)
		s.Close(Abort)
		gone(t, p)
	})
}
