package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// The exchanges and queues that every daemon declares. Job queues are named by
// job.Shape.
const (
	ExchangeSubmit  = "gpuq.submit"  // fanout: users publish jobs here
	ExchangeControl = "gpuq.control" // direct: requests, by KeyAny or HostKey
	ExchangeBell    = "gpuq.bell"    // fanout, transient: names of queues with work
	ExchangeDead    = "gpuq.dead"    // fanout: bad messages with a reason
	ExchangeDLX     = "gpuq.dlx"     // fanout: what the broker itself dead-letters

	QueueSubmit  = "gpuq.submit"
	QueueControl = "gpuq.control"
	QueueDead    = "gpuq.dead"
	QueueDLX     = "gpuq.dlx"

	// KeyAny routes a request to whichever daemon is free.
	KeyAny = "any"

	retryPrefix = "gpuq.retry." // of exchanges and queues, one of each per step
	jobPrefix   = "gpuq.job."
	againSuffix = ".again"
)

// HostKey routes a request to the daemon of one host.
func HostKey(host string) string { return "host." + host }

// RetryQueue returns the name of the queue, and of its exchange, in which
// messages wait for one step of RetryLadder.
func RetryQueue(step time.Duration) string {
	text := step.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = strings.TrimSuffix(text, zero[1:])
		}
	}
	return retryPrefix + text
}

// deliveryLimitOff is a delivery limit that nothing reaches. RabbitMQ 4 sets 20
// where a queue names none, counts lost connections, and drops the message
// without a word. -1 would say it better, but 3.10 refuses it, and a queue
// declared without the argument could not be declared with it after an upgrade.
// A queue with a limit also gives a returned message its old place back;
// without one it goes to the end (3.10.8).
const deliveryLimitOff = int64(1<<31 - 1)

const (
	controlTTL    = time.Minute // nobody waits longer for the answer to a request
	controlLength = 10_000      // requests that may wait
	bellLength    = 1_000       // bells that may wait for one daemon; older ones go
)

// jobQueueArgs are the arguments of a job queue. No TTL: a job's expiry is
// checked at its claim.
func jobQueueArgs() amqp.Table {
	return amqp.Table{
		amqp.QueueTypeArg:        amqp.QueueTypeQuorum,
		"x-dead-letter-exchange": ExchangeDLX,
		"x-delivery-limit":       deliveryLimitOff,
	}
}

// netQueueArgs are the arguments of gpuq.dead and gpuq.dlx, which have no net
// under them.
func netQueueArgs() amqp.Table {
	return amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum, "x-delivery-limit": deliveryLimitOff}
}

// controlQueueArgs are the arguments of the shared control queue. What expires
// there is gone: its requester has given up.
func controlQueueArgs() amqp.Table {
	return amqp.Table{
		amqp.QueueTypeArg:       amqp.QueueTypeQuorum,
		amqp.QueueMessageTTLArg: controlTTL.Milliseconds(),
		amqp.QueueMaxLenArg:     int64(controlLength),
		amqp.QueueOverflowArg:   amqp.QueueOverflowRejectPublish,
		"x-delivery-limit":      deliveryLimitOff,
	}
}

// retryQueueArgs are the arguments of a retry queue. The default exchange takes
// an expired message back by its original routing key, its job queue; with
// at-least-once, which needs reject-publish, it leaves the retry queue only
// once the job queue has it.
func retryQueueArgs(step time.Duration) amqp.Table {
	return amqp.Table{
		amqp.QueueTypeArg:        amqp.QueueTypeQuorum,
		amqp.QueueMessageTTLArg:  step.Milliseconds(),
		"x-dead-letter-exchange": "",
		"x-dead-letter-strategy": "at-least-once",
		amqp.QueueOverflowArg:    amqp.QueueOverflowRejectPublish,
	}
}

// topologyMark is a transient exchange that is declared last. Where it stands,
// all the rest does; it goes when the whole cluster stops, as the bell does.
// Change its number with the topology.
const topologyMark = "gpuq.topology.1"

// topologyStands asks for the mark. It only reads: each declare or bind, even
// of what exists, is a transaction of all nodes, and waits a minute for one
// that hangs (net_ticktime; measured on 3.10.8). A reconnect must not.
func topologyStands(ch *amqp.Channel) error {
	return ch.ExchangeDeclarePassive(topologyMark, amqp.ExchangeFanout, false, false, false, false, nil)
}

// pair is a durable exchange, a quorum queue and their binding.
type pair struct {
	exchange, kind, queue, key string
	args                       amqp.Table
}

// pairs are all fixed queues with their exchanges.
func pairs() []pair {
	list := []pair{
		{ExchangeDLX, amqp.ExchangeFanout, QueueDLX, "", netQueueArgs()},
		{ExchangeDead, amqp.ExchangeFanout, QueueDead, "", netQueueArgs()},
		{ExchangeSubmit, amqp.ExchangeFanout, QueueSubmit, "", jobQueueArgs()},
		{ExchangeControl, amqp.ExchangeDirect, QueueControl, KeyAny, controlQueueArgs()},
	}
	for _, step := range RetryLadder {
		name := RetryQueue(step)
		list = append(list, pair{name, amqp.ExchangeFanout, name, "", retryQueueArgs(step)})
	}
	return list
}

// declareTopology declares everything but the job queues. It is idempotent.
func declareTopology(ch *amqp.Channel) error {
	if err := declareExchange(ch, ExchangeBell, amqp.ExchangeFanout, false); err != nil {
		return err
	}
	for _, p := range pairs() {
		if err := declarePair(ch, p.exchange, p.kind, p.queue, p.key, p.args); err != nil {
			return err
		}
	}
	return declareExchange(ch, topologyMark, amqp.ExchangeFanout, false)
}

func declareExchange(ch *amqp.Channel, name, kind string, durable bool) error {
	if err := ch.ExchangeDeclare(name, kind, durable, false, false, false, nil); err != nil {
		return fmt.Errorf("declare exchange %s: %w", name, kindOf(err))
	}
	return nil
}

// declarePair declares a durable exchange, a quorum queue and their binding.
func declarePair(ch *amqp.Channel, exchange, kind, queue, key string, args amqp.Table) error {
	if err := declareExchange(ch, exchange, kind, true); err != nil {
		return err
	}
	if _, err := ch.QueueDeclare(queue, true, false, false, false, args); err != nil {
		return fmt.Errorf("declare queue %s: %w", queue, kindOf(err))
	}
	if err := ch.QueueBind(queue, key, exchange, false, nil); err != nil {
		return fmt.Errorf("bind queue %s: %w", queue, kindOf(err))
	}
	return nil
}

// DeclareShape declares the two queues of a shape, named by the plain or the
// again queue. It asks the broker once per connection and is free after that,
// until Depth, Take or Publish finds one of the two missing.
func (c *Client) DeclareShape(ctx context.Context, queue string) error {
	plain := strings.TrimSuffix(queue, againSuffix)
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DeclareTimeout)
	defer cancel()
	s, err := c.look.current(ctx)
	if err != nil {
		return fmt.Errorf("declare queue %s: %w", plain, err)
	}
	if s.shapes.has(plain) {
		return nil
	}
	err = s.do(ctx, func(ch *amqp.Channel) error {
		for _, name := range []string{plain, plain + againSuffix} {
			if _, err := ch.QueueDeclare(name, true, false, false, false, jobQueueArgs()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("declare queue %s: %w", plain, kindOf(err))
	}
	s.shapes.add(plain)
	return nil
}

// noteMissing makes the next DeclareShape ask the broker again where err says
// that the queue is not there, as after an operator deleted it.
func (c *Client) noteMissing(queue string, err error) {
	if !errors.Is(err, ErrNoQueue) && !errors.Is(err, ErrUnroutable) {
		return
	}
	if s := c.look.standing(); s != nil {
		s.shapes.remove(strings.TrimSuffix(queue, againSuffix))
	}
}

// Depth returns the number of messages ready in a queue. It is a hint, never
// proof of emptiness: a queue without a leader reads 0. ErrNoQueue where there
// is none of that name.
func (c *Client) Depth(ctx context.Context, queue string) (ready int, err error) {
	began := time.Now()
	defer func() { c.observe("depth", resultOf(err), began) }()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DeclareTimeout)
	defer cancel()
	s, err := c.look.current(ctx)
	if err != nil {
		return 0, fmt.Errorf("look at queue %s: %w", queue, err)
	}
	err = s.do(ctx, func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		ready = q.Messages
		return err
	})
	if err != nil {
		err = kindOf(err)
		c.noteMissing(queue, err)
		return 0, fmt.Errorf("look at queue %s: %w", queue, err)
	}
	return ready, nil
}
