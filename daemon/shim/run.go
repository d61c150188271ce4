package main

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/proctree"
)

// run runs one attempt from its lock to its exit record.
func run(opts options, ans *answer) int {
	defer ans.close()
	sig := watchSignals() // before the start tells anybody our PID
	a, err := runner.OpenAttempt(opts.dir)
	if err != nil {
		note("%v", err)
		return statusError
	}
	notesToJournal(a.Intent())
	lock, err := a.Lock()
	if err != nil {
		note("%v", err)
		return statusError
	}
	// Closing it is left to the end of the process: whoever finds the lock free
	// must find nothing of us alive.
	defer runtime.KeepAlive(lock)

	if opts.boot != "" {
		// In a container a sandboxed daemon and its shim can be shown different
		// IDs of one boot. Whoever started this shim is of its boot.
		proctree.BootID = func() (string, error) { return opts.boot, nil }
	}
	boot, err := proctree.BootID()
	if err != nil {
		note("%v", err)
		return statusError
	}
	lease := newLease(a.Intent(), boot)
	reason, err := whyNot(a, lease)
	if err != nil {
		note("%v", err)
		return statusError
	}
	if reason != "" {
		return refuse(a, ans, reason)
	}
	return start(a, lease, sig, ans, opts)
}

// whyNot returns why the attempt must not be started, "" where it may be. The
// lock is held.
func whyNot(a *runner.Attempt, l *lease) (string, error) {
	if in := a.Intent(); in.Schema < runner.SchemaLeast || in.Schema > runner.Schema {
		return fmt.Sprintf("its intent has schema %d, this gpuqd-shim knows %d to %d: install gpuqd and gpuqd-shim of one version",
			in.Schema, runner.SchemaLeast, runner.Schema), nil
	}
	if r, ok, err := a.Revoked(); err != nil || ok {
		return "revoked: " + textOf(r), err
	}
	if _, ok, err := a.Started(); err != nil || ok {
		return "it was started before; an attempt runs once", err
	}
	if _, ok, err := a.Exit(); err != nil || ok {
		return "it has ended; an attempt runs once", err
	}
	if s, ok, err := a.StopRequest(); err != nil || ok {
		return "a stop was requested before the start: " + stopText(s, a.Intent()), err
	}
	if state := l.read(); state != leaseLive {
		return "its session's lease is not live: " + state.String(), nil
	}
	return "", nil
}

func textOf(r *runner.Revoked) string {
	if r == nil {
		return ""
	}
	return r.Reason
}

// refuse makes it final that the attempt does not run here, and says so. An
// attempt that was started by another shim is left as it is.
func refuse(a *runner.Attempt, ans *answer, reason string) int {
	note("not started: %s", reason)
	if err := a.RevokeLocked(reason); err != nil {
		note("%v", err)
		return statusError // no word: the daemon finds out by itself
	}
	ans.refused(reason)
	return statusRefused
}

// start forks the command, records that, releases it, and supervises it.
func start(a *runner.Attempt, l *lease, sig *signals, ans *answer, opts options) int {
	// Whatever the command forks becomes our child when its parent ends, so that
	// the tree stays one tree, and wait tells when nothing is left of it.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return refuse(a, ans, "become a subreaper: "+err.Error())
	}
	out := openOutput(a)
	place := settle(opts)
	if text := unheld(a.Intent().Limits, place); text != "" {
		note("%s", text)
		out.say(text)
	}
	cmd, err := fork(a, out, place)
	// The first thread, which the command's PDEATHSIG is tied to, lives as long as
	// the process; from here on any thread may run this.
	runtime.UnlockOSThread()
	if err != nil {
		return refuse(a, ans, "start the command: "+err.Error())
	}
	s := newSupervisor(a, l, sig, out, cmd, place)
	if err := recordStart(a, cmd, l.boot, place); err != nil {
		note("%v", err)
		cmd.discard()
		s.endUnreleased()
		_ = a.RevokeLocked("its start could not be recorded: " + err.Error()) // refused where the record is there after all
		return statusError
	}
	// The sync may have taken any time.
	if state := l.read(); state != leaseLive {
		cmd.discard()
		s.endUnreleased()
		return s.record(runner.Exit{
			Code: -1, Class: job.ClassHostLost, StopReason: runner.StopLeaseLost,
			Reason: "it was not run: its session's lease is not live: " + state.String(),
		}, ans)
	}
	cmd.release()
	ans.started()
	return s.record(s.run(), ans)
}

// recordStart puts the start on disk.
func recordStart(a *runner.Attempt, cmd *command, boot string, p place) error {
	stat, err := proctree.ReadStat(cmd.pid)
	if err != nil {
		return err
	}
	self, err := proctree.Self()
	if err != nil {
		return err
	}
	return a.WriteStarted(runner.Started{
		PID: cmd.pid, StartTicks: stat.Ticks, ShimPID: os.Getpid(), ShimTicks: self.Ticks,
		BootID: boot, Cgroup: string(cmd.cgroup), Time: time.Now().UTC(), Unit: p.unit, InvocationID: p.invocation,
	})
}
