package runnertest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/proctree"
)

// leaseTests: without a live lease an attempt stands still or ends.
var leaseTests = map[string]func(*Bench){
	"FrozenPastDeadlineAndThawedOnRenewal": freezeAndThaw,
	"FrozenTimeIsNotTheJobs":               frozenTimeLimit,
	"ExpiredSessionEndsItWithoutGrace":     expired,
	"FreezeMaxEndsIt":                      freezeMax,
	"StopModeKillsAtDeadline":              stopMode,
	"ContinueModeGoesOnUntilExpired":       continueMode,
	"StopOfAFrozenAttemptHasNoGrace":       stopWhileFrozen,
	"WhatIsContinuedByHandIsFrozenAgain":   continuedByHand,
	"MissingFileFreezes":                   missingFile,
	"DeadlineInTheMiddleOfAStart":          deadlineDuringStart,
	"WhatStoppedItselfIsNotThawed":         selfStopped,
}

// ticking returns an attempt whose payload, in two sessions, appends to a file
// until there is a file "end".
func (b *Bench) ticking(change func(*runner.Intent)) (a *runner.Attempt, progress string) {
	b.Helper()
	progress = b.File("progress")
	loop := "while [ ! -e " + b.File("end") + " ]; do echo x >> " + progress + "; sleep 0.02; done"
	in := b.Intent("setsid sh -c '" + loop + "' & " + loop + "; wait")
	in.DeadlineFile = b.Lease(time.Hour, runner.SessionLive)
	change(&in)
	a = b.Start(in)
	b.Until("the payload makes progress", func() bool { return b.Size(progress) > 10 })
	return a, progress
}

// waitFrozen waits until the payload has stood still for a while.
func (b *Bench) waitFrozen(progress string) {
	b.Helper()
	size, since := b.Size(progress), time.Now()
	b.Until("the payload stands still", func() bool {
		if now := b.Size(progress); now != size {
			size, since = now, time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	})
}

func (b *Bench) waitProgress(progress string) {
	b.Helper()
	size := b.Size(progress)
	b.Until("the payload makes progress again", func() bool { return b.Size(progress) > size+4 })
}

func (b *Bench) end() { b.Must(os.WriteFile(b.File("end"), nil, 0o600)) }

func freezeAndThaw(b *Bench) {
	a, progress := b.ticking(func(*runner.Intent) {})
	for range 2 {
		b.Lease(-time.Millisecond, runner.SessionLive)
		b.waitFrozen(progress)
		b.Lease(time.Hour, runner.SessionLive)
		b.waitProgress(progress)
	}
	b.end()
	if e := b.Wait(a); e.Code != 0 || e.Class != "" || e.FrozenSeconds < 0.5 || e.FrozenSeconds >= e.DurationSeconds {
		b.Errorf("got %+v", e)
	}
}

func frozenTimeLimit(b *Bench) {
	const limit = 5 * time.Second // enough to be frozen in time, however busy the machine is
	a, progress := b.ticking(func(in *runner.Intent) { in.TimeLimit = limit })
	b.Lease(-time.Millisecond, runner.SessionLive)
	b.waitFrozen(progress)
	time.Sleep(limit) // it passes, frozen
	if _, ended, err := a.Exit(); err != nil || ended {
		b.Fatalf("it ended while frozen (%v)", err)
	}
	b.Lease(time.Hour, runner.SessionLive)
	e := b.Wait(a)
	if e.Class != job.ClassTimeout || e.DurationSeconds-e.FrozenSeconds < limit.Seconds()-0.1 {
		b.Errorf("got %+v", e)
	}
}

func expired(b *Bench) {
	a, _ := b.ticking(func(in *runner.Intent) { in.Grace = time.Hour })
	b.Lease(time.Hour, runner.SessionExpired)
	b.wantLost(a, runner.StopSessionExpired)
}

// wantLost wants an end by SIGKILL for a reason that lost the job.
func (b *Bench) wantLost(a *runner.Attempt, reason runner.StopReason) {
	b.Helper()
	e := b.Wait(a)
	if e.Class != job.ClassHostLost || e.StopReason != reason || e.Signal != "SIGKILL" || e.Lost {
		b.Errorf("got %+v", e)
	}
}

func freezeMax(b *Bench) {
	a, _ := b.ticking(func(in *runner.Intent) { in.FreezeMax = 300 * time.Millisecond })
	b.Lease(-time.Millisecond, runner.SessionLive)
	b.wantLost(a, runner.StopFreezeMax)
}

func stopMode(b *Bench) {
	a, _ := b.ticking(func(in *runner.Intent) { in.LeaseLoss, in.Grace = runner.LeaseStop, time.Hour })
	b.Lease(-time.Millisecond, runner.SessionLive)
	b.wantLost(a, runner.StopLeaseLost)
}

func continueMode(b *Bench) {
	a, progress := b.ticking(func(in *runner.Intent) { in.LeaseLoss = runner.LeaseContinue })
	b.Lease(-time.Millisecond, runner.SessionLive)
	time.Sleep(500 * time.Millisecond) // some ticks of the shim
	b.waitProgress(progress)
	b.Lease(-time.Millisecond, runner.SessionExpired)
	b.wantLost(a, runner.StopSessionExpired)
}

func stopWhileFrozen(b *Bench) {
	a, progress := b.ticking(func(in *runner.Intent) { in.Grace = time.Hour })
	b.Lease(-time.Millisecond, runner.SessionLive)
	b.waitFrozen(progress)
	b.Must(a.RequestStop(runner.Stop{Reason: runner.StopKilled}))
	if e := b.Wait(a); e.Class != job.ClassKilled || e.Signal != "SIGKILL" {
		b.Errorf("got %+v", e)
	}
}

// continuedByHand: SIGCONT to a frozen tree helps for one tick at most.
func continuedByHand(b *Bench) {
	a, progress := b.ticking(func(*runner.Intent) {})
	b.Lease(-time.Millisecond, runner.SessionLive)
	b.waitFrozen(progress)
	left, err := a.Leftovers()
	b.Must(err)
	for _, pid := range left {
		_ = unix.Kill(pid, unix.SIGCONT) // a sleep may have ended
	}
	b.waitFrozen(progress)
	b.Lease(time.Hour, runner.SessionLive)
	b.waitProgress(progress)
	b.end()
	if e := b.Wait(a); e.Code != 0 {
		b.Errorf("got %+v", e)
	}
}

func missingFile(b *Bench) {
	a, progress := b.ticking(func(*runner.Intent) {})
	b.Must(os.Remove(a.Intent().DeadlineFile))
	b.waitFrozen(progress)
	b.Lease(time.Hour, runner.SessionLive)
	b.waitProgress(progress)
	b.end()
	b.Wait(a)
	b.waitShimLog(a, "thawed")
}

// waitShimLog waits until the shim has logged a word.
func (b *Bench) waitShimLog(a *runner.Attempt, word string) {
	b.Helper()
	b.Until("the shim logs "+word, func() bool {
		log, err := os.ReadFile(filepath.Join(a.Dir(), "shim.log"))
		b.Must(err)
		return strings.Contains(string(log), word)
	})
}

// selfStopped: a command that has stopped itself waits for its own SIGCONT, also
// over a freeze and a thaw.
func selfStopped(b *Bench) {
	in := b.Intent("kill -STOP $$; exit 5")
	in.DeadlineFile = b.Lease(time.Hour, runner.SessionLive)
	a := b.Start(in)
	pid := b.Started(a).PID
	isStopped := func() bool {
		s, err := proctree.ReadStat(pid)
		return err == nil && s.State == 'T'
	}
	b.Until("the command has stopped itself", isStopped)
	b.Lease(-time.Millisecond, runner.SessionLive)
	b.waitShimLog(a, "frozen")
	b.Lease(time.Hour, runner.SessionLive)
	b.waitShimLog(a, "thawed")
	if !isStopped() {
		b.Error("the thaw continued what had stopped itself")
	}
	b.Must(unix.Kill(pid, unix.SIGCONT))
	if e := b.Wait(a); e.Code != 5 {
		b.Errorf("got %+v", e)
	}
}

// deadlineDuringStart lets the deadline pass at many points of a start. Whatever
// is refused or recorded as not run has not run; the rest ends at the deadline.
func deadlineDuringStart(b *Bench) {
	outcomes := map[string]int{}
	for i := range 25 {
		b.Session = fmt.Sprintf("session-%d", i)
		witness := b.File(fmt.Sprintf("witness-%d", i))
		in := b.Intent("echo ran > " + witness + "; sleep 1000")
		in.LeaseLoss = runner.LeaseStop
		in.DeadlineFile = b.Lease(time.Hour, runner.SessionLive)
		a := b.Begin(in)
		b.Lease(time.Duration(i)*time.Millisecond, runner.SessionLive)
		err := b.Starter.Start(b.ctx(), a)
		if errors.Is(err, runner.ErrRefused) {
			outcomes["refused"]++
			if b.Size(witness) > 0 {
				b.Errorf("deadline after %d ms: refused, and ran", i)
			}
			continue
		}
		b.Must(err)
		switch e := b.Wait(a); {
		case e.Class != job.ClassHostLost || e.StopReason != runner.StopLeaseLost:
			b.Errorf("deadline after %d ms: got %+v", i, e)
		case e.Code != -1:
			outcomes["stopped"]++
		case b.Size(witness) > 0:
			b.Errorf("deadline after %d ms: recorded as not run, and ran", i)
		default:
			outcomes["not released"]++
		}
	}
	b.Logf("outcomes: %v", outcomes)
}
