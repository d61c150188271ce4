package runner_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/proctree"
	"gpuqd/daemon/runner/runnertest"
	"gpuqd/daemon/runner/systemd"
)

// unitTests are what only a unit of its own gives an attempt.
var unitTests = map[string]func(*runnertest.Bench){
	"RunsAsItsAccountBelowItsSlice":     ownAccount,
	"WithoutAnAccountNothingRuns":       noAccount,
	"DirectoryOfAnotherIsNotGivenAway":  foreignWorkdir,
	"OpensGrantedDevicesAlone":          devices,
	"TasksAreBounded":                   tasks,
	"EndAtMemoryMaxIsOOMHost":           memory,
	"FrozenByItsOwnCgroup":              freezer,
	"SecondAttemptOfAJobIsKeptOut":      secondAttempt,
	"MissingShimFailsAtTheStart":        missingShim,
	"LostAttemptHasTheUnitsWitness":     witnessed,
	"StoppedUnitIsAHostShutdown":        stoppedUnit,
	"NothingOfAnEndedUnitIsLeft":        collected,
	"KillLeavesAnotherInvocationsAlone": otherInvocation,
}

func TestSystemdUnit(t *testing.T) {
	needSystemd(t)
	for name, test := range unitTests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(runnertest.NewBench(t, newSystemdStarter))
		})
	}
}

// nobody is an account without rights, which every host has.
func nobody() *runner.Account {
	return &runner.Account{Name: "nobody", UID: 65534, GID: 65534, Groups: []int{65534}, Home: "/nonexistent", Shell: "/bin/sh"}
}

// passable lets accounts pass through the bench's directories, as an installed
// daemon's are.
func passable(b *runnertest.Bench) {
	b.Must(os.Chmod(b.State, 0o711))
	b.Must(os.Chmod(filepath.Dir(b.State), 0o711))
}

func output(b *runnertest.Bench, a *runner.Attempt) string {
	text, err := a.ReadLog(0, 1<<16)
	b.Must(err)
	return string(text)
}

func systemctl(b *runnertest.Bench, args ...string) string {
	b.Helper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		b.Fatalf("systemctl %v: %v: %s", args, err, out)
	}
	return string(out)
}

func ownAccount(b *runnertest.Bench) {
	passable(b)
	in := b.Intent(`id -u; id -g; id -G; echo $HOME $USER $LOGNAME $SHELL; cat /proc/self/oom_score_adj
		grep CapEff /proc/self/status; kill -9 $PPID 2>/dev/null && echo killed its shim
		(echo x >> "$(dirname "$GPUQ_WORKDIR")/attempts/x") 2>/dev/null && echo wrote the journal
		touch "$GPUQ_WORKDIR/mine" && stat -c %U "$GPUQ_WORKDIR" && cat /proc/self/cgroup`)
	in.Account = nobody()
	a := b.Start(in)
	e := b.Wait(a)
	out := output(b, a)
	want := "65534\n65534\n65534\n/nonexistent nobody nobody /bin/sh\n0\nCapEff:\t0000000000000000\nnobody\n"
	if e.Code != 0 || !strings.HasPrefix(out, want) {
		b.Errorf("exit %+v\n%s\nwant\n%s", e, out, want)
	}
	if place := "/gpuq.slice/gpuq-nobody.slice/" + systemd.UnitName(in.JobID) + "/"; !strings.Contains(out, place) {
		b.Errorf("it ran in none below %s:\n%s", place, out)
	}
	if info, err := os.Stat(a.LogPath()); err != nil || info.Mode().Perm() != 0o600 {
		b.Errorf("output.log: %v, %v", info, err)
	}
	again := in
	again.Attempt = 2 // its directory is there
	if e := b.Wait(b.Start(again)); e.Code != 0 {
		b.Errorf("the next attempt: %+v", e)
	}
}

func noAccount(b *runnertest.Bench) {
	root := &runner.Account{Name: "root", Home: "/root", Shell: "/bin/sh"}
	none := &runner.Account{Name: "-/odd name", UID: -1, GID: -1, Problem: "submitter x has no account on this host: the operator makes one"}
	for want, account := range map[string]*runner.Account{"do not run as root": root, none.Problem: none} {
		in := b.Intent("echo ran > " + b.File("ran"))
		in.Account = account
		if e := b.Wait(b.Start(in)); e.Code != 126 || e.Class != job.ClassUser || !strings.Contains(e.Reason, want) {
			b.Errorf("account %s: %+v", account.Name, e)
		}
	}
	in := b.Intent("echo ran > " + b.File("ran"))
	in.Account = nil
	a := b.Begin(in)
	if err := b.Starter.Start(b.Context(), a); err == nil || !strings.Contains(err.Error(), "no account") {
		b.Errorf("Start without an account: %v", err)
	}
	b.Must(a.Revoke())
	if b.Size(b.File("ran")) > 0 {
		b.Error("something ran")
	}
}

// foreignWorkdir: what stands where the job's directory is to be is not given to
// the job's account, nor what it points at.
func foreignWorkdir(b *runnertest.Bench) {
	passable(b)
	work := b.File("shared")
	b.Must(os.Mkdir(work, 0o777))
	b.Must(os.Chmod(work, 0o777))
	secret := b.File("secret")
	b.Must(os.Mkdir(secret, 0o700))
	in := b.Intent("true")
	in.Account, in.Workdir = nobody(), filepath.Join(work, "link")
	b.Must(os.Symlink(secret, in.Workdir))
	if e := b.Wait(b.Start(in)); e.Code != 126 || !strings.Contains(e.Reason, "cannot be entered") {
		b.Errorf("got %+v", e)
	}
	var stat unix.Stat_t
	b.Must(unix.Stat(secret, &stat))
	if stat.Uid != 0 {
		b.Errorf("the directory behind the link was given to %d", stat.Uid)
	}
}

// devices uses the node of the kernel's log, which every kernel has a driver for
// and no unit with DevicePolicy=closed may open by itself.
func devices(b *runnertest.Bench) {
	node := "/dev/gpuq-test-" + string(job.NewID()) // file systems of temporary files are often mounted nodev
	b.Cleanup(func() { _ = os.Remove(node) })
	if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 11))); err != nil {
		b.Skipf("a device file cannot be made: %v", err)
	}
	if fd, err := unix.Open(node, unix.O_WRONLY, 0); err != nil {
		b.Skipf("the device cannot be opened here at all: %v", err)
	} else {
		b.Must(unix.Close(fd))
	}
	script := `if (: > "$1") 2>"$2"; then echo opened; else cat "$2"; fi; : > /dev/null && head -c 1 /dev/zero | wc -c`
	for _, c := range []struct {
		nodes []string
		want  string
	}{
		{[]string{node}, "opened\n1\n"},
		{nil, "not permitted"},
	} {
		in := b.Intent("")
		in.Command = []string{"/bin/sh", "-c", script, "sh", node, b.File("err")}
		in.DeviceNodes = c.nodes
		a := b.Start(in)
		b.Wait(a)
		if out := output(b, a); !strings.Contains(out, c.want) || !strings.HasSuffix(out, "1\n") {
			b.Errorf("granted %v: %q, want %q", c.nodes, out, c.want)
		}
	}
}

func tasks(b *runnertest.Bench) {
	in := b.Intent("i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); echo >> " + b.File("forks") + "; done; wait")
	in.Limits.TasksMax = 10
	a := b.Start(in)
	if e := b.Wait(a); e.Code == 0 || e.Class != job.ClassUser {
		b.Errorf("got %+v", e)
	}
	if n := b.Size(b.File("forks")); n < 5 || n > 40 {
		b.Errorf("it forked %d processes:\n%s", n, output(b, a))
	}
}

func memory(b *runnertest.Bench) {
	const limit = 64 << 20
	for _, c := range []struct {
		script string
		class  job.Class
	}{
		{"exec tail /dev/zero", job.ClassOOMHost},         // the command itself
		{"tail /dev/zero; exit 3", job.ClassOOMHost},      // what it has forked
		{"tail /dev/zero; exit 0", ""},                    // it got on without it
		{"head -c 1000 /dev/zero; exit 4", job.ClassUser}, // nothing to do with memory
	} {
		in := b.Intent(c.script)
		in.Limits.MemoryBytesMax = limit
		e := b.Wait(b.Start(in))
		if e.Class != c.class {
			b.Errorf("%s: got %+v", c.script, e)
		}
		if c.class == job.ClassOOMHost && (!strings.Contains(e.Reason, "limit of 64 MiB") || !strings.Contains(e.Reason, "--memory")) {
			b.Errorf("%s: the reason is %q", c.script, e.Reason)
		}
		if strings.Contains(c.script, "tail") && (e.MemoryBytesMax < limit/2 || e.MemoryBytesMax > 2*limit) {
			b.Errorf("%s: its peak is %d bytes", c.script, e.MemoryBytesMax)
		}
	}
}

func freezer(b *runnertest.Bench) {
	in := b.Intent("while [ ! -e " + b.File("end") + " ]; do sleep 0.02; done")
	in.DeadlineFile = b.Lease(time.Hour, runner.SessionLive)
	a := b.Start(in)
	s := b.Started(a)
	if unit := systemd.UnitName(in.JobID); !strings.Contains(s.Cgroup, "/"+unit+"/") || s.Unit != unit || len(s.InvocationID) != 32 {
		b.Fatalf("it was started as %+v: it has no cgroup in its unit", s)
	}
	frozen := func() bool { return proctree.Cgroup(s.Cgroup).Frozen() }
	b.Lease(-time.Millisecond, runner.SessionLive)
	b.Until("the cgroup is frozen", frozen)
	if stat, err := proctree.ReadStat(s.PID); err != nil || stat.State == 'T' {
		b.Errorf("the command is in state %c, %v: it was stopped by a signal", stat.State, err)
	}
	b.Lease(time.Hour, runner.SessionLive)
	b.Until("the cgroup is thawed", func() bool { return !frozen() })
	b.Must(os.WriteFile(b.File("end"), nil, 0o600))
	if e := b.Wait(a); e.Code != 0 || e.FrozenSeconds <= 0 {
		b.Errorf("got %+v", e)
	}
}

func secondAttempt(b *runnertest.Bench) {
	in := b.Intent("while [ ! -e " + b.File("end") + " ]; do sleep 0.02; done")
	first := b.Start(in)
	in.Attempt = 2
	second := b.Begin(in)
	if err := b.Starter.Start(b.Context(), second); err == nil || errors.Is(err, runner.ErrRefused) || !strings.Contains(err.Error(), "alive already") {
		b.Errorf("Start of the second: %v", err)
	}
	b.Must(second.Revoke())
	b.Must(os.WriteFile(b.File("end"), nil, 0o600))
	b.Wait(first)
	in.Attempt = 3
	if e := b.Wait(b.Start(in)); e.Code != 0 { // at once: its unit may be ending still
		b.Errorf("got %+v", e)
	}
}

func missingShim(b *runnertest.Bench) {
	path := b.File("gpuqd-shim")
	data, err := os.ReadFile(shim)
	b.Must(err)
	b.Must(os.WriteFile(path, data, 0o755))
	starter, err := systemd.New(b.Context(), path)
	b.Must(err)
	defer starter.Close()
	b.Must(os.Remove(path))
	a := b.Begin(b.Intent("true"))
	if err := starter.Start(b.Context(), a); err == nil || !strings.Contains(err.Error(), "install gpuqd-shim") {
		b.Errorf("Start: %v", err)
	}
	b.Must(a.Revoke())
}

func witnessed(b *runnertest.Bench) {
	a := b.Start(b.Intent("sleep 1000 & sleep 1000"))
	s := b.Started(a)
	b.Must(unix.Kill(s.ShimPID, unix.SIGKILL))
	if _, err := a.Wait(b.Context()); !errors.Is(err, runner.ErrLost) {
		b.Fatalf("Wait: %v, want ErrLost", err)
	}
	b.Must(b.Starter.Kill(b.Context(), a))
	wantNotLoaded(b, s.Unit)
	b.Must(a.RecordLost("its shim died"))
	if e := b.Wait(a); !e.Lost || e.Reason != "its shim died: it was ended by SIGKILL" {
		b.Errorf("got %+v", e)
	}
	w, ok, err := a.Witness()
	if err != nil || !ok || w.Result != "signal" || w.ExitCode != "killed" || w.ExitStatus != "KILL" || w.InvocationID != s.InvocationID {
		b.Errorf("the witness says %+v, %v, %v", w, ok, err)
	}
}

func wantNotLoaded(b *runnertest.Bench, unit string) {
	b.Helper()
	b.Until(unit+" is collected", func() bool {
		return strings.TrimSpace(systemctl(b, "show", "--property=LoadState", "--value", unit)) == "not-found"
	})
}

func stoppedUnit(b *runnertest.Bench) {
	saved := b.File("saved")
	a := b.Start(b.Intent("trap 'sleep 0.2; echo saved > " + saved + "; exit 0' TERM; echo > " + b.File("ready") + "; while :; do sleep 0.05; done"))
	b.Until("it is ready", func() bool { return b.Size(b.File("ready")) > 0 })
	systemctl(b, "stop", systemd.UnitName(a.Key().JobID))
	if e := b.Wait(a); e.Class != job.ClassHostLost || e.StopReason != runner.StopShutdown || e.Lost || b.Size(saved) == 0 {
		b.Errorf("got %+v, saved %d bytes", e, b.Size(saved))
	}
	// One that ends at its first signal must not seem to have ended by itself.
	for range 5 {
		a := b.Start(b.Intent("exec sleep 1000"))
		systemctl(b, "stop", systemd.UnitName(a.Key().JobID))
		if e := b.Wait(a); e.Class != job.ClassHostLost || e.StopReason != runner.StopShutdown || e.Lost {
			b.Errorf("got %+v", e)
		}
	}
}

func collected(b *runnertest.Bench) {
	for _, script := range []string{"true", "exit 1", "kill -KILL $$"} {
		a := b.Start(b.Intent(script))
		s := b.Started(a)
		b.Wait(a)
		wantNotLoaded(b, s.Unit)
		if _, err := os.Stat(filepath.Dir(s.Cgroup)); !errors.Is(err, os.ErrNotExist) {
			b.Errorf("%s: the unit's cgroup is left: %v", script, err)
		}
		left, err := filepath.Glob(a.Dir() + "/answer.*")
		if err != nil || len(left) > 0 {
			b.Errorf("%v is left, %v", left, err)
		}
	}
}

// otherInvocation: of a job's attempts, killing what is left of an earlier one
// leaves the later one, in a unit of the same name, alone.
func otherInvocation(b *runnertest.Bench) {
	in := b.Intent("true")
	first := b.Start(in)
	b.Wait(first)
	in.Attempt, in.Command = 2, []string{"/bin/sh", "-c", "while [ ! -e " + b.File("end") + " ]; do sleep 0.02; done; exit 5"}
	second := b.Start(in)
	b.Must(b.Starter.Kill(b.Context(), first))
	b.Must(os.WriteFile(b.File("end"), nil, 0o600))
	if e := b.Wait(second); e.Code != 5 {
		b.Errorf("got %+v", e)
	}
}

// TestSystemdGoesAway: attempts start, end and are found again whatever becomes of
// systemd's connections. It restarts parts of the machine that others may use, so
// it must be told that the machine is the tests' own.
func TestSystemdGoesAway(t *testing.T) {
	needSystemd(t)
	if os.Getenv("GPUQD_TEST_OWN_MACHINE") == "" {
		t.Skip("it restarts the machine's D-Bus; set GPUQD_TEST_OWN_MACHINE=1 where nobody minds")
	}
	b := runnertest.NewBench(t, newSystemdStarter)
	running := b.Start(b.Intent("while [ ! -e " + b.File("end") + " ]; do sleep 0.02; done; exit 6"))
	for i, step := range [][]string{
		{"daemon-reload"},
		{"daemon-reexec"},
		{"restart", "dbus.service"},
		{"stop", "dbus.socket", "dbus.service"}, // systemd's own socket is left
		{"start", "dbus.socket"},
	} {
		systemctl(b, step...)
		e := b.Wait(b.Start(b.Intent(fmt.Sprintf("exit %d", i))))
		if e.Code != i {
			t.Errorf("after %v: %+v", step, e)
		}
	}
	b.Must(os.WriteFile(b.File("end"), nil, 0o600))
	if e := b.Wait(running); e.Code != 6 {
		t.Errorf("the one that ran all the time: %+v", e)
	}
}
