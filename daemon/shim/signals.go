package main

import (
	"os"
	"os/signal"
	"unsafe"

	"golang.org/x/sys/unix"
)

// signals is what other processes tell the shim.
type signals struct {
	end   chan os.Signal // SIGTERM, SIGINT: the host shuts down
	nudge chan os.Signal // SIGUSR1: look at the disk now
}

// watchSignals takes every signal that would end the shim by default and that
// somebody may send. One place in each channel is enough: a second signal of a
// kind says nothing new.
func watchSignals() *signals {
	s := &signals{make(chan os.Signal, 1), make(chan os.Signal, 1)}
	signal.Notify(s.end, unix.SIGTERM, unix.SIGINT)
	signal.Notify(s.nudge, unix.SIGUSR1)
	// Caught and dropped, not ignored: an ignored signal stays ignored in the
	// command.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE, unix.SIGUSR2, unix.SIGALRM)
	return s
}

// resetSignals gives every signal its default action, right before an exec: an
// ignored one stays ignored across it, and one that an ancestor of the daemon
// ignored (a shell under nohup, some runtimes) would be lost on the command. The
// runtime has no call for those above 31, which it leaves as it found them.
//
// Source: signal(7), "Signal mask and pending signals"; rt_sigaction(2).
func resetSignals() {
	const last = 64
	var standard [4]uint64 // the kernel's struct sigaction, all zero: SIG_DFL
	for sig := uintptr(1); sig <= last; sig++ {
		// SIGKILL and SIGSTOP refuse; nothing else can fail.
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&standard)), 0, 8, 0, 0)
	}
}
