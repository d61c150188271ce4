package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"gpuqd/daemon/health"

	amqp "github.com/rabbitmq/amqp091-go"
)

// expected is a queue as this version declares it.
type expected struct {
	name  string
	args  amqp.Table
	fixed bool // declared with the topology, not by need
	tries int  // looks that another queue's leader cut short
}

func expectedQueues(shapes []string) []expected {
	var list []expected
	for _, p := range pairs() {
		list = append(list, expected{name: p.queue, args: p.args, fixed: true})
	}
	for _, plain := range shapes {
		for _, name := range []string{plain, plain + againSuffix} {
			list = append(list, expected{name: name, args: jobQueueArgs()})
		}
	}
	return list
}

// queueLookers is how many queues are looked at side by side, each on a channel
// of its own: a queue that does not answer holds its channel.
const queueLookers = 4

// queuePatience bounds one question about a queue.
const queuePatience = 4 * time.Second

// hungMax bounds the channels that are given up: each stays open until the
// connection ends.
const hungMax = 12

// triesMax bounds the looks at one queue: a get from a queue whose leader is
// gone ends the whole connection (541), and with it the looks at others.
const triesMax = 3

// inspectQueues compares every queue with what topology.go declares, and finds
// those without a leader.
func (c *Client) inspectQueues(ctx context.Context, shapes []string) []health.Check {
	l := &queueLook{todo: expectedQueues(shapes), dial: func() (*session, error) { return c.dialer.dial(ctx, "doctor") }}
	total := len(l.todo)
	var all sync.WaitGroup
	for range queueLookers {
		all.Go(func() { l.run(ctx) })
	}
	all.Wait()
	for _, s := range l.sessions {
		s.close(true)
	}
	return l.judge(total)
}

// queueLook is one look at all queues.
type queueLook struct {
	dial func() (*session, error)

	mu       sync.Mutex // guards what follows
	sessions []*session // the last one is in use
	todo     []expected
	good     int
	other    []string // with other properties, with the broker's word
	missing  []string // fixed ones
	later    []string // of shapes: declared by the next host that looks
	silent   []string // no answer
	failed   []string // with the error
	unlooked int      // left out, since too much else failed
}

// next returns a queue to look at, and the connection to do it on.
func (l *queueLook) next(ctx context.Context) (q expected, s *session, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.todo) == 0 {
		return q, nil, false
	}
	s, err := l.session()
	if err != nil || ctx.Err() != nil || len(l.silent) >= hungMax || len(l.failed) >= hungMax {
		l.unlooked += len(l.todo)
		l.todo = nil
		return q, nil, false
	}
	q, l.todo = l.todo[0], l.todo[1:]
	return q, s, true
}

// session returns the connection, a new one where the last was lost; l.mu is held.
func (l *queueLook) session() (*session, error) {
	if n := len(l.sessions); n > 0 && !l.sessions[n-1].isGone() {
		return l.sessions[n-1], nil
	}
	s, err := l.dial()
	if err == nil {
		l.sessions = append(l.sessions, s)
	}
	return s, err
}

// errHung: no answer came in time; the channel is of no more use.
var errHung = errors.New("no answer")

func (l *queueLook) run(ctx context.Context) {
	var ch *amqp.Channel
	var of *session // of ch
	for {
		q, s, ok := l.next(ctx)
		if !ok {
			return
		}
		if s != of {
			ch, of = nil, s
		}
		var err error
		ch, err = s.lookAt(ctx, ch, q)
		l.note(q, err, s)
	}
}

func (l *queueLook) note(q expected, err error, s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch kind := kindOf(err); {
	case err == nil:
		l.good++
	case errors.Is(kind, ErrNoQueue) && q.fixed:
		l.missing = append(l.missing, q.name)
	case errors.Is(kind, ErrNoQueue):
		l.later = append(l.later, q.name)
	case errors.Is(kind, ErrConflict):
		var e *amqp.Error
		_ = errors.As(err, &e) // kindOf has seen it
		l.other = append(l.other, q.name+": "+strings.TrimPrefix(e.Reason, "PRECONDITION_FAILED - "))
	case errors.Is(err, errHung), hasCode(err, amqp.InternalError) && strings.Contains(err.Error(), "'"+q.name+"'"):
		l.silent = append(l.silent, q.name)
	case q.tries+1 < triesMax && (hasCode(err, amqp.InternalError) || s.isGone() || errors.Is(err, amqp.ErrClosed)):
		s.drop(errEnded) // the library may be about to
		q.tries++
		l.todo = append(l.todo, q)
	default:
		l.failed = append(l.failed, fmt.Sprintf("%s: %v", q.name, err))
	}
}

// lookAt asks for the queue, then for it with the arguments it should have, then
// its leader. It returns the channel for the next queue; nil where it is closed
// or given up.
func (s *session) lookAt(ctx context.Context, ch *amqp.Channel, q expected) (*amqp.Channel, error) {
	type outcome struct {
		ch  *amqp.Channel
		err error
	}
	done := make(chan outcome, 1)
	err := s.spawn(func() {
		ch, err := s.lookAtNow(ch, q)
		done <- outcome{ch, err}
	})
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(queuePatience)
	defer timer.Stop()
	select {
	case o := <-done:
		return o.ch, o.err
	case <-timer.C:
		return nil, errHung
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *session) lookAtNow(ch *amqp.Channel, q expected) (*amqp.Channel, error) {
	var err error
	if ch == nil {
		if ch, err = s.conn.Channel(); err != nil {
			return nil, err
		}
	}
	found, err := ch.QueueDeclarePassive(q.name, true, false, false, false, nil)
	if err == nil {
		// It exists: declaring it with the same arguments only compares them.
		found, err = ch.QueueDeclare(q.name, true, false, false, false, q.args)
	}
	if err == nil && found.Messages == 0 {
		err = askLeader(ch, q.name)
	}
	if err != nil {
		_ = ch.Close() // the broker has closed it, for most errors
		return nil, err
	}
	return ch, nil
}

// askLeader gets from a queue that reads empty, which only its leader can
// answer; a depth above 0 is the leader's word already. What comes in between is
// given back to its place.
func askLeader(ch *amqp.Channel, queue string) error {
	d, ok, err := ch.Get(queue, false)
	if err != nil || !ok {
		return err
	}
	return ch.Nack(d.DeliveryTag, false, true)
}

// judge makes the checks of what was seen.
func (l *queueLook) judge(total int) []health.Check {
	l.mu.Lock()
	defer l.mu.Unlock()
	var checks []health.Check
	if len(l.other) > 0 {
		slices.Sort(l.other)
		checks = append(checks, health.Bad(checkQueues, health.Fail, "empty each of these queues (stop submitting, let the hosts work it off), then remove it with rabbitmqctl delete_queue NAME: "+
			"the next host that needs it declares it anew, and jobs are safe in the ledger meanwhile; a fixed queue needs the steps of docs/doctor.md",
			"%d of %d queues have other properties than this version declares: %s", len(l.other), total, health.Names(l.other)))
	}
	if len(l.missing) > 0 {
		slices.Sort(l.missing)
		checks = append(checks, health.Bad(checkQueues, health.Fail, "have the topology declared again: docs/doctor.md, broker: queues, has the two steps",
			"%d fixed queues are missing: %s", len(l.missing), health.Names(l.missing)))
	}
	if len(l.later) > 0 {
		slices.Sort(l.later)
		checks = append(checks, health.Bad(checkQueues, health.Warn, "wait for one take.tick: a host that serves the pool declares it; where no host does, its jobs wait for one",
			"%d queues of registered shapes are not declared: %s", len(l.later), health.Names(l.later)))
	}
	if len(l.failed) > 0 || l.unlooked > 0 {
		slices.Sort(l.failed)
		checks = append(checks, health.Bad(checkQueues, health.Unknown, "run gpuqctl doctor again; where it stays, look at the log of the RabbitMQ nodes",
			"%d of %d queues could not be looked at: %s", len(l.failed)+l.unlooked, total, health.Names(l.failed)))
	}
	if len(checks) == 0 && len(l.silent) == 0 {
		checks = append(checks, health.Good(checkQueues, "%d quorum queues are there, with the arguments that this version declares", total))
	}
	if len(l.silent) > 0 {
		slices.Sort(l.silent)
		return append(checks, health.Bad(checkLeaders, health.Warn, "wait a minute, since an election may be under way, and run gpuqctl doctor again; a queue that stays silent "+
			"with a majority of nodes up has lost its leader for good: rabbitmqctl delete_queue NAME, once its jobs are known to be safe in the ledger (docs/doctor.md, broker: queue leaders)",
			"%d of %d queues do not answer a get: %s", len(l.silent), total, health.Names(l.silent)))
	}
	return append(checks, health.Good(checkLeaders, "%d queues answer", l.good+len(l.other)))
}
