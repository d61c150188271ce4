package broker

import (
	"context"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// getResult is the answer to a basic.get.
type getResult struct {
	delivery amqp.Delivery
	ok       bool
	err      error
}

// Take gets one message of a queue, to be settled by Ack or Nack. It returns
// nil without error on get-empty, which is an answer of the queue's leader and
// so stronger than a Depth of 0. When no answer comes within TakeTimeout, or
// the leader dies meanwhile, the take connection is closed, since a get cannot
// be called off, and ErrTakeTimeout returned: every delivery held is stale then
// and will be delivered again.
//
// Once the get is sent, ctx no longer ends the call: its answer could be a
// delivery.
func (c *Client) Take(ctx context.Context, queue string) (*Delivery, error) {
	if strings.HasPrefix(queue, jobPrefix) {
		// A get from a queue that does not exist closes the channel, and every
		// delivery held on it would go back.
		if err := c.DeclareShape(ctx, queue); err != nil {
			return nil, fmt.Errorf("take from %s: %w", queue, err)
		}
	}
	wait, cancel := context.WithTimeout(ctx, c.cfg.TakeTimeout)
	defer cancel()
	select {
	case c.taking <- struct{}{}:
		defer func() { <-c.taking }()
	case <-wait.Done():
		return nil, fmt.Errorf("take from %s: another take is under way: %w", queue, context.Cause(wait))
	}
	s, err := c.take.current(wait)
	if err != nil {
		return nil, fmt.Errorf("take from %s: %w", queue, err)
	}
	began := time.Now()
	d, err := s.get(queue, c.cfg.TakeTimeout)
	result := resultOf(err)
	if err == nil && d == nil {
		result = "empty"
	}
	c.observe("get", result, began)
	if err != nil {
		c.noteMissing(queue, err)
		return nil, fmt.Errorf("take from %s: %w", queue, err)
	}
	return d, nil
}

// get asks for one message and waits for the answer at most timeout.
func (s *session) get(queue string, timeout time.Duration) (*Delivery, error) {
	answer := make(chan getResult, 1)
	err := s.spawn(func() {
		d, ok, err := s.gets.Get(queue, false)
		answer <- getResult{d, ok, err}
	})
	if err != nil {
		return nil, err // nothing was sent
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case r := <-answer: // also when the connection is lost: the library then ends the get
		return s.got(queue, r)
	case <-timer.C:
		err := fmt.Errorf("%w within %s", ErrTakeTimeout, timeout)
		s.drop(fmt.Errorf("get from %s: %w", queue, err))
		return nil, err
	}
}

func (s *session) got(queue string, r getResult) (*Delivery, error) {
	switch {
	case hasCode(r.err, amqp.NotFound), hasCode(r.err, amqp.AccessRefused):
		s.drop(r.err)
		return nil, kindOf(r.err)
	case r.err != nil:
		s.drop(r.err)
		return nil, fmt.Errorf("%w: %w", ErrTakeTimeout, r.err)
	case !r.ok:
		return nil, nil
	}
	d := newDelivery(queue, r.delivery)
	d.Tag = Tag{Generation: s.gen, Delivery: r.delivery.DeliveryTag}
	s.held.add(d.Tag.Delivery)
	return d, nil
}

// Ack removes a delivery's message from its queue for good. It is written, not
// confirmed: where the connection breaks right after it, the message is
// delivered again. ErrStaleTag when the delivery is no longer held; that needs
// no action, since claims answer redeliveries.
func (c *Client) Ack(ctx context.Context, tag Tag) error {
	return c.settle(ctx, tag, "ack", func(ch *amqp.Channel) error { return ch.Ack(tag.Delivery, false) })
}

// Nack gives a delivery up: back to its place in the queue, or, without
// requeue, to gpuq.dlx.
func (c *Client) Nack(ctx context.Context, tag Tag, requeue bool) error {
	return c.settle(ctx, tag, "nack", func(ch *amqp.Channel) error { return ch.Nack(tag.Delivery, false, requeue) })
}

// settle looks the session up by the tag's generation, so that the answer can
// reach no other connection than the one that made the delivery. An unknown
// number is not sent either: the broker would close the channel over it.
func (c *Client) settle(ctx context.Context, tag Tag, verb string, call func(*amqp.Channel) error) error {
	if err := ended(ctx); err != nil {
		return fmt.Errorf("%s delivery %d: %w", verb, tag.Delivery, err)
	}
	s := c.take.at(tag.Generation)
	if s == nil || !s.held.remove(tag.Delivery) {
		return fmt.Errorf("%s delivery %d of generation %d: %w", verb, tag.Delivery, tag.Generation, ErrStaleTag)
	}
	if err := call(s.gets); err != nil {
		s.drop(err)
		return fmt.Errorf("%s delivery %d of generation %d: %w (%w)", verb, tag.Delivery, tag.Generation, ErrStaleTag, err)
	}
	return nil
}
