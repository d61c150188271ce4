package cluster

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpuqd/daemon/runner/proctree"
	"gpuqd/test/cluster/supervisor"
)

// program runs gpuq-cluster on a directory as a person does.
type program struct {
	t   *testing.T
	dir string
}

func (p program) run(args ...string) (string, error) {
	cmd := exec.CommandContext(within(p.t, 4*time.Minute), filepath.Join(programs, "gpuq-cluster"),
		append(args, "--dir", p.dir, "--bin", programs)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (p program) must(args ...string) string {
	p.t.Helper()
	out, err := p.run(args...)
	if err != nil {
		p.t.Fatalf("gpuq-cluster %v: %v\n%s", args, err, out)
	}
	return out
}

func (p program) up() string {
	p.t.Helper()
	return p.must("up", "--workers", "1", "--rabbit-nodes", "1", "--ledger", "sqlite",
		"--example", "../../examples/train", "--epochs", "3")
}

// units returns what runs, by name.
func (p program) units() map[string]supervisor.Status {
	p.t.Helper()
	reply, err := Ask(within(p.t, time.Minute), p.dir, Request{Verb: VerbStatus}, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	units := make(map[string]supervisor.Status)
	for _, u := range reply.Units {
		units[u.Name] = u
	}
	return units
}

// supervisorProcess returns the process in the background: the one of our
// program that carries the cluster's mark.
func (p program) supervisorProcess() proctree.Process {
	p.t.Helper()
	found, err := finder{marker: Marker(p.dir)}.find()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, process := range found {
		if commandName(process.PID) == "gpuq-cluster" {
			return process
		}
	}
	p.t.Fatal("no supervisor runs")
	return proctree.Process{}
}

func samePids(a, b map[string]supervisor.Status) bool {
	for name := range a {
		if a[name].Pid != b[name].Pid {
			return false
		}
	}
	return len(a) == len(b)
}

// The goal: whatever a person or a fault does between `make up` and `make down`,
// the first brings all up, and the second leaves nothing.
func TestProgram(t *testing.T) {
	p := program{t: t, dir: filepath.Join(t.TempDir(), "cluster")}
	t.Cleanup(func() {
		if err := Remove(p.dir); err != nil {
			t.Error(err)
		}
	})
	if out, err := p.run("status"); err == nil || !strings.Contains(out, "make up") {
		t.Fatalf("status of nothing: %v, %q", err, out)
	}
	if out := p.up(); !strings.Contains(out, "\nbest of 15: accuracy=") || strings.Count(out, "  succeeded  ") != 15 {
		t.Errorf("the example's results are not shown:\n%s", out)
	}
	first := p.units()
	if len(first) != 4 { // epmd, redis, one node, one worker
		t.Fatalf("%d units run, want 4: %v", len(first), first)
	}
	t.Run("SecondUpDoesNothing", func(t *testing.T) {
		p.t = t
		out := p.up()
		if again := p.units(); !samePids(first, again) {
			t.Errorf("processes changed:\n%v\n%v\n%s", first, again, out)
		}
	})
	t.Run("KeptDownUnitIsUpAfterUp", func(t *testing.T) {
		p.t = t
		p.must("keep-down", "worker_1")
		if u := p.units()["worker_1"]; u.Phase != supervisor.Down {
			t.Errorf("it is %s", u.Phase)
		}
		p.up()
		if u := p.units()["worker_1"]; u.Phase != supervisor.Running {
			t.Errorf("it is %s", u.Phase)
		}
		first = p.units()
	})
	t.Run("KilledSupervisorsProcessesAreTakenOver", func(t *testing.T) {
		p.t = t
		old := p.supervisorProcess()
		if err := proctree.Signal(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := proctree.WaitGone(within(t, time.Minute), old); err != nil {
			t.Fatal(err)
		}
		if out, err := p.run("status"); err == nil || !strings.Contains(out, "takes over") {
			t.Errorf("status without a supervisor: %v, %q", err, out)
		}
		p.up()
		if again := p.units(); !samePids(first, again) {
			t.Errorf("processes changed:\n%v\n%v", first, again)
		}
	})
	t.Run("SecondUpAtTheSameTimeIsRefused", func(t *testing.T) {
		p.t = t
		unlock, err := Lock(p.dir)
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		if out, err := p.run("up"); err == nil || !strings.Contains(out, "another make up") {
			t.Errorf("%v, %q", err, out)
		}
	})
	t.Run("DownLeavesNothingEvenWithoutASupervisor", func(t *testing.T) {
		p.t = t
		id, members := p.family()
		if err := proctree.Signal(p.supervisorProcess(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		p.must("down")
		if anyAlive(members) {
			t.Errorf("processes of job %s are left", id)
		}
		if left, err := (finder{marker: Marker(p.dir)}).find(); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
		if _, err := os.Stat(p.dir); err == nil {
			t.Error("the directory is left")
		}
		p.must("down") // nothing to do is no error
	})
}

// family submits a job with two processes and returns them.
func (p program) family() (id string, members []proctree.Process) {
	p.t.Helper()
	cmd := exec.CommandContext(within(p.t, time.Minute), filepath.Join(programs, "gpuqctl"),
		"submit", "--json", "--", "sh", "-c", "setsid sleep 1000 & exec sleep 1000")
	cmd.Env = append(os.Environ(), "GPUQCTL_CONFIG="+filepath.Join(p.dir, "gpuqctl.toml"))
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatal(err)
	}
	var reply struct{ ID string }
	if err := json.Unmarshal(out, &reply); err != nil {
		p.t.Fatalf("%v: %s", err, out)
	}
	mark := proctree.Mark{Environ: []string{"GPUQ_JOB_ID=" + reply.ID, "GPUQ_ATTEMPT=1"}}
	until(p.t, "two processes of the job", func() bool {
		members, err = proctree.Find(mark)
		return err == nil && len(members) == 2
	})
	return reply.ID, members
}
