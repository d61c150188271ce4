package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

// publishWindow bounds the messages awaiting their confirm on one channel; more
// would only wait in the broker's memory.
const publishWindow = 1024

// confirmer lets many publish on one channel and gives each the fate of its own
// message.
//
// The broker answers an unroutable message with a return and then a confirm, so
// both have to be seen in order. The library hands them out on two channels, in
// the order of their arrival and blocking; both are unbuffered and read by one
// goroutine, which keeps that order.
type confirmer struct {
	s       *session
	ch      *amqp.Channel
	window  chan struct{} // a place per message awaiting its confirm
	writing chan struct{} // held while a number is drawn and its message written; capacity 1

	mu      sync.Mutex
	pending map[uint64]*outcome // by the channel's publish sequence number
	over    bool                // no confirm will come any more
}

// outcome is the fate of one message.
type outcome struct {
	returned *amqp.Return // guarded by confirmer.mu
	done     chan error   // capacity 1; receives once
}

func newConfirmer(s *session, ch *amqp.Channel) (*confirmer, error) {
	c := &confirmer{
		s: s, ch: ch,
		window:  make(chan struct{}, publishWindow),
		writing: make(chan struct{}, 1),
		pending: map[uint64]*outcome{},
	}
	if err := ch.Confirm(false); err != nil {
		return nil, fmt.Errorf("ask for confirms: %w", kindOf(err))
	}
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation))
	returns := ch.NotifyReturn(make(chan amqp.Return))
	if err := s.spawn(func() { c.dispatch(confirms, returns) }); err != nil {
		return nil, fmt.Errorf("ask for confirms: %w", err)
	}
	return c, nil
}

// dispatch ends when the library closes both channels, with the session.
func (c *confirmer) dispatch(confirms <-chan amqp.Confirmation, returns <-chan amqp.Return) {
	for confirms != nil || returns != nil {
		select {
		case r, ok := <-returns:
			if !ok {
				returns = nil
				continue
			}
			c.markReturned(r)
		case confirm, ok := <-confirms:
			if !ok {
				confirms = nil
				continue
			}
			c.settle(confirm)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	for seq, o := range c.pending {
		o.done <- fmt.Errorf("%w: %w", ErrUnknown, c.s.cause())
		delete(c.pending, seq)
	}
}

func (c *confirmer) markReturned(r amqp.Return) {
	seq, err := strconv.ParseUint(r.CorrelationId, 10, 64)
	if err != nil {
		return // not ours: every message of this channel carries its number
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.pending[seq]; o != nil {
		o.returned = &r
	}
}

func (c *confirmer) settle(confirm amqp.Confirmation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.pending[confirm.DeliveryTag]
	if o == nil {
		return // given up meanwhile
	}
	delete(c.pending, confirm.DeliveryTag)
	switch {
	case o.returned != nil:
		o.done <- fmt.Errorf("%w (%d %s)", ErrUnroutable, o.returned.ReplyCode, o.returned.ReplyText)
	case !confirm.Ack:
		// No queue of ours has a length at which it refuses. A broker channel that
		// first published while the queue had no leader refuses everything from
		// then on, leader or not (3.10.8): only a new one mends that.
		o.done <- fmt.Errorf("%w: the broker did not accept it", ErrUnknown)
		c.s.drop(errors.New("the broker refused a message"))
	default:
		o.done <- nil
	}
}

// publish writes one mandatory message and waits for its fate.
func (c *confirmer) publish(ctx context.Context, exchange, key string, p amqp.Publishing) error {
	if err := take(ctx, c.s, c.window); err != nil {
		return err
	}
	defer func() { <-c.window }()
	seq, o, err := c.write(ctx, exchange, key, p)
	if err != nil {
		return err
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		c.forget(seq)
		return fmt.Errorf("%w: %w", ErrUnknown, context.Cause(ctx))
	}
}

// write draws the next number, registers it and writes the message.
func (c *confirmer) write(ctx context.Context, exchange, key string, p amqp.Publishing) (uint64, *outcome, error) {
	if err := take(ctx, c.s, c.writing); err != nil {
		return 0, nil, err
	}
	defer func() { <-c.writing }()
	seq := c.ch.GetNextPublishSeqNo()
	p.CorrelationId = strconv.FormatUint(seq, 10)
	o := &outcome{done: make(chan error, 1)}
	// Registered before it is written: the confirm can be faster than we are.
	if !c.register(seq, o) {
		return 0, nil, fmt.Errorf("%w: %w", ErrUnreachable, c.s.cause())
	}
	_, err := c.ch.PublishWithDeferredConfirm(exchange, key, true, false, p)
	switch {
	case err == nil:
		return seq, o, nil
	case errors.Is(err, amqp.ErrClosed):
		c.forget(seq)
		return 0, nil, fmt.Errorf("%w: %w", ErrUnreachable, c.s.cause())
	}
	// Part of it may have been written. The library takes its number back, so
	// the numbering is no longer sure.
	c.forget(seq)
	c.s.drop(err)
	return 0, nil, fmt.Errorf("%w: %w", ErrUnknown, err)
}

func (c *confirmer) register(seq uint64, o *outcome) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return false
	}
	c.pending[seq] = o
	return true
}

func (c *confirmer) forget(seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, seq)
}

// take takes a place in a channel used as a semaphore.
func take(ctx context.Context, s *session, places chan struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	case <-s.gone:
		return fmt.Errorf("%w: %w", ErrUnreachable, s.cause())
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnreachable, context.Cause(ctx))
	}
}
