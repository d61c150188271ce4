package broker

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// link keeps one connection of a duty up: it dials, sets up, watches, and dials
// again. Each connection it loses ends a generation.
type link struct {
	name  string
	dial  func(ctx context.Context) (*session, error)
	setup func(ctx context.Context, s *session) error // opens the duty's channels
	log   *slog.Logger

	setupTimeout time.Duration
	backoffMax   time.Duration

	mu      sync.Mutex
	cur     *session      // nil while down
	gen     uint64        // of cur, or of the next session
	changed chan struct{} // closed and replaced when cur changes
	genEnd  chan struct{} // closed and replaced when gen changes
	lastErr error         // why it is down
	stopped bool          // run has returned
}

func newLink(name string, d *dialer, cfg Config, setup func(context.Context, *session) error) *link {
	return &link{
		name:         name,
		dial:         func(ctx context.Context) (*session, error) { return d.dial(ctx, name) },
		setup:        setup,
		log:          cfg.Logger,
		setupTimeout: cfg.DeclareTimeout + time.Duration(len(RetryLadder))*time.Second,
		backoffMax:   cfg.BackoffMax,
		gen:          1, // so that the zero Tag is of no generation
		changed:      make(chan struct{}),
		genEnd:       make(chan struct{}),
	}
}

// backoffMin is the first wait after a lost connection; it doubles from there.
const backoffMin = 50 * time.Millisecond

// run keeps the link up until ctx ends.
func (l *link) run(ctx context.Context) {
	defer l.stop()
	wait := backoffMin
	for ctx.Err() == nil {
		s, err := l.open(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			l.noteFailure(err)
			sleep(ctx, wait/2+rand.N(wait/2))
			wait = min(2*wait, l.backoffMax)
			continue
		}
		since := time.Now()
		l.set(s)
		l.log.Info(l.name + " connection to the broker is up")
		select {
		case <-s.gone:
		case <-ctx.Done():
		}
		l.clear(s)
		s.close(ctx.Err() == nil)
		if ctx.Err() != nil {
			return
		}
		l.log.Warn(l.name+" connection to the broker lost", "err", s.cause())
		// A connection that lived counts as a success, one that died young does
		// not: a broker that refuses us after the handshake must not be hammered.
		if time.Since(since) > l.backoffMax {
			wait = backoffMin
		}
		sleep(ctx, wait/2+rand.N(wait/2))
		wait = min(2*wait, l.backoffMax)
	}
}

func (l *link) open(ctx context.Context) (*session, error) {
	s, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	// A setup that hangs is ended by closing its connection.
	timer := time.AfterFunc(l.setupTimeout, func() { s.drop(fmt.Errorf("no answer within %s", l.setupTimeout)) })
	stop := context.AfterFunc(ctx, func() { s.drop(errStopped) })
	err = l.setup(ctx, s)
	timer.Stop()
	stop()
	if err != nil {
		s.drop(err)
		s.close(true)
		return nil, err
	}
	return s, nil
}

func (l *link) set(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.gen = l.gen
	l.cur, l.lastErr = s, nil
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *link) clear(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cur, l.lastErr = nil, s.cause()
	l.gen++
	close(l.genEnd)
	l.genEnd = make(chan struct{})
}

func (l *link) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped, l.lastErr = true, errStopped
	close(l.changed)
	l.changed = make(chan struct{})
}

// noteFailure remembers why the link is down, and logs a reason once, not at
// every attempt.
func (l *link) noteFailure(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lastErr == nil || l.lastErr.Error() != err.Error() {
		l.log.Warn(l.name+" connection to the broker is not to be had", "err", err)
	}
	l.lastErr = err
}

// current returns the session, waiting for one until ctx ends.
func (l *link) current(ctx context.Context) (*session, error) {
	for {
		l.mu.Lock()
		s, changed, err, stopped := l.cur, l.changed, l.lastErr, l.stopped
		l.mu.Unlock()
		if s != nil && !s.isGone() {
			return s, nil
		}
		if stopped {
			return nil, fmt.Errorf("%w: %w", ErrUnreachable, errStopped)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("connecting")
			}
			return nil, fmt.Errorf("%w (%s connection: %w): %w", ErrUnreachable, l.name, err, context.Cause(ctx))
		}
	}
}

// standing returns the session, nil while there is none.
func (l *link) standing() *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cur
}

// at returns the session of a generation while it lasts, else nil.
func (l *link) at(gen uint64) *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cur == nil || l.cur.gen != gen || l.cur.isGone() {
		return nil
	}
	return l.cur
}

func (l *link) generation() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gen
}

func (l *link) generationEnd() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.genEnd
}

// trouble says why the link cannot serve now; "" when it can.
func (l *link) trouble() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.cur != nil && !l.cur.isGone():
		if reason := l.cur.blockedBy(); reason != "" {
			return "the broker accepts no messages: " + reason
		}
		return ""
	case l.lastErr != nil:
		return l.lastErr.Error()
	}
	return "connecting"
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
