package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"gpuqd/daemon/runner"
)

// Shutdown is a word about the host itself: it goes down, or stays after all. The
// stop of gpuqd alone is none.
type Shutdown struct {
	Down   bool          // false: the one that was announced does not happen
	Within time.Duration // from now on; then the host goes down, whatever is done by then
	By     string        // who says so, for people
	// Done is called once, when there is nothing left to wait for: all is done, or
	// cannot be done in time. Nil where nobody waits.
	Done func()
}

// parting is what this host does about its own shutdown:
//
//	stays ──▶ goes down: takes nothing, ends its attempts, commits them
//	             └─ when nothing is left ──▶ session released: no renewals
//	stays ◀── from either, where the shutdown is called off; under a new session
//	          where the old one was released
type parting struct {
	asks    chan sessionAsk // to the goroutine that renews the lease, which alone ends and opens sessions
	entered chan struct{}   // closed when start-up is over

	mu  sync.Mutex
	why string // "" while the host stays
}

// sessionAsk is a step on the session.
type sessionAsk struct {
	ctx  context.Context
	step func(context.Context) error
	done chan error
}

func newParting() *parting {
	return &parting{asks: make(chan sessionAsk), entered: make(chan struct{})}
}

// reason returns why the host takes nothing, "" while it stays.
func (p *parting) reason() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.why
}

func (p *parting) set(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.why = why
}

// ask has step done between two renewals, and returns its error. A nil step only
// makes that goroutine look at how things stand.
func (p *parting) ask(ctx context.Context, step func(context.Context) error) error {
	ask := sessionAsk{ctx, step, make(chan error, 1)}
	select {
	case p.asks <- ask:
		return <-ask.done // what was begun ends with ctx
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answer does what is asked for, under the context of the loop that does it, until
// who asked gives up.
func (s sessionAsk) answer(ctx context.Context) {
	if s.step == nil {
		s.done <- nil
		return
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(s.ctx.Err()) })()
	s.done <- s.step(ctx)
}

// shutdownLoop heeds what is said of the host. A later word ends what an earlier
// one began.
func (a *Agent) shutdownLoop(ctx context.Context) error {
	end := func() {}
	defer func() { end() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case word := <-a.shutdown:
			end()
			end = a.heed(ctx, word)
		}
	}
}

// heed begins what a word asks for; end breaks it off and waits for that.
func (a *Agent) heed(ctx context.Context, word Shutdown) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	step := a.stay
	if word.Down {
		// Before the goroutine is there: from here on nothing is begun.
		a.parting.set("the host goes down: " + word.By)
		step = func(ctx context.Context) { a.goDown(ctx, word) }
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		step(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// goDown ends this host's attempts, commits them, and releases the session, so
// that others need not wait for the end of its lease. What cannot be ended or
// committed in time keeps the session: its jobs must not run elsewhere while they
// may be running here.
func (a *Agent) goDown(ctx context.Context, word Shutdown) {
	if word.Done != nil {
		defer word.Done()
	}
	if a.lease.isClosed() {
		return // an earlier word has done it all, and nothing has begun since
	}
	ctx, cancel := context.WithTimeout(ctx, word.Within)
	defer cancel()
	began := a.clock.Now()
	a.log.Warn("host goes down; ending its attempts", "host", a.host, "attempts", a.runs.len(),
		"reason", word.By, "duration_seconds", word.Within.Seconds())
	select {
	case <-a.parting.entered:
	case <-ctx.Done():
		a.log.Warn("start-up was not over when the host went down; what ran here is settled by its next start, or by others once the lease has ended")
		return
	}
	err := a.endAll(ctx, word)
	if err == nil {
		err = a.parting.ask(ctx, a.releaseSession)
	}
	session := a.lease.current()
	if err != nil {
		a.metrics.sessionsReleased.WithLabelValues("failed").Inc()
		a.log.Warn("session is not released; other hosts wait for the end of its lease", "session", session,
			"attempts", a.runs.len(), "err", err)
		return
	}
	a.metrics.sessionsReleased.WithLabelValues("released").Inc()
	a.log.Info("session released; other hosts can have its jobs at once", "session", session,
		"duration_seconds", a.clock.Now().Sub(began).Seconds())
	a.recordEvent(ctx, "release_session", "gpuqd", a.host, fmt.Sprintf("the host goes down: %s; session %s has nothing left", word.By, session))
}

// noteShutdownOf keeps this host from taking work for a while after somebody else
// told a shim to end: so systemd begins, where it stops the system and logind was
// not asked. This daemon's own turn comes when all attempts are gone; until then
// it must not take back what it requeues.
func (a *Agent) noteShutdownOf(r *run, exit *runner.Exit) {
	if exit.StopReason != runner.StopShutdown || a.parting.reason() != "" || r.wish() != nil {
		return
	}
	a.holdOff.set(a.clock.Now(), "an attempt was told that the host shuts down")
	a.log.Warn("attempt was ended by a signal to its shim; taking no work for a while", "job_id", r.hold.JobID,
		"attempt", r.number, "reason", exit.StopDetail, "duration_seconds", holdOffTime.Seconds())
}

// endAgain is how often an attempt that is still there is asked again to end: a
// request may not have reached the disk.
const endAgain = time.Second

// endAll ends and commits what this host works on. It returns when nothing is
// left, with an error when ctx ended first.
func (a *Agent) endAll(ctx context.Context, word Shutdown) error {
	again := time.NewTicker(endAgain)
	defer again.Stop()
	reserve := commitReserve(word.Within)
	for {
		deadline, _ := ctx.Deadline()
		for _, r := range a.runs.all() {
			if !r.committing() {
				r.stop(runner.Stop{
					Reason: runner.StopShutdown, Detail: word.By,
					Grace: graceWithin(r.job.Spec.Grace.Std(), time.Until(deadline)-reserve),
				})
			}
		}
		idle, changed := a.runs.idle()
		if idle || bugged(ReleaseRunning) {
			return nil
		}
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("%d attempts were not ended and committed in time: %w", a.runs.len(), ctx.Err())
		}
	}
}

// commitReserve is what of the time to a shutdown is kept for what comes after
// the last SIGKILL: exit records, commits, messages, the release.
func commitReserve(within time.Duration) time.Duration {
	return min(within/2, max(2*time.Second, within/6))
}

// graceWithin is a job's own grace, cut to the time that is left; none is
// negative, as in runner.Stop.
func graceWithin(own, left time.Duration) time.Duration {
	if grace := min(own, left); grace > 0 {
		return grace
	}
	return -1
}

// releaseSession closes this host's own session, under which nothing runs any
// more. It belongs to the goroutine that renews.
func (a *Agent) releaseSession(ctx context.Context) error {
	session, seq, _ := a.lease.state()
	if err := a.nothingHeld(ctx, session); err != nil && !bugged(ReleaseRunning) {
		return err
	}
	// First here, then for all: a shim that came late would find its session over.
	a.lease.lose()
	err := a.writeDeadline(session, runner.SessionExpired)
	if err == nil {
		err = a.persist(ctx, "release the session", func(ctx context.Context) error {
			return a.renewals.CloseSession(ctx, a.host, session, seq)
		})
	}
	if err != nil {
		return err // the next renewal tells whether it is still this host's, and the shims
	}
	a.lease.close()
	return nil
}

// nothingHeld makes sure that no job of the session can be running: what neither
// memory nor a readable journal answers for might.
func (a *Agent) nothingHeld(ctx context.Context, session string) error {
	held, err := a.renewals.HeldBy(ctx, session)
	if err != nil {
		return err
	}
	for _, j := range held {
		if !a.isOrphan(j) {
			return fmt.Errorf("job %s may be running here: %w", j.ID, errHeld)
		}
	}
	return nil
}

var errHeld = errors.New("the journal does not say that its attempt is over")

// stay takes part again. A session that was released is over for good: the
// goroutine that renews opens a new one.
func (a *Agent) stay(ctx context.Context) {
	if a.parting.reason() == "" {
		return
	}
	a.parting.set("")
	a.log.Info("host does not go down after all; taking work again", "host", a.host)
	a.wakeUp()
	_ = a.parting.ask(ctx, nil) // ended by ctx only
}

// openAgain opens a new session after the release of the last. It belongs to the
// goroutine that renews.
func (a *Agent) openAgain(ctx context.Context) {
	err := a.persist(ctx, "open a new session", func(ctx context.Context) error { return a.openSession(ctx, false) })
	if err == nil {
		a.wakeUp()
	} // else ended by ctx
}
