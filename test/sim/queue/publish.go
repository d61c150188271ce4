package queue

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/job"
	"gpuqd/test/history"
	"gpuqd/test/sim/world"
)

// Publish implements agent.Broker.
func (c *Client) Publish(ctx context.Context, m broker.Message) error {
	out := c.newMessage(m)
	err := c.send(ctx, "broker publish", out, func() *fifo { return c.s.queues[out.key] })
	if err != nil {
		return fmt.Errorf("publish to %s: %w", out.key, err)
	}
	return nil
}

// PublishRetry implements agent.Broker.
func (c *Client) PublishRetry(ctx context.Context, step time.Duration, m broker.Message) error {
	out := c.newMessage(m)
	if !slices.Contains(broker.RetryLadder, step) {
		return fmt.Errorf("publish to %s: %s is no step of the retry ladder", out.key, step)
	}
	out.exchange = broker.RetryQueue(step)
	err := c.send(ctx, "broker publish retry", out, func() *fifo { return c.s.queues[out.exchange] })
	if err != nil {
		return fmt.Errorf("publish to %s for %s: %w", out.exchange, out.key, err)
	}
	return nil
}

// PublishDead implements agent.Broker.
func (c *Client) PublishDead(ctx context.Context, d broker.DeadLetter) error {
	out := c.newMessage(broker.Message{Queue: d.Source, MessageID: d.MessageID, Body: d.Body})
	out.exchange, out.deadReason, out.deadSource, out.user = broker.ExchangeDead, clip(d.Reason), d.Source, d.UserID
	err := c.send(ctx, "broker publish dead", out, func() *fifo {
		c.s.w.Record(history.Event{Kind: history.SetAside, Job: job.ID(d.MessageID), Host: c.host, Reason: d.Reason})
		return c.s.queues[broker.QueueDead]
	})
	if err != nil {
		return fmt.Errorf("dead-letter a message of %s: %w", d.Source, err)
	}
	return nil
}

// reasonBytesMax bounds the reason of a dead letter.
const reasonBytesMax = 2000

func clip(reason string) string {
	if len(reason) > reasonBytesMax {
		reason = reason[:reasonBytesMax] + "..."
	}
	return strings.ToValidUTF8(reason, "?")
}

// fate is what became of a message at the server. It is the instant's.
type fate struct {
	err   error
	later chan error // set where the answer does not come at once; capacity 1
}

func (f *fate) wait() {
	if f.later == nil {
		f.later = make(chan error, 1)
	}
}

func (f *fate) answer(err error) {
	f.err = err
	if f.later != nil {
		f.later <- err
	}
}

// send publishes one mandatory message and waits for its confirm. route names
// its queue when it arrives; nil where there is none.
func (c *Client) send(ctx context.Context, step string, m *message, route func() *fifo) error {
	began := time.Now()
	k, err := c.accepting(ctx, &c.publish)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", broker.ErrUnreachable, context.Cause(ctx))
	}
	f := &fate{}
	both := k.both(ctx)
	defer both.release()
	err = k.call(both, world.Call{
		Step: step, Key: m.id, Timeout: max(c.s.ConfirmTimeout-time.Since(began), time.Millisecond),
		Effect: func() { c.s.read(k, f, func() { c.s.publish(k, route(), m, f) }) },
	}, true)
	var got fate
	c.s.w.Do(func() { got = *f })
	switch {
	case err == world.ErrDead:
		return err
	case err == world.ErrRefused:
		return fmt.Errorf("%w: %w", broker.ErrUnreachable, err)
	case err != nil:
		return fmt.Errorf("%w: %w", broker.ErrUnknown, err)
	case got.later != nil:
		return c.awaitConfirm(both, got.later, c.s.ConfirmTimeout-time.Since(began))
	case got.err != nil:
		c.s.w.Do(func() { c.noteMissing(m.key) })
	}
	return got.err
}

// publish takes a message in. Within the instant.
func (s *Server) publish(k *conn, q *fifo, m *message, f *fate) {
	if q != nil && (q.kind == work || q.kind == retry) {
		s.w.Record(history.Event{Kind: history.Published, Job: job.ID(m.id), Host: k.c.host})
	}
	switch {
	case q == nil && s.w.Chance(s.faults.loseReturns, k.c.host, m.id, "return"):
		f.wait()
		k.close()
	case q == nil:
		f.answer(fmt.Errorf("%w (312 NO_ROUTE)", broker.ErrUnroutable))
	case s.headless(q):
		f.wait()
		s.admit(m, q, waiting)
		q.pending = append(q.pending, &pending{m: m, from: k, fate: f})
	default:
		s.put(q, m)
		s.confirm(k, m, f)
	}
}

func (s *Server) confirm(k *conn, m *message, f *fate) {
	if s.w.Chance(s.faults.holdConfirms, k.c.host, m.id, "confirm") {
		f.wait()
		return
	}
	f.answer(nil)
}

func (c *Client) awaitConfirm(ctx context.Context, confirm <-chan error, within time.Duration) error {
	timer := time.NewTimer(within)
	defer timer.Stop()
	cause := error(context.DeadlineExceeded)
	select {
	case err := <-confirm:
		time.Sleep(c.s.w.Between(wayMin, wayMax, c.host, "confirm"))
		if gone := c.p.Wait(); gone != nil {
			return gone
		}
		return err
	case <-timer.C:
	case <-ctx.Done():
		cause = ctx.Err()
	case <-c.ctx.Done():
	}
	if gone := c.p.Wait(); gone != nil {
		return gone
	}
	return fmt.Errorf("%w: %w", broker.ErrUnknown, cause)
}

// accepting returns the connection of a duty once the broker reads it, waiting
// as long as for a confirm.
func (c *Client) accepting(ctx context.Context, l *link) (*conn, error) {
	began := time.Now()
	k, err := c.current(ctx, l, c.s.ConfirmTimeout)
	if err != nil {
		return nil, err
	}
	var blocked bool
	var unblocked chan struct{}
	c.s.w.Do(func() { blocked, unblocked = k.blocked, k.unblocked })
	if !blocked {
		return k, nil
	}
	timer := time.NewTimer(c.s.ConfirmTimeout - time.Since(began))
	defer timer.Stop()
	cause := error(context.DeadlineExceeded)
	select {
	case <-unblocked:
		return k, nil
	case <-k.ctx.Done():
		if c.gone() {
			return nil, world.ErrDead
		}
		return nil, fmt.Errorf("%w: %w", broker.ErrUnreachable, context.Cause(k.ctx))
	case <-ctx.Done():
		cause = context.Cause(ctx)
	case <-timer.C:
	}
	return nil, fmt.Errorf("%w (%s): %w", broker.ErrBlocked, alarmReason, cause)
}
