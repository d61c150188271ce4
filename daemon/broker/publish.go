package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Publish puts a job's message into its queue and returns once the broker holds
// it on a majority of nodes. Errors to test for: ErrUnroutable (declare the
// shape and publish again), ErrUnknown (publish again; a duplicate is
// harmless), ErrBlocked and ErrUnreachable (nothing was sent).
func (c *Client) Publish(ctx context.Context, m Message) error {
	queue := m.target()
	if err := c.send(ctx, "", queue, m.properties()); err != nil {
		c.noteMissing(queue, err)
		return fmt.Errorf("publish to %s: %w", queue, err)
	}
	return nil
}

// PublishRetry is Publish by way of the retry queue of step, which must be one
// of RetryLadder (see RetryStep): the message reaches its queue after that time.
func (c *Client) PublishRetry(ctx context.Context, step time.Duration, m Message) error {
	if !slices.Contains(RetryLadder, step) {
		return fmt.Errorf("publish to %s: %s is no step of the retry ladder", m.target(), step)
	}
	name := RetryQueue(step)
	if err := c.send(ctx, name, m.target(), m.properties()); err != nil {
		return fmt.Errorf("publish to %s for %s: %w", name, m.target(), err)
	}
	return nil
}

// PublishDead sets a bad message aside in gpuq.dead, with its reason. Ack the
// original only when this returned nil.
func (c *Client) PublishDead(ctx context.Context, d DeadLetter) error {
	// All properties travel in one frame, whose size is limited: the reason is cut
	// and the sender's own headers stay behind.
	p := Message{Body: d.Body, MessageID: d.MessageID}.properties()
	p.Headers[HeaderReason], p.Headers[HeaderSource], p.Headers[HeaderUser] = clip(d.Reason), d.Source, d.UserID
	if err := c.send(ctx, ExchangeDead, d.Source, p); err != nil {
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

// properties returns the message in the library's form.
func (m Message) properties() amqp.Publishing {
	p := amqp.Publishing{
		Headers:      ownHeaders(m.Headers),
		ContentType:  "application/json",
		DeliveryMode: amqp.Persistent,
		MessageId:    m.MessageID,
		Timestamp:    time.Now(),
		Body:         m.Body,
	}
	delete(p.Headers, HeaderAskLedger)
	if m.AskLedger {
		p.Headers[HeaderAskLedger] = true
	}
	return p
}

// send publishes one mandatory message and waits for its confirm, at most
// ConfirmTimeout.
func (c *Client) send(ctx context.Context, exchange, key string, p amqp.Publishing) (err error) {
	began := time.Now()
	defer func() { c.observe("publish", resultOf(err), began) }()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConfirmTimeout)
	defer cancel()
	s, err := c.publish.current(ctx)
	if err != nil {
		return err
	}
	if err := s.accepting(ctx); err != nil {
		return err
	}
	p.UserId = s.user
	return s.confirms.publish(ctx, exchange, key, p)
}
