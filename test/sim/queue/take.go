package queue

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/test/sim/world"
)

// get is one basic.get. It is the instant's.
type get struct {
	k      *conn
	state  getState
	m      *message
	number uint64
	later  chan struct{} // closed at the answer, where that comes later
}

type getState int

const (
	unanswered getState = iota
	gotNothing
	gotMessage
	gotNoQueue
	gotClosed
)

// Take implements agent.Broker.
func (c *Client) Take(ctx context.Context, queue string) (*broker.Delivery, error) {
	d, err := c.takeOne(ctx, queue)
	if err != nil {
		return nil, fmt.Errorf("take from %s: %w", queue, err)
	}
	return d, nil
}

func (c *Client) takeOne(ctx context.Context, queue string) (*broker.Delivery, error) {
	if strings.HasPrefix(queue, jobPrefix) {
		if err := c.DeclareShape(ctx, queue); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	if err := c.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer func() { <-c.taking }()
	k, err := c.current(ctx, &c.take, c.s.TakeTimeout-time.Since(began))
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", broker.ErrUnreachable, context.Cause(ctx))
	}
	return k.get(queue)
}

// takeTurn waits until no other get is under way.
func (c *Client) takeTurn(ctx context.Context) error {
	select {
	case c.taking <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(c.s.TakeTimeout)
	defer timer.Stop()
	cause := error(context.DeadlineExceeded)
	select {
	case c.taking <- struct{}{}:
		return nil
	case <-timer.C:
	case <-ctx.Done():
		cause = context.Cause(ctx)
	case <-c.ctx.Done():
		if c.gone() {
			return world.ErrDead
		}
	}
	return fmt.Errorf("another take is under way: %w", cause)
}

// get asks for one message. Its answer could be a delivery, so nothing but its
// time or the connection's end ends it.
func (k *conn) get(queue string) (*broker.Delivery, error) {
	s, began := k.c.s, time.Now()
	g := &get{k: k}
	err := k.call(k.ctx, world.Call{
		Step: "broker take", Key: queue, Timeout: s.TakeTimeout, Effect: func() { s.get(g, queue) },
	}, false)
	if err == nil {
		err = k.awaitGet(g, s.TakeTimeout-time.Since(began))
	}
	switch {
	case err == world.ErrDead:
		return nil, err
	case err == world.ErrRefused:
		return nil, fmt.Errorf("%w: %w", broker.ErrUnreachable, err)
	}
	var d *broker.Delivery
	s.w.Do(func() { d, err = k.got(g, err) })
	return d, err
}

// awaitGet waits for an answer that comes later.
func (k *conn) awaitGet(g *get, within time.Duration) error {
	var later chan struct{}
	k.c.s.w.Do(func() { later = g.later })
	if later == nil {
		return nil
	}
	timer := time.NewTimer(within)
	defer timer.Stop()
	err := world.ErrNoAnswer
	select {
	case <-later:
		time.Sleep(k.c.s.w.Between(wayMin, wayMax, k.c.host, "got"))
		err = nil
	case <-timer.C:
	case <-k.ctx.Done():
	}
	if gone := k.c.p.Wait(); gone != nil {
		return gone
	}
	return err
}

// got is what the client makes of an answer, or of none. Within the instant.
func (k *conn) got(g *get, err error) (*broker.Delivery, error) {
	switch {
	case err == world.ErrNoAnswer:
		k.lose(broker.ErrTakeTimeout)
		return nil, fmt.Errorf("%w within %s: %w", broker.ErrTakeTimeout, k.c.s.TakeTimeout, err)
	case g.state == gotNoQueue: // what closes the connection says why
		k.lose(broker.ErrNoQueue)
		return nil, broker.ErrNoQueue
	case g.state == gotClosed:
		k.lose(errServerClosed)
		return nil, fmt.Errorf("%w: 541 INTERNAL_ERROR", broker.ErrTakeTimeout)
	case k.lost:
		return nil, fmt.Errorf("%w: %w", broker.ErrTakeTimeout, context.Cause(k.ctx))
	case g.state == gotNothing:
		return nil, nil
	}
	k.holds = append(k.holds, g.number)
	d := g.m.delivery()
	d.Tag = broker.Tag{Generation: k.gen, Delivery: g.number}
	return d, nil
}

// get answers a get, at once or when the queue has a leader. Within the instant.
func (s *Server) get(g *get, queue string) {
	q := s.queues[queue]
	switch {
	case q == nil:
		g.k.c.noteMissing(queue)
		g.state = gotNoQueue
		g.k.close()
	case s.faults.closeGets[g.k.c.host] > 0:
		s.faults.closeGets[g.k.c.host]--
		g.state = gotClosed
		g.k.close()
	case s.headless(q):
		g.later = make(chan struct{})
		q.gets = append(q.gets, g)
	default:
		g.answer(q)
	}
}

// answer hands the next message over. Within the instant.
func (g *get) answer(q *fifo) {
	g.state = gotNothing
	if g.m = q.pop(); g.m != nil {
		g.state = gotMessage
		g.number = g.k.c.s.hand(g.k, g.m, nil)
	}
	if g.later != nil {
		close(g.later)
	}
}

// Ack implements agent.Broker.
func (c *Client) Ack(ctx context.Context, tag broker.Tag) error {
	return c.settle(ctx, tag, "ack", broker.Done)
}

// Nack implements agent.Broker.
func (c *Client) Nack(ctx context.Context, tag broker.Tag, requeue bool) error {
	if requeue {
		return c.settle(ctx, tag, "nack", broker.Requeue(0))
	}
	return c.settle(ctx, tag, "nack", broker.Reject)
}

// settle writes an ack or nack on the connection that made the delivery, if it
// stands and the client holds the delivery.
func (c *Client) settle(ctx context.Context, tag broker.Tag, verb string, v broker.Verdict) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s delivery %d: %w", verb, tag.Delivery, context.Cause(ctx))
	}
	var k *conn
	c.s.w.Do(func() {
		cur := c.take.cur
		if cur == nil || cur.gen != tag.Generation {
			return
		}
		if i := slices.Index(cur.holds, tag.Delivery); i >= 0 {
			cur.holds = slices.Delete(cur.holds, i, i+1)
			k = cur
		}
	})
	if k == nil {
		return fmt.Errorf("%s delivery %d of generation %d: %w", verb, tag.Delivery, tag.Generation, broker.ErrStaleTag)
	}
	err := k.call(context.Background(), world.Call{
		Step: "broker " + verb, Key: c.host + "/" + fmt.Sprint(tag.Delivery), OneWay: true,
		Effect: func() { c.s.settle(k, tag.Delivery, v) },
	}, false)
	if err == nil || err == world.ErrDead {
		return err
	}
	return fmt.Errorf("%s delivery %d of generation %d: %w (%w)", verb, tag.Delivery, tag.Generation, broker.ErrStaleTag, err)
}
