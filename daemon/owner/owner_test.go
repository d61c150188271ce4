package owner

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gpuqd/daemon/job"
	"gpuqd/test/wait"
)

// startAs starts a shell that starts a process and waits for it, and returns that
// process's PID.
func startAs(t *testing.T, env ...string) (pid int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command("sh", "-c", `env -i sleep 600 & echo $! >`+path+`.new; mv `+path+`.new `+path+`; wait`)
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the process", func() bool { _, err := os.Stat(path); return err == nil })
	pid = pidIn(t, path)
	t.Cleanup(func() {
		if owner, ok := (Processes{}).Describe(pid); ok {
			_ = Processes{}.Kill(owner)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	wait.Until(t, "its program", func() bool {
		owner, ok := Processes{}.Describe(pid)
		return ok && owner.Name == "sleep"
	})
	return pid
}

// A process that has thrown its environment away is its attempt's by what started it.
func TestProcessIsItsAttemptsByAnAncestor(t *testing.T) {
	id := job.NewID()
	pid := startAs(t, "GPUQ_JOB_ID="+string(id), "GPUQ_ATTEMPT=7")
	owner, ok := Processes{}.Describe(pid)
	if !ok || owner.JobID != id || owner.Attempt != 7 || owner.Name != "sleep" || owner.Ticks == 0 || owner.User == "" {
		t.Fatalf("described as %+v, %t", owner, ok)
	}
	other := owner
	other.Ticks++
	if err := (Processes{}).Kill(other); err != nil {
		t.Errorf("kill of who had the PID before: %v", err)
	}
	if _, ok := (Processes{}).Describe(pid); !ok {
		t.Fatal("another's start was given, and the process was ended")
	}
	if err := (Processes{}).Kill(owner); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "its end", func() bool { _, ok := Processes{}.Describe(pid); return !ok })
	if err := (Processes{}).Kill(owner); err != nil {
		t.Errorf("kill of what is gone: %v", err)
	}
}

func TestForeignProcessIsNobodys(t *testing.T) {
	for _, env := range [][]string{nil, {"GPUQ_JOB_ID=" + string(job.NewID())}, {"GPUQ_JOB_ID=x", "GPUQ_ATTEMPT=1"}} {
		if owner, ok := (Processes{}).Describe(startAs(t, env...)); !ok || owner.JobID != "" || owner.Name != "sleep" {
			t.Errorf("%q: described as %+v, %t", env, owner, ok)
		}
	}
}

func TestCgroupNamesAnAttempt(t *testing.T) {
	id := job.NewID()
	for path, want := range map[string]struct {
		id     job.ID
		number int
	}{
		"/user.slice/gpuqd-" + string(id) + ".3":                     {id, 3},
		"/user.slice/gpuqd-" + string(id) + ".3/below":               {id, 3},
		"/gpuq.slice/gpuqd-job-" + string(id) + ".service":           {id, 0},
		"/gpuq.slice/gpuqd-job-" + string(id) + ".service/container": {id, 0},
		"/system.slice/gpuqd.service":                                {},
		"/":                                                          {},
		"":                                                           {},
	} {
		if got, number := attemptOf(path); got != want.id || number != want.number {
			t.Errorf("%q is attempt %d of %q, want %d of %q", path, number, got, want.number, want.id)
		}
	}
}

func pidIn(t *testing.T, path string) (n int) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range strings.TrimSpace(string(text)) {
		n = n*10 + int(c-'0')
	}
	return n
}
