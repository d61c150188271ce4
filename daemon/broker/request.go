package broker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
)

// replyQueue is the broker's pseudo-queue for direct reply-to.
const replyQueue = "amq.rabbitmq.reply-to"

// directReply is the form of a direct reply-to as the broker writes it: two
// parts in base64. A requester may write what it likes, and a reply goes out
// with the host's rights: any other target would let a user publish into job
// queues by proxy.
var directReply = regexp.MustCompile(`^amq\.rabbitmq\.reply-to\.[A-Za-z0-9+/=]{8,200}\.[A-Za-z0-9+/=]{8,200}$`)

// Reply answers a request. A requester that is gone, or wants no answer, or
// wants it elsewhere than by direct reply-to, is no error; a lost connection is.
// A reply can be lost all the same: then the requester asks again.
func (c *Client) Reply(ctx context.Context, to *Delivery, body []byte) error {
	if !directReply.MatchString(to.ReplyTo) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConfirmTimeout)
	defer cancel()
	s, err := c.reply.current(ctx)
	if err == nil {
		err = s.accepting(ctx)
	}
	if err == nil {
		err = s.loose.Publish("", to.ReplyTo, false, false, amqp.Publishing{
			ContentType: "application/json", UserId: s.user,
			CorrelationId: to.CorrelationID, MessageId: to.MessageID, Body: body,
		})
	}
	if err != nil {
		return fmt.Errorf("reply to a request: %w", kindOf(err))
	}
	return nil
}

// Request publishes one message and waits for the answer until ctx ends.
// ErrNoHost when routingKey is the HostKey of a host that is not connected;
// ErrNoReply when no answer came.
func (c *Client) Request(ctx context.Context, exchange, routingKey string, body []byte, headers map[string]any) (answer []byte, err error) {
	began := time.Now()
	defer func() { c.observe("request", resultOf(err), began) }()
	s, err := c.publish.current(ctx)
	if err == nil {
		err = s.accepting(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("request to %s: %w", routingKey, err)
	}
	return s.requests.request(ctx, exchange, routingKey, body, headers)
}

// exchanger sends requests on one channel and matches the answers.
type exchanger struct {
	s  *session
	ch *amqp.Channel

	mu      sync.Mutex
	pending map[string]chan answer // by correlation ID; capacity 1
	over    bool                   // no answer will come any more
	err     error                  // why the broker closed the channel, if it did
}

type answer struct {
	body []byte
	err  error
}

func newExchanger(s *session, ch *amqp.Channel) (*exchanger, error) {
	x := &exchanger{s: s, ch: ch, pending: map[string]chan answer{}}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	returns := ch.NotifyReturn(make(chan amqp.Return))
	replies, err := ch.Consume(replyQueue, "replies", true, false, false, false, nil)
	if err != nil {
		return nil, fmt.Errorf("listen for answers: %w", kindOf(err))
	}
	if err := s.spawn(func() { x.dispatch(replies, returns, closed) }); err != nil {
		return nil, fmt.Errorf("listen for answers: %w", err)
	}
	return x, nil
}

// dispatch ends when the library closes its channels, with the AMQP channel.
func (x *exchanger) dispatch(replies <-chan amqp.Delivery, returns <-chan amqp.Return, closed <-chan *amqp.Error) {
	for replies != nil || returns != nil || closed != nil {
		select {
		case d, ok := <-replies:
			if !ok {
				replies = nil
				continue
			}
			x.settle(d.CorrelationId, answer{body: d.Body})
		case r, ok := <-returns:
			if !ok {
				returns = nil
				continue
			}
			x.settle(r.CorrelationId, answer{err: fmt.Errorf("%w (%d %s)", ErrNoHost, r.ReplyCode, r.ReplyText)})
		case err, ok := <-closed:
			if !ok {
				closed = nil
				continue
			}
			x.mu.Lock()
			x.err = err
			x.mu.Unlock()
		}
	}
	x.finish()
}

func (x *exchanger) settle(id string, a answer) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if waiter := x.pending[id]; waiter != nil {
		waiter <- a
		delete(x.pending, id)
	}
}

// finish fails every request under way. A channel that the broker closed was
// closed over a request, so none of those was carried out twice; but which of
// them arrived is not known.
func (x *exchanger) finish() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.over = true
	cause := fmt.Errorf("%w: %w", ErrNoReply, errors.Join(ErrUnreachable, x.s.cause()))
	switch {
	case hasCode(x.err, amqp.NotFound):
		cause = fmt.Errorf("%w (%w)", ErrNoDaemon, x.err)
	case hasCode(x.err, amqp.AccessRefused):
		cause = fmt.Errorf("%w (%w)", ErrDenied, x.err)
	}
	for id, waiter := range x.pending {
		waiter <- answer{err: cause}
		delete(x.pending, id)
	}
}

func (x *exchanger) register(id string) (chan answer, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return nil, false
	}
	waiter := make(chan answer, 1)
	x.pending[id] = waiter
	return waiter, true
}

func (x *exchanger) forget(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.pending, id)
}

// request sends one message and waits for its answer.
func (x *exchanger) request(ctx context.Context, exchange, key string, body []byte, headers map[string]any) ([]byte, error) {
	target := exchange
	if key != "" {
		target += " (" + key + ")"
	}
	id := uuid.NewString()
	waiter, ok := x.register(id)
	if !ok {
		return nil, fmt.Errorf("request to %s: %w: %w", target, ErrUnreachable, x.s.cause())
	}
	defer x.forget(id)
	err := x.ch.Publish(exchange, key, true, false, amqp.Publishing{
		Headers: ownHeaders(headers), ContentType: "application/json", DeliveryMode: amqp.Persistent,
		UserId: x.s.user, CorrelationId: id, ReplyTo: replyQueue, Timestamp: time.Now(), Body: body,
	})
	if err != nil {
		return nil, fmt.Errorf("request to %s: %w", target, kindOf(err))
	}
	select {
	case a := <-waiter:
		if a.err != nil {
			return nil, fmt.Errorf("request to %s: %w", target, a.err)
		}
		return a.body, nil
	case <-ctx.Done():
		if reason := x.s.blockedBy(); reason != "" {
			return nil, fmt.Errorf("request to %s: %w (%s): %w", target, ErrBlocked, reason, context.Cause(ctx))
		}
		return nil, fmt.Errorf("request to %s: %w: %w", target, ErrNoReply, context.Cause(ctx))
	}
}
