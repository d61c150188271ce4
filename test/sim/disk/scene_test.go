package disk_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/runner"
	"gpuqd/test/sim/disk"
)

// scene is one play on a rig, and what was seen of it.
type scene struct {
	rig
	t    testing.TB
	seen []string
}

// say adds what was seen.
func (s *scene) say(format string, args ...any) {
	s.seen = append(s.seen, fmt.Sprintf(format, args...))
}

// patience bounds every wait of a scene.
const patience = 30 * time.Second

// until waits for a condition.
func (s *scene) until(what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// begin journals an attempt.
func (s *scene) begin(in runner.Intent) agent.Attempt {
	s.t.Helper()
	a, err := s.Begin(in)
	must(s.t, err)
	return a
}

// start journals an attempt, starts it, and waits for the payload's first word.
func (s *scene) start(in runner.Intent) agent.Attempt {
	s.t.Helper()
	a := s.begin(in)
	s.say("start: %s", s.startIt(a))
	s.until("the payload runs", func() bool { return s.Ran(a) == 1 })
	return a
}

func (s *scene) startIt(a agent.Attempt) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return word(s.Start(ctx, a))
}

// wait says how an attempt ended.
func (s *scene) wait(a agent.Attempt) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	e, err := a.Wait(ctx)
	if err != nil {
		s.say("wait: %s", word(err))
		return
	}
	s.say("exit: code=%d signal=%s class=%s stop=%s detail=%s lost=%t frozen=%t log=%d", e.Code, e.Signal, e.Class, e.StopReason,
		e.StopDetail, e.Lost, e.FrozenSeconds > 0, e.LogBytes)
	if e.Ended.Before(e.Started) || e.DurationSeconds < e.FrozenSeconds {
		s.t.Errorf("its times make no sense: %+v", e)
	}
	if s.Left(a) {
		s.t.Errorf("something of attempt %s is left", a.Key())
	}
}

// state says what is recorded of an attempt.
func (s *scene) state(a agent.Attempt) {
	s.t.Helper()
	_, started, startedErr := a.Started()
	_, revoked, revokedErr := a.Revoked()
	_, ended, endedErr := a.Exit()
	_, settled, settledErr := a.Verdict()
	s.say("started=%t revoked=%t ended=%t settled=%t ran=%d %s", started, revoked, ended, settled, s.Ran(a),
		word(errors.Join(startedErr, revokedErr, endedErr, settledErr)))
}

// lease writes the session's deadline, d from now.
func (s *scene) lease(d time.Duration, state string) {
	s.t.Helper()
	must(s.t, s.WriteDeadline(runner.Deadline{Session: "session", BootID: s.BootID(), At: s.Boottime() + d, State: state}))
}

// guarded returns an intent that the session's lease guards, which is live.
func (s *scene) guarded(p disk.Payload) runner.Intent {
	s.t.Helper()
	s.lease(time.Hour, runner.SessionLive)
	in := s.Intent(p)
	in.DeadlineFile = s.DeadlinePath("session")
	return in
}

// stop asks for the end of an attempt.
func (s *scene) stop(a agent.Attempt, reason runner.StopReason, grace time.Duration) {
	s.say("stop: %s", word(a.RequestStop(runner.Stop{Reason: reason, Detail: "by bob", Grace: grace})))
}

// word names an error by what a caller can tell of it.
func word(err error) string {
	if err == nil {
		return "ok"
	}
	var is []string
	for name, target := range map[string]error{
		"exists": runner.ErrExists, "not found": runner.ErrNotFound, "busy": runner.ErrBusy, "started": runner.ErrStarted,
		"not started": runner.ErrNotStarted, "refused": runner.ErrRefused, "lost": runner.ErrLost, "damaged": runner.ErrDamaged,
		"no file": fs.ErrNotExist, "canceled": context.Canceled, "late": context.DeadlineExceeded,
	} {
		if errors.Is(err, target) {
			is = append(is, name)
		}
	}
	if is == nil {
		return "failed"
	}
	slices.Sort(is)
	return strings.Join(is, "+")
}

const long = time.Hour

// plain is a payload that runs until it is ended.
var plain = disk.Payload{Run: long}

// scenes are what is played, with what must be seen.
var scenes = []struct {
	name string
	play func(s *scene)
	want string
}{
	{"ExitZero", func(s *scene) {
		a := s.start(s.Intent(disk.Payload{Run: 100 * time.Millisecond}))
		s.wait(a)
		tail, err := a.LogTail(8 << 10)
		s.say("log: %t %s", string(tail) == disk.Witness(a.Key().JobID, 1, "host1"), word(err))
		part, err := a.ReadLog(3, 4)
		s.say("part: %s %s", part, word(err))
		s.say("past the end: %d", len(first(a.ReadLog(1<<20, 4))))
		s.state(a)
	}, `start: ok; exit: code=0 signal= class= stop= detail= lost=false frozen=false log=52; log: true ok; part: ness ok; past the end: 0; started=true revoked=false ended=true settled=false ran=1 ok`},
	{"ExitThree", func(s *scene) {
		s.wait(s.start(s.Intent(disk.Payload{Run: 100 * time.Millisecond, Code: 3})))
	}, `start: ok; exit: code=3 signal= class=user stop= detail= lost=false frozen=false log=52`},
	{"StopBeforeStart", func(s *scene) {
		a := s.begin(s.Intent(plain))
		s.stop(a, runner.StopKilled, 0)
		s.say("start: %s", s.startIt(a))
		s.wait(a)
		s.say("lost: %s", word(a.RecordLost("test")))
		s.state(a)
	}, `stop: ok; start: refused; wait: not started; lost: not started; started=false revoked=true ended=false settled=false ran=0 ok`},
	{"Kill", func(s *scene) {
		a := s.start(s.Intent(plain))
		s.stop(a, runner.StopKilled, 0)
		s.wait(a)
	}, `start: ok; stop: ok; exit: code=143 signal=SIGTERM class=killed stop=killed detail=by bob lost=false frozen=false log=52`},
	{"KillOfWhatIgnoresTERM", func(s *scene) {
		a := s.start(s.Intent(disk.Payload{Run: long, IgnoresTERM: true}))
		s.stop(a, runner.StopKilled, 200*time.Millisecond)
		s.wait(a)
	}, `start: ok; stop: ok; exit: code=137 signal=SIGKILL class=killed stop=killed detail=by bob lost=false frozen=false log=52`},
	{"LaterStopShortensGrace", func(s *scene) {
		in := s.Intent(disk.Payload{Run: long, IgnoresTERM: true})
		in.Grace = long
		a := s.start(in)
		s.stop(a, runner.StopDrained, 0)
		s.until("the stop has begun", func() bool { return s.Stopping(a) })
		s.stop(a, runner.StopKilled, -1)
		s.wait(a)
	}, `start: ok; stop: ok; stop: ok; exit: code=137 signal=SIGKILL class=drained stop=drained detail=by bob lost=false frozen=false log=52`},
	{"StopAfterTheEnd", func(s *scene) {
		a := s.start(s.Intent(disk.Payload{Run: 50 * time.Millisecond, Code: 3}))
		s.wait(a)
		s.stop(a, runner.StopKilled, 0)
		s.wait(a)
	}, `start: ok; exit: code=3 signal= class=user stop= detail= lost=false frozen=false log=52; stop: ok; exit: code=3 signal= class=user stop= detail= lost=false frozen=false log=52`},
	{"StopReasons", func(s *scene) {
		for _, reason := range []runner.StopReason{runner.StopDrained, runner.StopPreempted, runner.StopDevice, runner.StopFenced, runner.StopSessionExpired} {
			a := s.begin(s.Intent(plain))
			must(s.t, s.Start(context.Background(), a))
			s.until("the payload runs", func() bool { return s.Ran(a) == 1 })
			must(s.t, a.RequestStop(runner.Stop{Reason: reason}))
			e, err := a.Wait(context.Background())
			must(s.t, err)
			s.say("%s: class=%s signal=%s commits=%t", e.StopReason, e.Class, e.Signal, e.StopReason.Commits())
		}
	}, `drained: class=drained signal=SIGTERM commits=true; preempted: class=preempted signal=SIGTERM commits=true; device: class=device signal=SIGTERM commits=true; fenced: class=host_lost signal=SIGKILL commits=false; session_expired: class=host_lost signal=SIGKILL commits=false`},
	{"TimeLimit", func(s *scene) {
		in := s.Intent(plain)
		in.TimeLimit = 300 * time.Millisecond
		s.wait(s.start(in))
	}, `start: ok; exit: code=143 signal=SIGTERM class=timeout stop=timeout detail=300ms lost=false frozen=false log=52`},
	{"TimeLimitOfWhatIgnoresTERM", func(s *scene) {
		in := s.Intent(disk.Payload{Run: long, IgnoresTERM: true})
		in.TimeLimit, in.Grace = 300*time.Millisecond, 300*time.Millisecond
		s.wait(s.start(in))
	}, `start: ok; exit: code=137 signal=SIGKILL class=timeout stop=timeout detail=300ms lost=false frozen=false log=52`},
	{"LeaseBeforeStart", leaseBeforeStart, `missing: refused; passed: refused; expired: refused; another session's: refused; another boot's: refused; none: ok; exit: code=0 signal= class= stop= detail= lost=false frozen=false log=52`},
	{"FreezeAndThaw", func(s *scene) {
		a := s.start(s.guarded(disk.Payload{Run: 5 * time.Second}))
		s.lease(-time.Millisecond, runner.SessionLive)
		s.until("it is frozen", func() bool { return s.Froze(a) == 1 })
		s.lease(time.Hour, runner.SessionLive)
		s.until("it is thawed", func() bool { return s.Thawed(a) == 1 })
		s.wait(a)
		s.say("froze %d, thawed %d", s.Froze(a), s.Thawed(a))
	}, `start: ok; exit: code=0 signal= class= stop= detail= lost=false frozen=true log=52; froze 1, thawed 1`},
	{"DroppedDeadlineFreezes", func(s *scene) {
		a := s.start(s.guarded(disk.Payload{Run: 5 * time.Second}))
		s.DropDeadlines("another")
		s.until("it is frozen", func() bool { return s.Froze(a) == 1 })
		s.lease(time.Hour, runner.SessionLive)
		s.wait(a)
		s.say("froze %d, thawed %d", s.Froze(a), s.Thawed(a))
	}, `start: ok; exit: code=0 signal= class= stop= detail= lost=false frozen=true log=52; froze 1, thawed 1`},
	{"SessionExpired", func(s *scene) {
		in := s.guarded(disk.Payload{Run: long, IgnoresTERM: true})
		in.Grace = long
		a := s.start(in)
		s.lease(time.Hour, runner.SessionExpired)
		s.wait(a)
	}, `start: ok; exit: code=137 signal=SIGKILL class=host_lost stop=session_expired detail=session session lost=false frozen=true log=52`},
	{"StopAtDeadline", func(s *scene) {
		in := s.guarded(plain)
		in.LeaseLoss = runner.LeaseStop
		a := s.start(in)
		s.lease(-time.Millisecond, runner.SessionLive)
		s.wait(a)
	}, `start: ok; exit: code=137 signal=SIGKILL class=host_lost stop=lease_lost detail=on_lease_loss is stop lost=false frozen=true log=52`},
	{"ContinueAtDeadline", func(s *scene) {
		in := s.guarded(disk.Payload{Run: time.Second})
		in.LeaseLoss = runner.LeaseContinue
		a := s.start(in)
		s.lease(-time.Millisecond, runner.SessionLive)
		s.wait(a)
		s.say("froze %d", s.Froze(a))
	}, `start: ok; exit: code=0 signal= class= stop= detail= lost=false frozen=false log=52; froze 0`},
	{"FreezeMax", func(s *scene) {
		in := s.guarded(plain)
		in.FreezeMax = 300 * time.Millisecond
		a := s.start(in)
		s.lease(-time.Millisecond, runner.SessionLive)
		s.wait(a)
	}, `start: ok; exit: code=137 signal=SIGKILL class=host_lost stop=freeze_max detail=300ms lost=false frozen=true log=52`},
	{"FrozenTimeIsNotTheJobs", func(s *scene) {
		in := s.guarded(plain)
		in.TimeLimit = 5 * time.Second
		a := s.start(in)
		s.lease(-time.Millisecond, runner.SessionLive)
		s.until("it is frozen", func() bool { return s.Froze(a) == 1 })
		since := s.Now()
		s.until("the limit has passed", func() bool { return s.Now().Sub(since) > in.TimeLimit })
		s.state(a)
		s.lease(time.Hour, runner.SessionLive)
		s.wait(a)
	}, `start: ok; started=true revoked=false ended=false settled=false ran=1 ok; exit: code=143 signal=SIGTERM class=timeout stop=timeout detail=5s lost=false frozen=true log=52`},
	{"StopOfTheFrozenHasNoGrace", func(s *scene) {
		in := s.guarded(plain)
		in.Grace = long
		a := s.start(in)
		s.lease(-time.Millisecond, runner.SessionLive)
		s.until("it is frozen", func() bool { return s.Froze(a) == 1 })
		s.stop(a, runner.StopKilled, 0)
		s.wait(a)
	}, `start: ok; stop: ok; exit: code=137 signal=SIGKILL class=killed stop=killed detail=by bob lost=false frozen=true log=52`},
	{"DeadlineInTheGraceOfAStop", func(s *scene) {
		in := s.guarded(disk.Payload{Run: long, IgnoresTERM: true})
		in.Grace = long
		a := s.start(in)
		s.stop(a, runner.StopDrained, 0)
		s.until("the stop has begun", func() bool { return s.Stopping(a) })
		s.lease(-time.Millisecond, runner.SessionLive)
		e, err := a.Wait(context.Background()) // it stands still for no time that is worth a word
		must(s.t, err)
		s.say("signal=%s class=%s stop=%s froze %d", e.Signal, e.Class, e.StopReason, s.Froze(a))
	}, `start: ok; stop: ok; signal=SIGKILL class=drained stop=drained froze 1`},
	{"ShimKilled", func(s *scene) {
		a := s.start(s.Intent(plain))
		s.say("busy: %s", word(a.RecordLost("too early")))
		s.KillShim(a)
		s.wait(a)
		s.state(a)
		s.say("revoke: %s", word(a.Revoke()))
		s.say("lost: %s", word(a.RecordLost("its shim died")))
		s.say("again: %s", word(a.RecordLost("its shim died")))
		s.wait(a)
	}, `start: ok; busy: busy; wait: lost; started=true revoked=false ended=false settled=false ran=1 ok; revoke: started; lost: ok; again: ok; exit: code=-1 signal= class=host_lost stop= detail= lost=true frozen=false log=52`},
	{"ShimOfAForkKilled", func(s *scene) {
		a := s.start(s.Intent(disk.Payload{Run: long, Forks: true}))
		s.KillShim(a)
		s.wait(a)
		s.say("left: %t", s.Left(a))
		s.say("lost: %s", word(a.RecordLost("its shim died")))
		s.wait(a)
	}, `start: ok; wait: lost; left: true; lost: ok; exit: code=-1 signal= class=host_lost stop= detail= lost=true frozen=false log=52`},
	{"KillOfWhatAShimLeft", func(s *scene) {
		a := s.start(s.Intent(disk.Payload{Run: long, Forks: true}))
		s.KillShim(a)
		s.wait(a)
		s.say("kill: %s", word(s.Kill(context.Background(), a)))
		s.say("left: %t", s.Left(a))
		s.wait(a)
	}, `start: ok; wait: lost; kill: ok; left: false; wait: lost`},
	{"ShimKilledInAStop", func(s *scene) {
		in := s.Intent(disk.Payload{Run: long, IgnoresTERM: true})
		in.Grace = long
		a := s.start(in)
		s.stop(a, runner.StopDrained, 0)
		s.until("the stop has begun", func() bool { return s.Stopping(a) })
		s.KillShim(a)
		s.wait(a)
		s.say("lost: %s", word(a.RecordLost("its shim died")))
		s.wait(a)
	}, `start: ok; stop: ok; wait: lost; lost: ok; exit: code=-1 signal= class=drained stop=drained detail=by bob lost=true frozen=false log=52`},
	{"RevokeBeforeStart", func(s *scene) {
		a := s.begin(s.Intent(plain))
		s.wait(a)
		s.say("revoke: %s, again: %s", word(a.Revoke()), word(a.Revoke()))
		s.say("late shim: %s", s.startIt(a))
		s.wait(a)
		s.state(a)
	}, `wait: not started; revoke: ok, again: ok; late shim: refused; wait: not started; started=false revoked=true ended=false settled=false ran=0 ok`},
	{"RevokeAfterStart", func(s *scene) {
		a := s.start(s.Intent(plain))
		s.say("revoke: %s", word(a.Revoke()))
		s.stop(a, runner.StopKilled, 0)
		s.wait(a)
		s.say("revoke: %s", word(a.Revoke()))
		s.say("second start: %s", s.startIt(a))
		s.state(a)
	}, `start: ok; revoke: started; stop: ok; exit: code=143 signal=SIGTERM class=killed stop=killed detail=by bob lost=false frozen=false log=52; revoke: started; second start: failed; started=true revoked=false ended=true settled=false ran=1 ok`},
	{"SecondShim", func(s *scene) {
		a := s.start(s.Intent(disk.Payload{Run: time.Second}))
		s.say("second start: %s", s.startIt(a))
		s.wait(a)
		s.state(a)
	}, `start: ok; second start: failed; exit: code=0 signal= class= stop= detail= lost=false frozen=false log=52; started=true revoked=false ended=true settled=false ran=1 ok`},
	{"CancelledStart", func(s *scene) {
		a := s.begin(s.Intent(disk.Payload{Run: 100 * time.Millisecond}))
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := s.Start(ctx, a); err != nil {
			s.say("start: %s", word(err))
		}
		if err := a.Revoke(); err != nil {
			s.say("revoke: %s", word(err))
			s.wait(a)
		}
		_, started, _ := a.Started()
		_, revoked, _ := a.Revoked()
		s.seen = []string{fmt.Sprintf("it ran or is revoked: %t", started != revoked && (s.Ran(a) == 1) == started)}
	}, `it ran or is revoked: true`},
	{"Adoption", func(s *scene) {
		in := s.Intent(disk.Payload{Run: 600 * time.Millisecond, Code: 8})
		in.Spec = []byte(`{"of":"the daemon"}`)
		key := s.start(in).Key()
		s.Reopen()
		list, err := s.List()
		s.say("list: %d %s", len(list), word(err))
		a, err := s.Get(key)
		must(s.t, err)
		s.say("intent: %s %s %v", a.Intent().Spec, a.Intent().ClaimID, a.Intent().Devices)
		s.state(a)
		s.wait(a)
	}, `start: ok; list: 1 ok; intent: {"of":"the daemon"} claim [GPU-1]; started=true revoked=false ended=false settled=false ran=1 ok; exit: code=8 signal= class=user stop= detail= lost=false frozen=false log=52`},
	{"Verdicts", func(s *scene) {
		for _, mark := range []func(agent.Attempt) error{
			func(a agent.Attempt) error { return a.MarkCommitted("commit-1") },
			func(a agent.Attempt) error { return a.MarkDiscarded("too late") },
		} {
			a := s.begin(s.Intent(plain))
			s.say("mark: %s", word(mark(a)))
			v, ok, err := a.Verdict()
			must(s.t, err)
			s.say("%t committed=%t %q %q", ok, v.Committed(), v.CommitID, v.Discarded)
		}
	}, `mark: ok; true committed=true "commit-1" ""; mark: ok; true committed=false "" "too late"`},
	{"Journal", func(s *scene) {
		in := s.Intent(plain)
		a := s.begin(in)
		_, err := s.Begin(in)
		s.say("again: %s", word(err))
		_, err = s.Get(runner.Key{JobID: in.JobID, Attempt: 2})
		s.say("unknown: %s", word(err))
		open := s.begin(s.Intent(plain))
		must(s.t, a.MarkDiscarded("test"))
		n, err := s.Sweep(time.Hour, 0)
		s.say("kept: %d %s", n, word(err))
		n, err = s.Sweep(0, 0)
		s.say("swept: %d %s", n, word(err))
		_, err = s.Get(a.Key())
		s.say("gone: %s", word(err))
		_, _, err = a.Exit()
		s.say("exit: %s, mark: %s, log: %s", word(err), word(a.MarkCommitted("c")), word(second(a.LogTail(9))))
		list, err := s.List()
		s.say("left: %d %t %s", len(list), list[0].Key() == open.Key(), word(err))
		_, err = s.Begin(runner.Intent{JobID: "nonsense", Attempt: 1, Command: []string{"x"}})
		s.say("nonsense: %s", word(err))
	}, `again: exists; unknown: not found; kept: 0 ok; swept: 1 ok; gone: not found; exit: not found, mark: no file, log: ok; left: 1 true ok; nonsense: failed`},
	{"AnotherClaimsSettledAttemptGivesWay", func(s *scene) {
		in := s.Intent(plain)
		in.ClaimID = "before"
		a := s.begin(in)
		again := in
		again.ClaimID = "after"
		_, err := s.Begin(again)
		s.say("open: %s", word(err))
		must(s.t, a.MarkCommitted("commit-before"))
		_, err = s.Begin(in)
		s.say("its own: %s", word(err))
		b := s.begin(again)
		_, settled, err := b.Verdict()
		s.say("after: %s, settled=%t %s", b.Intent().ClaimID, settled, word(err))
		list, err := s.List()
		s.say("left: %d %s", len(list), word(err))
	}, `open: exists; its own: exists; after: after, settled=false ok; left: 1 ok`},
	{"Deadlines", func(s *scene) {
		_, err := s.ReadDeadline("one")
		s.say("missing: %s", word(err))
		for _, session := range []string{"one", "two", "one"} {
			must(s.t, s.WriteDeadline(runner.Deadline{Session: session, BootID: "b", At: time.Hour, State: runner.SessionLive}))
		}
		s.DropDeadlines("two")
		_, err = s.ReadDeadline("one")
		kept, keptErr := s.ReadDeadline("two")
		s.say("dropped: %s, kept: %+v %s", word(err), kept, word(keptErr))
	}, `missing: no file; dropped: no file, kept: {Session:two BootID:b At:1h0m0s State:live} ok`},
	{"CancelledWait", func(s *scene) {
		a := s.start(s.Intent(disk.Payload{Run: 100 * time.Millisecond}))
		cause := errors.New("gave up")
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(cause)
		_, err := a.Wait(ctx)
		s.say("its cause: %t", errors.Is(err, cause))
		s.wait(a)
		_, err = a.Wait(ctx)
		s.say("after the end: %s", word(err))
	}, `start: ok; its cause: true; exit: code=0 signal= class= stop= detail= lost=false frozen=false log=52; after the end: ok`},
}

func leaseBeforeStart(s *scene) {
	for _, c := range []struct {
		name string
		file func() string
	}{
		{"missing", func() string { return s.DeadlinePath("nobody") }},
		{"passed", func() string { s.lease(-time.Second, runner.SessionLive); return s.DeadlinePath("session") }},
		{"expired", func() string { s.lease(time.Hour, runner.SessionExpired); return s.DeadlinePath("session") }},
		{"another session's", func() string {
			must(s.t, s.WriteDeadline(runner.Deadline{Session: "other", BootID: s.BootID(), At: s.Boottime() + long, State: runner.SessionLive}))
			return s.DeadlinePath("other")
		}},
		{"another boot's", func() string {
			must(s.t, s.WriteDeadline(runner.Deadline{Session: "session", BootID: "other", At: s.Boottime() + long, State: runner.SessionLive}))
			return s.DeadlinePath("session")
		}},
		{"none", func() string { return "" }},
	} {
		in := s.Intent(disk.Payload{Run: 50 * time.Millisecond})
		in.DeadlineFile, in.LeaseLoss = c.file(), runner.LeaseContinue
		a := s.begin(in)
		s.say("%s: %s", c.name, s.startIt(a))
		if _, revoked, err := a.Revoked(); err != nil || !revoked && in.DeadlineFile != "" {
			s.t.Errorf("%s: it is not revoked (%v)", c.name, err)
		}
		if in.DeadlineFile == "" {
			s.wait(a)
		}
	}
}

func first[T any](v T, _ error) T        { return v }
func second[T any](_ T, err error) error { return err }
