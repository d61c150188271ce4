package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
)

// finish makes sure that nothing is left, and says how the attempt ended.
func (s *supervisor) finish() runner.Exit {
	if s.status == nil { // both events were there; the other was taken first
		status := <-s.reaped.ended
		s.status, s.ended = &status.WaitStatus, time.Now()
	}
	if s.stop != nil && !s.stopping { // being written: the exit came first
		<-s.written
		s.stop = nil
	}
	s.clear()
	exit := s.outcome()
	s.classOOM(&exit)
	exit.Started, exit.Ended = s.began.UTC(), s.ended.UTC()
	exit.DurationSeconds = s.ended.Sub(s.began).Seconds()
	exit.FrozenSeconds = s.frozenFor(s.ended).Seconds() // what is frozen after its end is nothing
	s.addUsage(&exit)
	if err := s.cmd.cgroup.Remove(); err != nil {
		note("%v", err)
	}
	exit.LogBytes, exit.LogDroppedBytes = s.out.finish()
	exit.JournalDroppedLines = s.out.journal.end()
	return exit
}

// clear ends what carries the attempt's marks without descending from the shim,
// and waits for what cannot be killed: its devices are not free before.
func (s *supervisor) clear() {
	for {
		err := s.a.KillLeftovers()
		if err == nil {
			return
		}
		note("%v", err)
		var left *runner.LeftoversError
		if !errors.As(err, &left) {
			time.Sleep(tick)
		}
	}
}

// outcome classes the end.
func (s *supervisor) outcome() runner.Exit {
	var exit runner.Exit
	if s.status.Signaled() {
		sig := s.status.Signal()
		exit.Code, exit.Signal, exit.CoreDumped = 128+int(sig), unix.SignalName(sig), s.status.CoreDump()
		exit.Reason = "the command was ended by " + exit.Signal + signalHint(sig)
	} else if exit.Code = s.status.ExitStatus(); exit.Code != 0 {
		exit.Reason = fmt.Sprintf("the command exited with code %d", exit.Code)
	}
	if exit.Code != 0 {
		exit.Class = job.ClassUser
	}
	failure, failed := <-s.cmd.failure
	switch {
	case failed:
		exit.Code, exit.Class, exit.Reason = failure.code, job.ClassUser, failure.reason
	case s.stop != nil:
		exit.Class, exit.Reason = s.stop.Reason.Class(), stopText(s.stop, s.in)
		exit.StopReason, exit.StopDetail = s.stop.Reason, s.stop.Detail
	}
	return exit
}

// signalHint says more about a signal that gpuqd did not send.
func signalHint(sig unix.Signal) string {
	switch sig {
	case unix.SIGKILL:
		return ", which gpuqd did not send: perhaps the host ran out of memory (see its kernel log), or somebody killed it by hand"
	case unix.SIGSEGV, unix.SIGBUS, unix.SIGILL, unix.SIGFPE:
		return ": it crashed"
	case unix.SIGABRT:
		return ": it aborted itself, see the end of its output"
	}
	return ""
}

// addUsage adds what the whole tree has used. Memory without a memory cgroup is
// that of the largest single process.
func (s *supervisor) addUsage(exit *runner.Exit) {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &ru); err != nil {
		note("read resource usage: %v", err)
		return
	}
	exit.UserCPUSeconds = time.Duration(ru.Utime.Nano()).Seconds()
	exit.SystemCPUSeconds = time.Duration(ru.Stime.Nano()).Seconds()
	exit.MemoryBytesMax = ru.Maxrss * 1024 // getrusage(2): in KiB
	if peak, ok := s.memory().Peak(); ok {
		exit.MemoryBytesMax = peak
	}
}

// endUnreleased waits for a second stage that was discarded, and cleans up.
func (s *supervisor) endUnreleased() {
	<-s.reaped.gone
	if err := s.cmd.cgroup.Remove(); err != nil {
		note("%v", err)
	}
	s.out.finish()
}

// recordWait is how long a failing exit record is tried again.
const recordWait = time.Minute

// record writes the exit record, and tries for a while: it is the last chance.
// Without one the daemon will call the attempt lost.
func (s *supervisor) record(exit runner.Exit, ans *answer) int {
	if exit.Ended.IsZero() {
		exit.Started, exit.Ended = s.began.UTC(), time.Now().UTC()
	}
	for end := time.Now().Add(recordWait); ; time.Sleep(time.Second) {
		err := s.a.WriteExit(exit)
		if err == nil {
			ans.started()
			return statusDone
		}
		note("%v", err)
		if time.Now().After(end) || errors.Is(err, os.ErrNotExist) {
			return statusError
		}
	}
}
