package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/test/sim/world"
)

// link is one duty of a client, over all the connections that it has for it.
type link struct {
	duty string

	// The instant's.
	cur     *conn
	gen     uint64        // of cur, or of the next connection
	changed chan struct{} // closed when cur changes; made for who waits
	why     error         // it is down
	wait    time.Duration // before the next attempt to connect
	up      time.Time
}

// conn is one connection.
type conn struct {
	c   *Client
	l   *link
	gen uint64
	// opened is when: it tells the chances of two connections of one host apart.
	opened string
	ctx    context.Context // ends with the client's end
	cut    context.CancelCauseFunc

	// The instant's.
	lost   bool         // the client's end is closed
	closed bool         // the server's end is closed
	torn   bool         // it carries nothing any more
	deaf   [2]time.Time // since when each end has heard nothing of the other

	next      uint64 // number of the last delivery
	unacked   []held
	consumers []*consumer

	holds     []uint64        // deliveries that the client has not settled
	shapes    map[string]bool // queues known to be declared
	full      bool            // the server reads no more of it
	blocked   bool            // the client knows that
	unblocked chan struct{}   // closed when it is read again
}

var (
	errServerClosed = errors.New("simulated: the broker closed the connection")
	errSilent       = errors.New("simulated: no heartbeat came")
	errConnecting   = errors.New("connecting")
)

// lose closes the client's end. Within the instant.
func (k *conn) lose(cause error) {
	if k.lost {
		return
	}
	k.lost = true
	k.cut(cause)
	c, l, s := k.c, k.l, k.c.s
	l.cur, l.why = nil, cause
	l.gen++
	if !k.closed {
		s.soon(func() {
			if k.carries() {
				k.close()
			}
		}, c.host, l.duty, k.opened, "hang up")
	}
	if c.ended {
		return
	}
	if time.Since(l.up) > s.BackoffMax {
		l.wait = backoffMin
	}
	wait := l.wait
	l.wait = min(2*l.wait, s.BackoffMax)
	s.spawn(func() { c.connect(l, wait) })
}

// close closes the server's end: what it holds goes back. Within the instant.
func (k *conn) close() {
	if k.closed {
		return
	}
	k.closed = true
	s := k.c.s
	for _, c := range k.consumers {
		c.leave()
	}
	s.giveAllBack(k)
	k.c.conns = slices.DeleteFunc(k.c.conns, func(other *conn) bool { return other == k })
	k.hangUp()
}

// hangUp lets the client hear of a connection that the server has closed, where
// it can hear. Within the instant.
func (k *conn) hangUp() {
	if k.lost {
		return
	}
	k.c.s.soon(func() {
		if k.carries() && !k.c.p.Frozen() {
			k.lose(errServerClosed)
		}
	}, k.c.host, k.l.duty, k.opened, "hung up")
}

// carries reports whether something sent now would get to the other end. Within
// the instant.
func (k *conn) carries() bool {
	return !k.torn && k.c.s.w.LinkOf(k.c.host, Part) == world.Up
}

// hears is asked when something arrives at the server. Within the instant.
func (k *conn) hears() bool {
	if k.closed && !k.torn {
		k.hangUp()
	}
	return !k.closed && !k.torn
}

// call makes one call over the connection. What gets lost on the way tears it.
// Where late is set, what arrives after its caller gave up counts although the
// connection is closed by then.
func (k *conn) call(ctx context.Context, c world.Call, late bool) error {
	s := k.c.s
	seen, taken, over, lost := false, false, false, false
	c.Part = Part
	c.Lost = func() { lost = true }
	c.Arrived = func() bool {
		seen = true
		taken = late && over || k.hears()
		return taken
	}
	err := k.c.p.Do(ctx, c)
	s.w.Do(func() {
		over = true
		answered := err == nil && (taken || !c.OneWay)
		left := err != nil && err != world.ErrNoAnswer
		switch {
		case err == world.ErrRefused:
			k.close()
			k.lose(err)
		case answered, left, seen && !taken:
		case lost || s.w.LinkOf(k.c.host, Part) != world.Frozen:
			// TCP loses nothing in the middle: what is missing breaks it.
			k.torn = true
		}
	})
	return err
}

// connect makes a connection for a duty, however often it takes.
func (c *Client) connect(l *link, wait time.Duration) {
	for c.pause(c.s.w.Between(wait/2, wait, c.host, l.duty, "backoff")) {
		err := c.dial(l)
		if err == nil || c.ctx.Err() != nil {
			return
		}
		wait = min(max(2*wait, backoffMin), c.s.BackoffMax)
		c.s.w.Do(func() { l.why = err })
	}
}

// backoffMin is the first wait after a lost connection; it doubles from there.
const backoffMin = 50 * time.Millisecond

// dial tries to connect once.
func (c *Client) dial(l *link) error {
	down := false
	c.s.w.Do(func() { down = c.s.isDown() })
	if down {
		return world.ErrRefused
	}
	err := c.p.Do(c.ctx, world.Call{
		Part: Part, Step: "broker connect", Key: l.duty, Timeout: c.s.DialTimeout,
		Arrived: func() bool { return !c.s.isDown() }, Effect: func() {},
	})
	if err == nil {
		c.s.w.Do(func() { c.install(l) })
	}
	return err
}

// install begins a connection. Within the instant.
func (c *Client) install(l *link) {
	if c.ended {
		return
	}
	k := &conn{c: c, l: l, gen: l.gen, opened: c.s.w.Now().String()}
	k.ctx, k.cut = context.WithCancelCause(context.Background())
	l.cur, l.why, l.up = k, nil, time.Now()
	c.conns = append(c.conns, k)
	c.wake(l)
	switch {
	case l == &c.publish:
		c.flushRings()
	case l == &c.look && !c.begun:
		c.begun = true
		for _, other := range []*link{&c.publish, &c.take, &c.reply} {
			c.s.spawn(func() { c.connect(other, 0) })
		}
	}
}

func (c *Client) wake(l *link) {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// current returns the connection of a duty, waiting for one for a while; without
// end where within is 0.
func (c *Client) current(ctx context.Context, l *link, within time.Duration) (*conn, error) {
	var timeout <-chan time.Time
	for {
		var k *conn
		var changed chan struct{}
		why := errConnecting
		c.s.w.Do(func() {
			if k = l.cur; k != nil {
				return
			}
			if l.changed == nil {
				l.changed = make(chan struct{})
			}
			changed = l.changed
			if l.why != nil {
				why = l.why
			}
		})
		if k != nil {
			return k, nil
		}
		if timeout == nil && within > 0 {
			timer := time.NewTimer(within)
			defer timer.Stop()
			timeout = timer.C
		}
		cause := context.DeadlineExceeded
		select {
		case <-changed:
			continue
		case <-timeout:
		case <-ctx.Done():
			cause = context.Cause(ctx)
		case <-c.ctx.Done():
			if c.gone() {
				return nil, world.ErrDead
			}
			cause = errStopped
		}
		return nil, fmt.Errorf("%w (%s connection: %w): %w", broker.ErrUnreachable, l.duty, why, cause)
	}
}

var errStopped = errors.New("simulated: the client is closed")

// either is a context that ends with the caller's or with a connection. Nothing
// is set up for it before somebody waits.
type either struct {
	context.Context
	k    *conn
	stop func()
}

// Err implements context.Context.
func (e *either) Err() error {
	if err := e.Context.Err(); err != nil {
		return err
	}
	return e.k.ctx.Err()
}

// Done implements context.Context.
func (e *either) Done() <-chan struct{} {
	ctx, cancel := context.WithCancel(e.Context)
	unhook := context.AfterFunc(e.k.ctx, cancel)
	e.stop = func() { unhook(); cancel() }
	return ctx.Done()
}

func (e *either) release() {
	if e.stop != nil {
		e.stop()
	}
}

// both returns a context that ends with ctx or with the connection's client end.
// Release it.
func (k *conn) both(ctx context.Context) *either { return &either{Context: ctx, k: k} }
