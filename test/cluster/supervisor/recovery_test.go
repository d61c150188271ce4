package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gpuqd/test/services"
)

func readPid(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// The environment by which the test binary becomes a supervisor of its own.
const helperEnv = "GPUQ_TEST_SUPERVISOR_RUN_DIR"

// TestHelperSupervisor is no test of its own: TestKilledSupervisor runs it in
// another process. It keeps two units, one of which never gets ready, tells
// when both are launched, and waits to be killed.
func TestHelperSupervisor(t *testing.T) {
	dir := os.Getenv(helperEnv)
	if dir == "" {
		t.Skip("started by TestKilledSupervisor only")
	}
	s, err := New(Options{RunDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	never := orphan(dir, "never")
	never.Process.Ready = func(context.Context) error { return errors.New("never") }
	for _, u := range []Unit{orphan(dir, "ready"), never} {
		if err := s.Add(u); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Wait(context.Background(), "ready"); err != nil {
		t.Fatal(err)
	}
	until(t, s, "never", "launched", func(st Status) bool { return st.Pid != 0 })
	for _, st := range s.Status() {
		if _, err := os.Stat(recordPath(dir, st.Name)); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println("launched", status(t, s, "ready").Pid, status(t, s, "never").Pid)
	select {}
}

// orphan is a unit that outlives its supervisor.
func orphan(dir, name string) Unit {
	return Unit{Process: &services.Process{
		Name: name, Path: "/bin/sleep", Args: []string{"1000"}, LogPath: filepath.Join(dir, name+".log"), Orphan: true,
	}}
}

// killedSupervisor runs a supervisor in another process, kills it with SIGKILL
// and returns the numbers of what it left running.
func killedSupervisor(t *testing.T, dir string) (ready, never int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperSupervisor$", "-test.v")
	cmd.Env = append(os.Environ(), helperEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if n, _ := fmt.Sscanf(lines.Text(), "launched %d %d", &ready, &never); n == 2 {
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed: always an error
	if ready == 0 {
		t.Fatalf("the supervisor did not get far:\n%s", said.String())
	}
	return ready, never
}

func TestKilledSupervisor(t *testing.T) {
	t.Run("ItsProcessesAreAdopted", func(t *testing.T) {
		dir := t.TempDir()
		ready, never := killedSupervisor(t, dir)
		s := start(t, Options{RunDir: dir}, orphan(dir, "ready"), orphan(dir, "never"))
		for name, pid := range map[string]int{"ready": ready, "never": never} {
			if p := running(t, s, name); p.PID != pid {
				t.Errorf("%s runs as %d, want %d adopted", name, p.PID, pid)
			}
			if !status(t, s, name).Adopted {
				t.Errorf("%s is not said to be adopted", name)
			}
		}
		if err := s.Kill("ready"); err != nil {
			t.Fatal(err)
		}
		until(t, s, "ready", "started again", func(st Status) bool { return st.Restarts == 1 && st.Phase == Running && !st.Adopted })
	})
	t.Run("ChangedUnitIsReplaced", func(t *testing.T) {
		dir := t.TempDir()
		ready, never := killedSupervisor(t, dir)
		old := process1(t, ready)
		u := orphan(dir, "ready")
		u.Fingerprint = "another program"
		s := start(t, Options{RunDir: dir}, u, orphan(dir, "never"))
		if p := running(t, s, "ready"); p == old {
			t.Error("the old process runs on")
		}
		gone(t, old)
		if p := running(t, s, "never"); p.PID != never {
			t.Error("the other process was touched")
		}
	})
	t.Run("UnclaimedProcessIsEnded", func(t *testing.T) {
		dir := t.TempDir()
		ready, never := killedSupervisor(t, dir)
		stray := process1(t, never)
		s := start(t, Options{RunDir: dir}, orphan(dir, "ready"))
		names, err := s.EndStrays()
		if err != nil || strings.Join(names, " ") != "never" {
			t.Fatalf("ended %v, %v; want never alone", names, err)
		}
		gone(t, stray)
		if p := running(t, s, "ready"); p.PID != ready {
			t.Error("a process that a unit claimed was touched")
		}
	})
}

// A record of another boot, or of a number that was used again, names nobody.
func TestRecordOfAnotherProcessIsNotAdopted(t *testing.T) {
	other := exec.Command("/bin/sleep", "1000")
	other.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	})
	bystander := process1(t, other.Process.Pid)
	for name, spoil := range map[string]func(*record){
		"OtherStart": func(r *record) { r.StartTicks-- },
		"OtherBoot":  func(r *record) { r.BootID = "00000000-0000-0000-0000-000000000000" },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r, err := newRecord("a", bystander.PID, "")
			if err != nil {
				t.Fatal(err)
			}
			spoil(&r)
			if err := r.write(dir); err != nil {
				t.Fatal(err)
			}
			s := start(t, Options{RunDir: dir}, shell(t, "a", forever))
			if p := running(t, s, "a"); p == bystander {
				t.Error("a stranger was adopted")
			}
			s.Close(Abort)
			if !alive(bystander) {
				t.Error("a stranger was killed")
			}
		})
	}
	t.Run("DamagedRecordIsReported", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(recordPath(dir, "a"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Options{RunDir: dir}); err == nil {
			t.Error("a damaged record was passed over")
		}
	})
}
