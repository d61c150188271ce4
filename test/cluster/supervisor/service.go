package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	defaultReadyTimeout = time.Minute
	defaultStopGrace    = 10 * time.Second
)

// service is a unit and where it is in its life. Its loop alone starts and
// stops the process; everybody else changes wanted and wakes the loop.
type service struct {
	unit Unit
	sup  *Supervisor
	wake chan struct{} // 1: one look at wanted covers all changes before it

	mu        sync.Mutex
	wanted    bool
	abrupt    bool // how to go down: SIGKILL at once
	status    Status
	found     *adopted // to be used instead of the first start
	current   process  // nil when nothing runs
	interrupt context.CancelFunc
	changed   chan struct{} // closed and replaced when status changes
}

func newService(sup *Supervisor, u Unit, found *adopted) *service {
	if u.ReadyTimeout == 0 {
		u.ReadyTimeout = defaultReadyTimeout
	}
	if u.StopGrace == 0 {
		u.StopGrace = defaultStopGrace
	}
	s := &service{
		unit: u, sup: sup, found: found, wanted: true,
		wake: make(chan struct{}, 1), changed: make(chan struct{}),
		status: Status{
			Name: u.Process.Name, Phase: Starting, Port: u.Port,
			LogPath: u.Process.LogPath, Since: time.Now(),
		},
	}
	// Ready is first asked right after the launch: the record is then written
	// before a supervisor that dies could lose sight of the process.
	ready := u.Process.Ready
	u.Process.Ready = func(ctx context.Context) error {
		if err := s.recordOnce(); err != nil {
			return err
		}
		if ready == nil {
			return nil
		}
		return ready(ctx)
	}
	return s
}

// loop lives until ctx ends, and then leaves the process as it is.
func (s *service) loop(ctx context.Context) {
	pause := s.sup.opts.PauseMin
	for ctx.Err() == nil {
		if !s.isWanted() {
			s.set(func(st *Status) { st.Phase, st.Pid, st.Failures, st.Adopted = Down, 0, 0, false })
			s.sleep(ctx, -1)
			pause = s.sup.opts.PauseMin
			continue
		}
		began := time.Now()
		s.live(ctx)
		if ctx.Err() != nil || !s.isWanted() {
			continue
		}
		if time.Since(began) > s.sup.opts.PauseMax {
			pause = s.sup.opts.PauseMin // it had settled
		}
		s.set(func(st *Status) { st.Phase, st.Pid, st.Adopted = Pausing, 0, false })
		s.sleep(ctx, pause)
		pause = min(2*pause, s.sup.opts.PauseMax)
		if s.isWanted() {
			s.set(func(st *Status) { st.Restarts++ })
		}
	}
}

// live is one life of the process: from its start to its end, to the moment
// nobody wants it, or to the supervisor's own end.
func (s *service) live(ctx context.Context) {
	s.set(func(st *Status) { st.Phase = Starting })
	p, err := s.begin(ctx)
	if err != nil {
		if p != nil && ctx.Err() == nil {
			p.Kill()
			s.forget()
		}
		if ctx.Err() == nil && s.isWanted() {
			s.sup.log.Warn("unit not started", slog.String("unit", s.unit.Process.Name), slog.Any("err", err))
			s.set(func(st *Status) { st.Problem = err.Error(); st.Failures++ })
		}
		return
	}
	s.set(func(st *Status) {
		st.Phase, st.Failures, st.Blocked, st.Problem = Running, 0, false, ""
	})
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.Done():
			problem := "ended by itself with exit code 0"
			if err := p.Err(); err != nil {
				problem = err.Error()
			}
			s.sup.log.Warn("unit ended", slog.String("unit", s.unit.Process.Name), slog.String("reason", problem))
			p.Kill() // what it forked and left in its group
			s.forget()
			s.set(func(st *Status) { st.Problem = problem })
			return
		case <-s.wake:
			if s.isWanted() {
				continue
			}
			s.end(p)
			return
		}
	}
}

// begin brings the process to readiness: the one found at the start, or a new
// one. It returns the process too where that did not become ready.
func (s *service) begin(ctx context.Context) (process, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.unit.ReadyTimeout,
		fmt.Errorf("it was not ready after %s", s.unit.ReadyTimeout))
	defer cancel()
	s.mu.Lock()
	found := s.found
	s.found, s.interrupt = nil, cancel
	wanted := s.wanted
	s.mu.Unlock()
	if !wanted {
		return nil, context.Canceled
	}
	if found != nil {
		s.setCurrent(found, true)
		return found, s.awaitFound(ctx, found)
	}
	if s.unit.Check != nil {
		if err := s.unit.Check(); err != nil {
			s.set(func(st *Status) { st.Blocked = true })
			return nil, err
		}
		s.set(func(st *Status) { st.Blocked = false })
	}
	p := s.unit.Process
	err := p.Start(ctx)
	if p.Pid() == 0 {
		return nil, err
	}
	s.setCurrent(p, false)
	return p, err
}

// awaitFound waits until an adopted process answers.
func (s *service) awaitFound(ctx context.Context, found *adopted) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.unit.Process.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-found.Done():
			return errUnknownExit
		case <-ctx.Done():
			return fmt.Errorf("%w (last: %w)", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// end takes the process down as KeepDown asked.
func (s *service) end(p process) {
	s.mu.Lock()
	abrupt := s.abrupt
	s.mu.Unlock()
	if abrupt {
		p.Kill()
	} else {
		p.Stop(s.unit.StopGrace)
	}
	s.forget()
}

// sleep waits for the pause, or for a wake; a negative pause has no end.
func (s *service) sleep(ctx context.Context, pause time.Duration) {
	var after <-chan time.Time
	if pause >= 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		after = timer.C
	}
	select {
	case <-ctx.Done():
	case <-after:
	case <-s.wake:
	}
}

func (s *service) isWanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted
}

// want says whether the unit is to run, and wakes the loop.
func (s *service) want(up, abrupt bool) {
	s.mu.Lock()
	s.wanted, s.abrupt = up, abrupt
	if !up && s.interrupt != nil {
		s.interrupt() // a start in progress
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default: // a wake is pending, and the loop will see the change
	}
}

// set changes the status and tells those who wait for it.
func (s *service) set(change func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	phase := s.status.Phase
	change(&s.status)
	if s.status.Phase != phase {
		s.status.Since = time.Now()
		s.sup.log.Info("unit changed", slog.String("unit", s.status.Name),
			slog.String("state_from", string(phase)), slog.String("state_to", string(s.status.Phase)))
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// get returns the status, and a channel that is closed when it changes.
func (s *service) get() (Status, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status, s.changed
}

func (s *service) setCurrent(p process, found bool) {
	s.mu.Lock()
	s.current = p
	s.mu.Unlock()
	s.set(func(st *Status) { st.Pid, st.Adopted = p.Pid(), found })
}

// running returns the process to send signals to, nil where there is none.
func (s *service) running() process {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		return s.current
	}
	if s.unit.Process.Running() { // launched, not ready yet
		return s.unit.Process
	}
	return nil
}

// recordOnce writes the record of the process, once per launch.
func (s *service) recordOnce() error {
	s.mu.Lock()
	adoptedNow := s.current != nil && s.current != process(s.unit.Process)
	s.mu.Unlock()
	pid := s.unit.Process.Pid()
	if adoptedNow || pid == 0 {
		return nil
	}
	err := s.sup.record(s.unit.Process.Name, pid, s.unit.Fingerprint)
	s.set(func(st *Status) { st.Pid = pid }) // whoever sees it finds the record
	return err
}

// forget notes that nothing runs any more.
func (s *service) forget() {
	s.mu.Lock()
	if a, ok := s.current.(*adopted); ok {
		a.leave() // it has ended
	}
	s.current = nil
	s.mu.Unlock()
	s.set(func(st *Status) { st.Pid = 0 })
	s.sup.unrecord(s.unit.Process.Name)
}
