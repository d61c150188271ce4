package broker

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// What can go wrong, by what the caller does next.
var (
	// ErrUnreachable: no broker node could be reached in time; nothing was sent.
	ErrUnreachable = errors.New("the broker is out of reach")
	// ErrBlocked: the broker has a memory or disk alarm and accepts no messages;
	// nothing was sent.
	ErrBlocked = errors.New("the broker accepts no messages until its memory or disk alarm is cleared")
	// ErrUnknown: it was sent, and whether it arrived is not known. Publish it
	// again; who handles it must bear a duplicate.
	ErrUnknown = errors.New("it is not known whether the broker has the message")
	// ErrUnroutable: the broker returned it, since its queue does not exist.
	ErrUnroutable = errors.New("no queue takes this message")
	// ErrNoQueue: the queue does not exist; DeclareShape makes it.
	ErrNoQueue = errors.New("the queue does not exist")
	// ErrTakeTimeout: the queue's leader did not answer a get. The take
	// connection was closed, and with it the generation.
	ErrTakeTimeout = errors.New("the queue does not answer")
	// ErrStaleTag: the delivery belongs to an earlier generation, or was acked or
	// given back before. The broker delivers it again where it was not acked.
	ErrStaleTag = errors.New("the delivery is no longer held")
	// ErrNoHost: the host named in a request is not connected to the broker.
	ErrNoHost = errors.New("no gpuqd of that host is connected to the broker")
	// ErrNoDaemon: the exchange does not exist yet, since no gpuqd has used this
	// broker.
	ErrNoDaemon = errors.New("no gpuqd has used this broker yet; start one, or check the broker's address and vhost")
	// ErrNoReply: the request was sent and not answered in time. It may have been
	// carried out: repeat only what can be repeated.
	ErrNoReply = errors.New("no answer came in time")
	// ErrDenied: the account may not do this.
	ErrDenied = errors.New("the broker denies it to this account")
	// ErrConflict: a queue or exchange of that name exists with other properties.
	// Only an operator can mend that, by removing it once it is empty.
	ErrConflict = errors.New("it exists on the broker with other properties")
)

// kindOf maps what the broker said to one of the kinds above, keeping the text.
func kindOf(err error) error {
	var e *amqp.Error
	if !errors.As(err, &e) {
		if errors.Is(err, amqp.ErrClosed) {
			return ErrUnreachable
		}
		return err
	}
	switch e.Code {
	case amqp.AccessRefused:
		return fmt.Errorf("%w (%s)", ErrDenied, e.Reason)
	case amqp.NotFound:
		return fmt.Errorf("%w (%s)", ErrNoQueue, e.Reason)
	case amqp.PreconditionFailed:
		return fmt.Errorf("%w (%s)", ErrConflict, e.Reason)
	}
	return fmt.Errorf("%w (%d %s)", ErrUnreachable, e.Code, e.Reason)
}

// hasCode reports whether err is the broker's reply with this code.
func hasCode(err error, code int) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Code == code
}

// ended returns why ctx ended, or nil.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return context.Cause(ctx)
}
