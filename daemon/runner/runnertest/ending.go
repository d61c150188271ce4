package runnertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
)

// endingTests: how an attempt ended is recorded as it was.
var endingTests = map[string]func(*Bench){
	"CodeAndSignalAreRecorded":     codeAndSignal,
	"FailedExecIsAnExitWithAdvice": failedExec,
	"TimeLimitEndsTheAttempt":      timeLimit,
	"StopReachesWhatIsBeingForked": stopWhileForking,
	"StopReasonDecidesTheClass":    stopReasons,
	"ExitBeforeStopCounts":         exitBeforeStop,
	"GraceLetsTheTreeFinish":       graceForTree,
	"GraceIsForWhatAHandlerStarts": graceForSaver,
	"LaterStopShortensGrace":       laterStop,
	"ShimTermIsAHostShutdown":      shimTerm,
	"UsageIsRecorded":              usage,
	"EnvironmentIsTheJobsOwn":      environment,
	"CommandStartsClean":           cleanStart,
}

func codeAndSignal(b *Bench) {
	for _, c := range []struct {
		script, signal, reason string
		code                   int
		class                  job.Class
	}{
		{"exit 0", "", "", 0, ""},
		{"exit 7", "", "exited with code 7", 7, job.ClassUser},
		{"kill -SEGV $$", "SIGSEGV", "ended by SIGSEGV", 139, job.ClassUser},
		{"kill -KILL $$", "SIGKILL", "gpuqd did not send", 137, job.ClassUser},
	} {
		e := b.Run(c.script)
		if e.Code != c.code || e.Signal != c.signal || e.Class != c.class || !strings.Contains(e.Reason, c.reason) || e.Lost {
			b.Errorf("%s: got %+v", c.script, e)
		}
		if e.Ended.Before(e.Started) || e.Started.IsZero() {
			b.Errorf("%s: started %v, ended %v", c.script, e.Started, e.Ended)
		}
	}
}

func failedExec(b *Bench) {
	plain := b.File("plain")
	b.Must(os.WriteFile(plain, []byte("echo hello"), 0o644))
	orphan := b.File("orphan")
	b.Must(os.WriteFile(orphan, []byte("#!/no/such/interpreter\n"), 0o755))
	garbage := b.File("garbage")
	b.Must(os.WriteFile(garbage, []byte("\x01\x02\x03"), 0o755))
	for _, c := range []struct {
		command []string
		dir     string
		code    int
		reason  string
	}{
		{[]string{"no-such-program"}, "", 127, "PATH="},
		{[]string{"/no/such/program"}, "", 127, "no program /no/such/program"},
		{[]string{orphan}, "", 127, "interpreter"},
		{[]string{plain}, "", 126, "chmod +x"},
		{[]string{"/tmp"}, "", 126, "cannot be executed"},
		{[]string{garbage}, "", 126, "#!/bin/sh"},
		{[]string{"true"}, "/no/such/dir", 126, "working directory"},
	} {
		in := b.Intent("")
		in.Command, in.Dir = c.command, c.dir
		e := b.Wait(b.Start(in))
		if e.Code != c.code || e.Class != job.ClassUser || !strings.Contains(e.Reason, c.reason) {
			b.Errorf("%v in %q: got %+v", c.command, c.dir, e)
		}
	}
}

func timeLimit(b *Bench) {
	in := b.Intent("sleep 1000")
	in.TimeLimit = 300 * time.Millisecond
	a := b.Start(in)
	e := b.Wait(a)
	if e.Class != job.ClassTimeout || e.StopReason != runner.StopTimeout || e.Signal != "SIGTERM" || !strings.Contains(e.Reason, "300ms") {
		b.Errorf("got %+v", e)
	}
	if e.DurationSeconds < 0.3 {
		b.Errorf("it ran %v s, less than its limit", e.DurationSeconds)
	}
	if s, ok, err := a.Stopping(); err != nil || !ok || s.Reason != runner.StopTimeout {
		b.Errorf("the stop reason on disk is %+v, %v, %v", s, ok, err)
	}
}

func stopReasons(b *Bench) {
	for reason, class := range map[runner.StopReason]job.Class{
		runner.StopKilled: job.ClassKilled, runner.StopDrained: job.ClassDrained, runner.StopPreempted: job.ClassPreempted,
		runner.StopOOMGPU: job.ClassOOMGPU, runner.StopDevice: job.ClassDevice, runner.StopFenced: job.ClassHostLost, runner.StopSessionExpired: job.ClassHostLost,
	} {
		a := b.Start(b.Intent("trap 'exit 0' TERM; while :; do sleep 0.05; done"))
		b.Must(a.RequestStop(runner.Stop{Reason: reason, Detail: "by bob: test"}))
		e := b.Wait(a)
		if e.Class != class || e.StopReason != reason || !strings.Contains(e.Reason, "by bob: test") {
			b.Errorf("%s: got %+v", reason, e)
		}
		if reason.AtOnce() && e.Signal != "SIGKILL" {
			b.Errorf("%s: it ended by %q: it must get no grace", reason, e.Signal)
		}
	}
}

// stopWhileForking: a command that is asked to end just as it forks needs no
// SIGKILL. Its grace is longer than the test's patience.
func stopWhileForking(b *Bench) {
	for n := range 10 {
		forks := b.File(fmt.Sprint("forks", n))
		in := b.Intent("i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); echo >> " + forks + "; done; wait")
		in.Grace = time.Hour
		a := b.Start(in)
		b.Until("it forks", func() bool { return b.Size(forks) > 0 })
		b.Must(a.RequestStop(runner.Stop{Reason: runner.StopKilled}))
		if e := b.Wait(a); e.Class != job.ClassKilled || e.Signal != "SIGTERM" {
			b.Fatalf("got %+v", e)
		}
	}
}

func exitBeforeStop(b *Bench) {
	a := b.Start(b.Intent("exit 3"))
	b.Wait(a)
	b.Must(a.RequestStop(runner.Stop{Reason: runner.StopKilled}))
	if e := b.Wait(a); e.Class != job.ClassUser || e.Code != 3 || e.StopReason != "" {
		b.Errorf("got %+v", e)
	}
}

// graceForTree: the shell ends at SIGTERM at once; what it started saves its work.
func graceForTree(b *Bench) {
	saved := b.File("saved")
	in := b.Intent("(trap 'sleep 0.4; echo saved > " + saved + "; exit' TERM; echo ready > " + b.File("ready") + "; while :; do sleep 0.05; done) & exec sleep 1000")
	in.Grace = 20 * time.Second
	a := b.Start(in)
	b.Until("the payload is ready", func() bool { return b.Size(b.File("ready")) > 0 })
	b.Must(a.RequestStop(runner.Stop{Reason: runner.StopDrained}))
	if e := b.Wait(a); e.Class != job.ClassDrained || b.Size(saved) == 0 {
		b.Errorf("saved %d bytes, got %+v", b.Size(saved), e)
	}
}

// graceForSaver: the command starts something to save its work when it is asked to
// end, and does not wait for it.
func graceForSaver(b *Bench) {
	saved := b.File("saved")
	in := b.Intent("trap '(sleep 0.4; echo saved > " + saved + ") & exit 0' TERM; echo ready > " + b.File("ready") + "; while :; do sleep 0.05; done")
	in.Grace = 20 * time.Second
	a := b.Start(in)
	b.Until("the payload is ready", func() bool { return b.Size(b.File("ready")) > 0 })
	b.Must(a.RequestStop(runner.Stop{Reason: runner.StopDrained}))
	if e := b.Wait(a); e.Class != job.ClassDrained || b.Size(saved) == 0 {
		b.Errorf("saved %d bytes, got %+v", b.Size(saved), e)
	}
}

func laterStop(b *Bench) {
	in := b.Intent("trap '' TERM; echo ready > " + b.File("ready") + "; while :; do sleep 0.05; done")
	in.Grace = time.Hour
	a := b.Start(in)
	b.Until("the payload is ready", func() bool { return b.Size(b.File("ready")) > 0 })
	b.Must(a.RequestStop(runner.Stop{Reason: runner.StopDrained}))
	b.Until("the stop has begun", func() bool { _, ok, err := a.Stopping(); return ok && err == nil })
	b.Must(a.RequestStop(runner.Stop{Reason: runner.StopKilled, Grace: -1}))
	if e := b.Wait(a); e.Class != job.ClassDrained || e.Signal != "SIGKILL" {
		b.Errorf("got %+v", e)
	}
}

func shimTerm(b *Bench) {
	a := b.Start(b.Intent("sleep 1000"))
	s := b.Started(a)
	p, err := os.FindProcess(s.ShimPID)
	b.Must(err)
	b.Must(p.Signal(os.Interrupt))
	if e := b.Wait(a); e.Class != job.ClassHostLost || e.StopReason != runner.StopShutdown {
		b.Errorf("got %+v", e)
	}
}

func usage(b *Bench) {
	e := b.Run("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; sleep 0.1")
	if e.UserCPUSeconds <= 0 || e.MemoryBytesMax < 100<<10 || e.DurationSeconds < 0.1 {
		b.Errorf("got %+v", e)
	}
}

func environment(b *Bench) {
	in := b.Intent("env > " + b.File("env") + "; pwd >> " + b.File("env"))
	in.Env = map[string]string{"LANG": "de_DE.UTF-8", "GPUQ_ATTEMPT": "99", "CUDA_VISIBLE_DEVICES": "all", "GOMEMLIMIT": "nonsense"}
	in.Devices = []string{"GPU-1", "GPU-2"}
	in.Attempt, in.GPUMemoryBytes = 3, 12<<30
	b.Wait(b.Start(in))
	data, err := os.ReadFile(b.File("env"))
	b.Must(err)
	got := "\n" + string(data)
	for _, want := range []string{
		"LANG=de_DE.UTF-8", "GPUQ_ATTEMPT=3", "GPUQ_JOB_ID=" + string(in.JobID), "GPUQ_GPUS=2", "CUDA_VISIBLE_DEVICES=GPU-1,GPU-2",
		"CUDA_DEVICE_ORDER=PCI_BUS_ID", "GPUQ_GPU_MEMORY_BYTES=12884901888", "GPUQ_WORKDIR=" + in.Workdir, "GOMEMLIMIT=nonsense", filepath.Clean(in.Workdir),
	} {
		if !strings.Contains(got, "\n"+want+"\n") {
			b.Errorf("no %s in%s", want, got)
		}
	}
	for _, secret := range []string{"SECRET", "GOGC", "GOMAXPROCS"} {
		if strings.Contains(got, secret) {
			b.Errorf("%s of another process is in the environment", secret)
		}
	}
}

// cleanStart: the command inherits three descriptors that block, no ignored or
// blocked signal, and leads a session of its own.
func cleanStart(b *Bench) {
	in := b.Intent("")
	in.Command = []string{"sleep", "1000"}
	a := b.Start(in)
	proc := fmt.Sprintf("/proc/%d/", b.Started(a).PID)
	b.Until("the command was executed", func() bool {
		name, err := os.ReadFile(proc + "comm")
		b.Must(err)
		return string(name) == "sleep\n"
	})
	b.Until("the command has three descriptors", func() bool { // its loader opens others for a moment
		fds, err := os.ReadDir(proc + "fd")
		b.Must(err)
		return len(fds) == 3
	})
	for _, fd := range []string{"0", "1", "2"} {
		info, err := os.ReadFile(proc + "fdinfo/" + fd)
		b.Must(err)
		var pos, flags int
		if _, err := fmt.Sscanf(string(info), "pos: %d\nflags: %o", &pos, &flags); err != nil || flags&unix.O_NONBLOCK != 0 {
			b.Errorf("descriptor %s has flags %o, %v", fd, flags, err)
		}
	}
	status, err := os.ReadFile(proc + "status")
	b.Must(err)
	for _, mask := range []string{"SigBlk", "SigIgn"} {
		if !strings.Contains(string(status), mask+":\t0000000000000000\n") {
			b.Errorf("%s is not empty in\n%s", mask, status)
		}
	}
	if sid, err := unix.Getsid(b.Started(a).PID); err != nil || sid != b.Started(a).PID {
		b.Errorf("its session is %d, %v", sid, err)
	}
	b.Must(a.RequestStop(runner.Stop{Reason: runner.StopKilled}))
	b.Wait(a)
}

// Started returns the start record, which must be there.
func (b *Bench) Started(a *runner.Attempt) *runner.Started {
	b.Helper()
	s, ok, err := a.Started()
	b.Must(err)
	if !ok {
		b.Fatalf("attempt %s has no start", a.Key())
	}
	return s
}
