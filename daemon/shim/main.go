// Command gpuqd-shim runs one attempt of a job and outlives the daemon that
// started it. It takes the attempt's lock, records the start, releases the
// command, keeps its output, enforces the time limit and the session's lease
// deadline, ends the whole tree when told to or when the command has ended, and
// records the exit. It holds the lock until its own end.
//
//	gpuqd-shim run [--answer-fd=N | --answer=FIFO] [--unit=NAME] [--boot=ID] [--no-cgroup] <attempt directory>
//	gpuqd-shim exec <attempt directory>     (by itself only: see command.go)
//	gpuqd-shim witness <attempt directory>  (by systemd, when the unit has ended)
//
// Signals: SIGTERM and SIGINT stop the attempt, as a host that shuts down does;
// SIGHUP and SIGQUIT are ignored, so that losing a terminal harms no job; SIGUSR1
// makes it look at once for a stop request or a new deadline. Killing the shim
// kills the command; the daemon then ends what the command had forked.
//
// Goroutines of a running shim: main (the supervisor), one that reaps, one that
// copies output, one that reads the disk, one that waits for the exec, one for
// each write of a stop reason, and the runtime's for signals.
//
// The runtime need not look for a processor limit: the shim uses one processor.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The exit statuses of gpuqd-shim run. Nothing depends on them: the attempt's
// record says what happened.
const (
	statusDone    = 0 // the attempt has an exit record
	statusError   = 1 // it could not be recorded; see shim.log
	statusUsage   = 2
	statusRefused = 3 // the command was not started
)

// init keeps main on the process's first thread. The kernel ties a command's
// PDEATHSIG to the thread that forked it, and exec keeps the one that was set
// for the first thread only.
func init() { runtime.LockOSThread() }

func main() {
	status := dispatch(os.Args[1:])
	notes.flush()
	os.Exit(status)
}

// options are the words of gpuqd-shim run.
type options struct {
	dir      string
	answerFD int    // -1: none
	answer   string // the path of a FIFO; "" for none
	unit     string // the unit that this is; "" for none
	boot     string // what the daemon calls this boot; "" to look it up
	noCgroup bool
}

func dispatch(args []string) int {
	if len(args) == 2 && args[0] == "exec" {
		return execCommand(args[1])
	}
	if len(args) == 2 && args[0] == "witness" {
		return witness(args[1])
	}
	opts, ok := parse(args)
	if !ok {
		fmt.Fprintln(os.Stderr, "usage: gpuqd-shim run [--answer-fd=N | --answer=FIFO] [--unit=NAME] [--boot=ID] [--no-cgroup] <attempt directory>; gpuqd starts it, nobody else needs to")
		return statusUsage
	}
	closeInherited(opts.answerFD)
	return run(opts, newAnswer(opts))
}

// closeInherited closes what the starter's process leaked into this one: held
// for the whole life of a job, a pipe or a lock of somebody else would be stuck.
// The runtime's own descriptors are close-on-exec, inherited ones cannot be.
func closeInherited(except int) {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		note("%v", err)
		return
	}
	for _, entry := range fds {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd <= 2 || fd == except {
			continue
		}
		// An error means that it is closed: it was ReadDir's own.
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd) // somebody else's: nothing of ours is in it
		}
	}
}

func parse(args []string) (options, bool) {
	opts := options{answerFD: -1}
	if len(args) < 2 || args[0] != "run" {
		return opts, false
	}
	last := len(args) - 1
	for _, arg := range args[1:last] {
		name, value, _ := strings.Cut(arg, "=")
		n, err := strconv.Atoi(value)
		switch {
		case name == "--answer-fd" && err == nil && n > 2:
			opts.answerFD = n
		case name == "--answer" && value != "":
			opts.answer = value
		case name == "--unit" && value != "":
			opts.unit = value
		case name == "--boot" && value != "":
			opts.boot = value
		case arg == "--no-cgroup":
			opts.noCgroup = true
		default:
			return opts, false
		}
	}
	opts.dir = args[last]
	return opts, !strings.HasPrefix(opts.dir, "-")
}

// note writes one line for people to the shim's log, which is its stderr, and
// never waits for the disk: what does not fit is lost. Once the attempt is known
// it goes to journald, too.
func note(format string, args ...any) {
	noteToJournal(format, args...)
	notes.add(fmt.Sprintf("%s "+format+"\n", append([]any{time.Now().UTC().Format(time.RFC3339Nano)}, args...)...))
}
