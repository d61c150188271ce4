package runner_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/runnertest"
)

// shim is the path of the gpuqd-shim that these tests build.
var shim string

func TestMain(m *testing.M) {
	if state := os.Getenv("RUNNER_TEST_PARENT"); state != "" {
		parent(state)
		return
	}
	code := withShim(m.Run)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// withShim runs the tests with a shim built for them, or with that named by
// GPUQD_TEST_SHIM, for a user who cannot build.
func withShim(run func() int) int {
	flag.Parse()
	// The tests mostly wait for processes; they need no processor each.
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", "8"); err != nil {
			panic(err)
		}
	}
	if shim = os.Getenv("GPUQD_TEST_SHIM"); shim != "" {
		return run()
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
	return run()
}

func newProcessStarter(t testing.TB) runner.Starter {
	s, err := runner.NewProcessStarter(shim)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestProcessStarter(t *testing.T) { runnertest.TestStarter(t, newProcessStarter) }

// TestProcessStarterWithoutCgroup: what most hosts give a process that is not
// root's.
func TestProcessStarterWithoutCgroup(t *testing.T) {
	runnertest.TestStarter(t, func(t testing.TB) runner.Starter {
		s := newProcessStarter(t)
		s.(*runner.ProcessStarter).NoCgroup = true
		return s
	})
}

// parent is the other process of TestAttemptOutlivesItsKilledParent: a daemon
// that starts an attempt and is then killed.
func parent(state string) {
	j, err := runner.OpenJournal(state)
	if err != nil {
		panic(err)
	}
	key, err := runner.ParseKey(os.Getenv("RUNNER_TEST_KEY"))
	if err != nil {
		panic(err)
	}
	a, err := j.Get(key)
	if err != nil {
		panic(err)
	}
	s, err := runner.NewProcessStarter(os.Getenv("RUNNER_TEST_SHIM"))
	if err != nil {
		panic(err)
	}
	if err := s.Start(context.Background(), a); err != nil {
		panic(err)
	}
	fmt.Println("started")
	select {}
}

func TestAttemptOutlivesItsKilledParent(t *testing.T) {
	b := runnertest.NewBench(t, newProcessStarter)
	in := b.Intent("while [ ! -e " + b.File("end") + " ]; do sleep 0.02; done; exit 8")
	a := b.Begin(in)
	b.Must(b.Journal.Close())

	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "RUNNER_TEST_PARENT="+b.State, "RUNNER_TEST_KEY="+in.Key().String(), "RUNNER_TEST_SHIM="+shim)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	b.Must(err)
	b.Must(cmd.Start())
	word := make([]byte, len("started\n"))
	_, readErr := out.Read(word)
	b.Must(cmd.Process.Kill())
	_ = cmd.Wait() // killed
	if readErr != nil || !strings.HasPrefix(string(word), "started") {
		t.Fatalf("the parent said %q, %v", word, readErr)
	}

	b.Open() // the lock went with the parent
	list, err := b.Journal.List()
	b.Must(err)
	if len(list) != 1 || list[0].Key() != a.Key() {
		t.Fatalf("the journal has %v", list)
	}
	if free, err := list[0].LockFree(); err != nil || free {
		t.Fatalf("LockFree: %v, %v; the shim should be alive", free, err)
	}
	b.Must(os.WriteFile(b.File("end"), nil, 0o600))
	if e := b.Wait(list[0]); e.Code != 8 || e.Lost {
		t.Errorf("got %+v", e)
	}
}

// TestCommandOfAnAccountDiesWithItsShim: the kernel forgets whom a process is to
// die with when that becomes another user, so it must be told again. In a unit
// systemd would end the command too; here nobody else does.
func TestCommandOfAnAccountDiesWithItsShim(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root becomes another user")
	}
	b := runnertest.NewBench(t, newProcessStarter)
	in := b.Intent("")
	in.Command, in.Workdir, in.Account = []string{"/bin/sleep", "1000"}, "", nobody()
	a := b.Start(in)
	s := b.Started(a)
	b.Until("the command is the account's own", func() bool {
		var stat unix.Stat_t
		err := unix.Stat(fmt.Sprintf("/proc/%d", s.PID), &stat)
		name, nameErr := os.ReadFile(fmt.Sprintf("/proc/%d/comm", s.PID))
		return err == nil && stat.Uid == 65534 && nameErr == nil && string(name) == "sleep\n"
	})
	b.Must(unix.Kill(s.ShimPID, unix.SIGKILL))
	b.Until("the command has died with its shim", func() bool { return len(runnertest.Alive([]int{s.PID})) == 0 })
	if _, err := a.Wait(b.Context()); !errors.Is(err, runner.ErrLost) {
		t.Errorf("Wait: %v, want ErrLost", err)
	}
	b.Must(a.RecordLost("test"))
}

// TestAccountOpensItsOutputByName: scripts write to /dev/stderr, which asks for
// rights to what is there.
func TestAccountOpensItsOutputByName(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root becomes another user")
	}
	b := runnertest.NewBench(t, newProcessStarter)
	in := b.Intent("")
	in.Command = []string{"/bin/sh", "-c", "echo out > /dev/stdout && echo err > /dev/stderr"}
	in.Workdir, in.Account = "", nobody()
	a := b.Start(in)
	if e, out := b.Wait(a), output(b, a); e.Code != 0 || out != "out\nerr\n" {
		t.Errorf("got %+v, output %q", e, out)
	}
}

// TestWorkdirOfAnAttemptThatCameNoFurther: a host that goes down between the making
// of the directory and its giving away leaves it root's.
func TestWorkdirOfAnAttemptThatCameNoFurther(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root becomes another user")
	}
	b := runnertest.NewBench(t, newProcessStarter)
	passable(b)
	in := b.Intent("touch checkpoint")
	in.Account, in.Workdir = nobody(), b.File("work")
	b.Must(os.Mkdir(in.Workdir, 0o700))
	if e := b.Wait(b.Start(in)); e.Code != 0 {
		t.Errorf("got %+v", e)
	}
}

// TestWorkdirThatAnotherAccountMade: who may write to the work root could lay out
// what a job of somebody else finds in its directory.
func TestWorkdirThatAnotherAccountMade(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root becomes another user")
	}
	b := runnertest.NewBench(t, newProcessStarter)
	passable(b)
	work := b.File("shared")
	b.Must(os.Mkdir(work, 0o777))
	b.Must(os.Chmod(work, os.ModeSticky|0o777))
	for name, c := range map[string]struct{ owner, code int }{"own": {65534, 0}, "operators": {0, 0}, "strangers": {4321, 126}} {
		in := b.Intent("true")
		in.Account, in.Workdir = nobody(), filepath.Join(work, name)
		b.Must(os.Mkdir(in.Workdir, 0o777))
		b.Must(os.Chmod(in.Workdir, 0o777))
		b.Must(os.Chown(in.Workdir, c.owner, c.owner))
		e := b.Wait(b.Start(in))
		if e.Code != c.code || c.code != 0 && !strings.Contains(e.Reason, "belongs to UID 4321") {
			t.Errorf("%s: got %+v", name, e)
		}
	}
}

func TestProcessStarterRefusesAMissingShim(t *testing.T) {
	_, err := runner.NewProcessStarter(filepath.Join(t.TempDir(), "gpuqd-shim"))
	if err == nil || !strings.Contains(err.Error(), "install gpuqd-shim") {
		t.Errorf("got %v; want what to do", err)
	}
}

// TestCommandRunsOnTheCPUsOfItsNode: on a machine whose node 0 has one CPU of those
// that there are, by a mount that the shim alone sees.
func TestCommandRunsOnTheCPUsOfItsNode(t *testing.T) {
	var mine unix.CPUSet
	if err := unix.SchedGetaffinity(0, &mine); err != nil {
		t.Fatal(err)
	}
	if mine.Count() < 2 {
		t.Skip("this test may use one CPU only: a binding to it would not show")
	}
	last := 0
	for cpu := range 1024 {
		if mine.IsSet(cpu) {
			last = cpu
		}
	}
	dir := t.TempDir()
	node := filepath.Join(dir, "nodes", "node0")
	wrapper := filepath.Join(dir, "shim")
	script := "#!/bin/sh\nexec unshare --mount sh -c 'mount --bind " + filepath.Dir(node) + " /sys/devices/system/node && exec \"$0\" \"$@\"' " + shim + " \"$@\"\n"
	if err := errors.Join(os.MkdirAll(node, 0o755), os.WriteFile(filepath.Join(node, "cpulist"), fmt.Appendln(nil, last), 0o600),
		os.WriteFile(wrapper, []byte(script), 0o755)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("unshare", "--mount", "mount", "--bind", filepath.Dir(node), "/sys/devices/system/node").CombinedOutput(); err != nil {
		t.Skipf("a mount of its own cannot be had here: %v: %s", err, out)
	}
	b := runnertest.NewBench(t, func(testing.TB) runner.Starter {
		s, err := runner.NewProcessStarter(wrapper)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
	in := b.Intent("sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status; sh -c 'grep ^Cpus_allowed_list: /proc/self/status'")
	in.NUMA = &runner.NUMA{Nodes: []int{0}}
	a := b.Start(in)
	if e := b.Wait(a); e.Code != 0 {
		t.Fatalf("got %+v", e)
	}
	out, err := a.LogTail(1000)
	if want := fmt.Sprintf("%d\nCpus_allowed_list:\t%[1]d\n", last); err != nil || string(out) != want {
		t.Errorf("got %q, %v; want %q", out, err, want)
	}
}
