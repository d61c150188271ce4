package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gpuqd/daemon/runner/proctree"
	"gpuqd/test/cluster/supervisor"
)

// programs is where TestMain's build is.
var programs string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "gpuq-cluster-test-")
	if err == nil {
		programs = dir
		err = Build(context.Background(), dir, "gpuqd", "gpuqctl", "gpuqd-shim", "gpuq-cluster")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		_ = os.RemoveAll(dir) // the first error says more
		os.Exit(1)
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	_ = os.RemoveAll(dir) // below the system's own temporary directory
	os.Exit(code)
}

// within bounds a step that is sure to end.
func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, fmt.Errorf("not within %s", limit))
	t.Cleanup(cancel)
	return ctx
}

// until polls a condition that is sure to come true.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never %s", what)
		}
	}
}

// started starts a small cluster that ends with the test.
func started(t *testing.T, opts Options) *Cluster {
	t.Helper()
	opts.Dir, opts.BinDir = t.TempDir(), programs
	ctx := within(t, 4*time.Minute)
	c, err := New(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

// gpuqctl runs gpuqctl and returns its stdout, trimmed.
func gpuqctl(t *testing.T, c *Cluster, args ...string) string {
	t.Helper()
	r, err := c.Gpuqctl(within(t, 2*time.Minute), args...)
	if err != nil || r.Code != 0 {
		t.Fatalf("gpuqctl %v: exit code %d, %v: %s", args, r.Code, err, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}

// family submits a job whose command leaves a child behind that leads a session
// of its own, and returns the job and all its processes.
func family(t *testing.T, c *Cluster) (id string, members []proctree.Process) {
	t.Helper()
	id = gpuqctl(t, c, "submit", "--", "sh", "-c", "setsid sleep 1000 & exec sleep 1000")
	mark := proctree.Mark{Environ: []string{"GPUQ_JOB_ID=" + id, "GPUQ_ATTEMPT=1"}}
	until(t, "two processes of the job", func() bool {
		found, err := proctree.Find(mark)
		if err != nil {
			t.Fatal(err)
		}
		members = found
		return len(found) == 2
	})
	return id, members
}

func alive(p proctree.Process) bool {
	stat, err := proctree.ReadStat(p.PID)
	return err == nil && stat.Process == p && stat.Alive()
}

func anyAlive(list []proctree.Process) bool {
	for _, p := range list {
		if alive(p) {
			return true
		}
	}
	return false
}

func unit(t *testing.T, c *Cluster, name string) supervisor.Status {
	t.Helper()
	for _, u := range c.Status() {
		if u.Name == name {
			return u
		}
	}
	t.Fatalf("no unit %s", name)
	return supervisor.Status{}
}

// holder returns the worker in whose journal the job's first attempt is.
func holder(t *testing.T, c *Cluster, id string) string {
	t.Helper()
	for _, name := range c.Workers() {
		if _, err := os.Stat(filepath.Join(c.StateDir(name), "attempts", id+".1")); err == nil {
			return name
		}
	}
	t.Fatalf("no worker has job %s", id)
	return ""
}

func TestCluster(t *testing.T) {
	c := started(t, Options{Workers: 2, DevicesPerWorker: 1, RabbitNodes: 1, Ledger: "sqlite"})
	t.Run("JobRuns", func(t *testing.T) {
		id := gpuqctl(t, c, "submit", "--", "sh", "-c", "echo here is $GPUQ_WORKDIR")
		gpuqctl(t, c, "wait", id)
		if out, want := gpuqctl(t, c, "logs", id), "here is "+c.WorkRoot(); !strings.HasPrefix(out, want) {
			t.Errorf("the job said %q, want a directory below the one that workers share, %q", out, want)
		}
	})
	t.Run("KilledWorkerIsBackAndItsJobRunsOn", func(t *testing.T) {
		id, members := family(t, c)
		name := holder(t, c, id)
		if err := c.Kill(name); err != nil {
			t.Fatal(err)
		}
		until(t, "the worker back", func() bool {
			u := unit(t, c, name)
			return u.Restarts == 1 && u.Phase == supervisor.Running
		})
		if !alive(members[0]) || !alive(members[1]) {
			t.Error("the job's processes did not survive their daemon")
		}
		gpuqctl(t, c, "kill", id)
		until(t, "the job gone", func() bool { return !anyAlive(members) })
	})
	t.Run("DeadHostRunsNothingAndStaysDown", func(t *testing.T) {
		id, members := family(t, c)
		other, otherMembers := family(t, c)
		name := holder(t, c, id)
		if holder(t, c, other) == name {
			t.Fatalf("both jobs are on %s, which has one device", name)
		}
		if err := c.KillHost(within(t, time.Minute), name); err != nil {
			t.Fatal(err)
		}
		if anyAlive(members) {
			t.Error("processes of the dead host's job are alive")
		}
		if u := unit(t, c, name); u.Phase != supervisor.Down {
			t.Errorf("the dead host's daemon is %s", u.Phase)
		}
		if !alive(otherMembers[0]) || !alive(otherMembers[1]) {
			t.Error("processes of another host's job were killed")
		}
		if err := c.StartUnit(within(t, time.Minute), name); err != nil {
			t.Fatal(err)
		}
		gpuqctl(t, c, "kill", other)
		gpuqctl(t, c, "kill", id)
	})
	t.Run("StopLeavesNoProcess", func(t *testing.T) {
		_, members := family(t, c)
		var servers []proctree.Process
		for _, u := range c.Status() {
			stat, err := proctree.ReadStat(u.Pid)
			if err != nil {
				t.Fatal(err)
			}
			servers = append(servers, stat.Process)
		}
		if err := c.Stop(); err != nil {
			t.Fatal(err)
		}
		if anyAlive(members) || anyAlive(servers) {
			t.Error("processes are left")
		}
		f := finder{marker: Marker(c.Dir()), states: []string{c.StateDir("worker_1"), c.StateDir("worker_2")}}
		if left, err := f.find(); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
		if err := c.Kill("redis"); err == nil {
			t.Error("a stopped cluster's server was killed again")
		}
	})
}
