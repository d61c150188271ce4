package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// session is one connection from its dial to its loss, with the channels that
// its link's setup opened. Nothing of it outlives it.
type session struct {
	conn *amqp.Connection
	raw  net.Conn
	user string
	gen  uint64        // set once, before the session is handed out
	gone chan struct{} // closed when the connection is lost or dropped

	// Set by setup, by duty.
	confirms *confirmer     // publish
	requests *exchanger     // publish
	loose    *amqp.Channel  // publish: bells, reply: replies; both without confirms
	gets     *amqp.Channel  // take
	held     *tagSet        // take: deliveries not yet acked or given back
	shapes   *nameSet       // look: job queues known to be declared
	calls    chan *callSlot // look: the channel for declares and depths

	wg sync.WaitGroup // the session's goroutines

	mu        sync.Mutex
	lost      error         // why it is gone
	blocked   string        // the broker's reason; "" when it accepts messages
	unblocked chan struct{} // closed when blocked ends; nil unless blocked
}

// callSlot holds the channel for declares and depths; nil where it has to be
// opened (again), since an error of the broker closes it.
type callSlot struct {
	ch        *amqp.Channel
	abandoned atomic.Int32 // calls given up and not answered yet
}

func newSession(conn *amqp.Connection, raw net.Conn, user string) *session {
	s := &session{
		conn: conn, raw: raw, user: user,
		gone:   make(chan struct{}),
		held:   &tagSet{tags: map[uint64]bool{}},
		shapes: &nameSet{names: map[string]bool{}},
		calls:  make(chan *callSlot, 1),
	}
	s.calls <- &callSlot{}
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	blockings := conn.NotifyBlocked(make(chan amqp.Blocking, 1))
	s.wg.Go(func() { s.watch(closed, blockings) })
	return s
}

// watch follows the connection until the library has closed both channels.
func (s *session) watch(closed <-chan *amqp.Error, blockings <-chan amqp.Blocking) {
	for closed != nil || blockings != nil {
		select {
		case err, ok := <-closed:
			if !ok {
				closed = nil
				s.lose(errEnded)
			} else {
				s.lose(err)
			}
		case b, ok := <-blockings:
			if !ok {
				blockings = nil
			} else {
				s.setBlocked(b)
			}
		}
	}
}

func (s *session) setBlocked(b amqp.Blocking) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case b.Active && s.unblocked == nil:
		s.blocked, s.unblocked = b.Reason, make(chan struct{})
		if s.blocked == "" {
			s.blocked = "it gives no reason"
		}
	case !b.Active && s.unblocked != nil:
		close(s.unblocked)
		s.blocked, s.unblocked = "", nil
	}
}

func (s *session) blockedBy() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blocked
}

// accepting waits until the broker accepts messages on this connection.
func (s *session) accepting(ctx context.Context) error {
	s.mu.Lock()
	reason, unblocked := s.blocked, s.unblocked
	s.mu.Unlock()
	if unblocked == nil {
		return nil
	}
	select {
	case <-unblocked:
		return nil
	case <-s.gone:
		return fmt.Errorf("%w: %w", ErrUnreachable, s.cause())
	case <-ctx.Done():
		return fmt.Errorf("%w (%s): %w", ErrBlocked, reason, context.Cause(ctx))
	}
}

// lose records why the connection is gone; the first reason stands.
func (s *session) lose(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		s.lost = cause
		close(s.gone)
	}
}

// drop ends the connection at once, without a word to the broker, which may not
// be listening. The broker gives what it delivered on it to others.
func (s *session) drop(cause error) {
	s.lose(cause)
	_ = s.raw.Close() // what else could be done with the error?
}

func (s *session) isGone() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

// errEnded is the cause as long as none is known: a channel can end before the
// loss of its connection is noticed.
var errEnded = errors.New("the connection was closed")

// cause returns why the session is gone, never nil.
func (s *session) cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		return errEnded
	}
	return s.lost
}

// spawn starts a goroutine of the session, unless the session is gone: close
// may be waiting for its goroutines then, and no more may come.
func (s *session) spawn(f func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, s.lost)
	}
	s.wg.Go(f)
	return nil
}

// closeGrace bounds an orderly close.
const closeGrace = time.Second

// close ends the session and waits for its goroutines. An orderly close lets
// the broker take in what was written before it.
func (s *session) close(abrupt bool) {
	if !abrupt && !s.isGone() {
		_ = s.conn.CloseDeadline(time.Now().Add(closeGrace)) // it is dropped below all the same
	}
	s.drop(errStopped)
	s.wg.Wait()
}

// openChannel opens a channel whose loss drops the session: none of the
// long-lived channels is closed in normal operation.
func (s *session) openChannel(what string) (*amqp.Channel, error) {
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open the channel for %s: %w", what, kindOf(err))
	}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	err = s.spawn(func() {
		if err, ok := <-closed; ok {
			s.drop(fmt.Errorf("the broker closed the channel for %s: %w", what, err))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("open the channel for %s: %w", what, err)
	}
	return ch, nil
}

// abandonedMax bounds the calls that the broker owes an answer.
const abandonedMax = 8

// do runs one call at a time on a channel of its own, which an error of the
// broker closes without harm. A call that is not answered before ctx ends is
// abandoned with its channel; when too many are, the connection is dropped.
func (s *session) do(ctx context.Context, call func(*amqp.Channel) error) error {
	var slot *callSlot
	select {
	case slot = <-s.calls:
	case <-s.gone:
		return fmt.Errorf("%w: %w", ErrUnreachable, s.cause())
	case <-ctx.Done():
		return fmt.Errorf("%w: earlier calls are not answered: %w", ErrUnreachable, context.Cause(ctx))
	}
	defer func() { s.calls <- slot }()
	ch := slot.ch
	done := make(chan error, 1)
	err := s.spawn(func() {
		var err error
		if ch == nil || ch.IsClosed() {
			ch, err = s.conn.Channel()
		}
		if err == nil {
			err = call(ch)
		}
		done <- err
	})
	if err != nil {
		return err
	}
	select {
	case err := <-done:
		slot.ch = ch
		return err
	case <-ctx.Done():
		slot.ch = nil
		if slot.abandoned.Add(1) > abandonedMax {
			s.drop(fmt.Errorf("%d calls were not answered", abandonedMax))
		}
		_ = s.spawn(func() { // on a lost session there is nothing left to tidy up
			if err := <-done; err == nil {
				_ = ch.Close() // nobody uses it; the connection may be gone
			}
			slot.abandoned.Add(-1)
		})
		return fmt.Errorf("%w: the broker does not answer: %w", ErrUnreachable, context.Cause(ctx))
	}
}

// tagSet is the set of delivery tags held on a session.
type tagSet struct {
	mu   sync.Mutex
	tags map[uint64]bool
}

func (t *tagSet) add(tag uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tags[tag] = true
}

// remove reports whether the tag was held.
func (t *tagSet) remove(tag uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	held := t.tags[tag]
	delete(t.tags, tag)
	return held
}

// nameSet is a set of queue names.
type nameSet struct {
	mu    sync.Mutex
	names map[string]bool
}

func (n *nameSet) add(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[name] = true
}

func (n *nameSet) remove(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.names, name)
}

func (n *nameSet) has(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.names[name]
}
