package runnertest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
)

// treeTests: whatever the command forks ends with the attempt.
var treeTests = map[string]func(*Bench){
	"DaemonisedChildrenEndAtTimeLimit":      daemonisedAtTimeLimit,
	"DaemonisedChildrenEndWithTheCommand":   daemonisedAtExit,
	"KilledShimTakesTheCommandWithIt":       killedShim,
	"DeathOfTheHostLeavesNoExit":            killedWithShim,
	"ForkingTreeEnds":                       forkingTree,
	"LostAttemptThatWasStoppedKeepsReason":  lostWhileStopping,
	"FiftyAttemptsAtOnce":                   fiftyAtOnce,
	"AttemptsDoNotTouchEachOthersProcesses": neighbours,
}

// stubborn leaves three processes behind that write their PIDs to pids: one that
// ignores SIGTERM, one in a session of its own, and one that was forked twice
// and has no trace of the attempt in its environment.
func stubborn(pids string) string {
	loop := "echo $$ >> " + pids + "; while :; do sleep 0.2; done"
	return fmt.Sprintf(`sh -c "trap '' TERM; %[1]s" & setsid sh -c "trap '' TERM HUP; %[1]s" & (env -i /bin/sh -c "PATH=/bin:/usr/bin; trap '' TERM; %[1]s" & exit); `,
		strings.ReplaceAll(loop, "$", `\$`))
}

func daemonisedAtTimeLimit(b *Bench) {
	pids := b.File("pids")
	in := b.Intent(stubborn(pids) + "sleep 1000")
	// Long enough for the three to start, however busy the machine is.
	in.TimeLimit, in.Grace = 8*time.Second, 200*time.Millisecond
	a := b.Start(in)
	all := b.PIDs(pids, 3)
	e := b.Wait(a)
	if alive := Alive(all); len(alive) > 0 || e.Class != job.ClassTimeout {
		b.Errorf("%v of %v are alive, exit %+v", alive, all, e)
	}
}

func daemonisedAtExit(b *Bench) {
	pids := b.File("pids")
	a := b.Start(b.Intent(stubborn(pids) + "while [ $(cat " + pids + " | wc -l) -lt 3 ]; do sleep 0.02; done; exit 4"))
	e := b.Wait(a)
	if alive := Alive(b.PIDs(pids, 3)); len(alive) > 0 || e.Code != 4 {
		b.Errorf("%v are alive, exit %+v", alive, e)
	}
}

func killedShim(b *Bench) {
	pids := b.File("pids")
	a := b.Start(b.Intent(stubborn(pids) + "echo $$ >> " + pids + "; sleep 1000"))
	all := b.PIDs(pids, 4)
	s := b.Started(a)
	if err := a.RecordLost("too early"); !errors.Is(err, runner.ErrBusy) {
		b.Errorf("RecordLost beside a living shim: %v, want ErrBusy", err)
	}
	b.Must(unix.Kill(s.ShimPID, unix.SIGKILL))
	if _, err := a.Wait(b.ctx()); !errors.Is(err, runner.ErrLost) {
		b.Fatalf("Wait: %v, want ErrLost", err)
	}
	b.Until("the command has died with its shim", func() bool { return len(Alive([]int{s.PID})) == 0 })
	if left, err := a.Leftovers(); err != nil || len(left) == 0 && !b.units() {
		b.Errorf("Leftovers: %v, %v; the grandchildren should be found", left, err)
	}
	b.Must(b.Starter.Kill(b.ctx(), a))
	b.Must(a.RecordLost("the shim was killed"))
	if alive := Alive(all); len(alive) > 0 {
		b.Errorf("%v of %v are alive", alive, all)
	}
	if e := b.Wait(a); !e.Lost || e.Class != job.ClassHostLost || !strings.HasPrefix(e.Reason, "the shim was killed") || e.Started.IsZero() {
		b.Errorf("got %+v", e)
	}
	b.Must(a.RecordLost("again")) // the first record stays
	if e := b.Wait(a); !strings.HasPrefix(e.Reason, "the shim was killed") {
		b.Errorf("got %+v", e)
	}
	if s.Cgroup != "" {
		if _, err := os.Stat(s.Cgroup); err == nil {
			b.Errorf("the cgroup %s is left", s.Cgroup)
		}
	}
}

// forkingTree: processes that replace themselves all the time do not get away.
func forkingTree(b *Bench) {
	pids := b.File("pids")
	script := b.File("hop")
	b.Must(os.WriteFile(script, []byte("#!/bin/sh\ntrap '' TERM\necho $$ >> "+pids+"\nsleep 0.02\nsetsid "+script+" &\n"), 0o755))
	in := b.Intent(script + " & " + script + " & sleep 1000")
	a := b.Start(in)
	b.PIDs(pids, 10)
	b.Must(a.RequestStop(runner.Stop{Reason: runner.StopKilled, Grace: 50 * time.Millisecond}))
	b.Wait(a)
	if alive := Alive(b.PIDs(pids, 10)); len(alive) > 0 {
		b.Errorf("%v are alive", alive)
	}
}

func lostWhileStopping(b *Bench) {
	in := b.Intent("trap '' TERM; echo ready > " + b.File("ready") + "; while :; do sleep 0.05; done")
	in.Grace = time.Hour
	a := b.Start(in)
	b.Until("the command ignores SIGTERM", func() bool { return b.Size(b.File("ready")) > 0 })
	b.Must(a.RequestStop(runner.Stop{Reason: runner.StopKilled, Detail: "by bob"}))
	b.Until("the stop has begun", func() bool { _, ok, err := a.Stopping(); return ok && err == nil })
	b.Must(unix.Kill(b.Started(a).ShimPID, unix.SIGKILL))
	if _, err := a.Wait(b.ctx()); !errors.Is(err, runner.ErrLost) {
		b.Fatalf("Wait: %v, want ErrLost", err)
	}
	b.Must(a.RecordLost("the shim is gone"))
	if e := b.Wait(a); !e.Lost || e.Class != job.ClassKilled || e.StopDetail != "by bob" {
		b.Errorf("got %+v", e)
	}
}

func fiftyAtOnce(b *Bench) {
	const n = 50
	type result struct {
		exit *runner.Exit
		err  error
	}
	results := make(chan result, n)
	ctx := b.ctx()
	for range n {
		go func() {
			a, err := b.Journal.Begin(b.Intent("sleep 0.2; echo done; exit 5"))
			if err == nil {
				err = b.Starter.Start(ctx, a)
			}
			var exit *runner.Exit
			if err == nil {
				exit, err = a.Wait(ctx)
			}
			results <- result{exit, err}
		}()
	}
	for range n {
		r := <-results
		if r.err != nil || r.exit.Code != 5 || r.exit.LogBytes != 5 {
			b.Errorf("got %+v, %v", r.exit, r.err)
		}
	}
}

// neighbours: of two attempts of one job, ending one leaves the other alone. Where
// the unit's name keeps them apart, of two jobs.
func neighbours(b *Bench) {
	in := b.Intent("sleep 1000 & wait")
	first := b.Start(in)
	in.Attempt = 11 // its text begins with the other's
	if b.units() {
		in.JobID = job.NewID()
	}
	second := b.Start(in)
	b.Until("the other attempt is the shell and what it forked", func() bool {
		left, err := second.Leftovers()
		b.Must(err)
		return len(left) == 2
	})
	b.Must(unix.Kill(b.Started(first).ShimPID, unix.SIGKILL))
	if _, err := first.Wait(b.ctx()); !errors.Is(err, runner.ErrLost) {
		b.Fatalf("Wait: %v, want ErrLost", err)
	}
	b.Must(first.RecordLost("test"))
	b.WantNothingLeft(first)
	if left, err := second.Leftovers(); err != nil || len(left) != 2 {
		b.Errorf("the other attempt has %v left, %v", left, err)
	}
	b.Must(second.RequestStop(runner.Stop{Reason: runner.StopKilled}))
	b.Wait(second)
}
