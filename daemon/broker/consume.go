package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

// Verdict is what becomes of a consumed message.
type Verdict struct {
	kind  verdictKind
	after time.Duration
}

type verdictKind int

const (
	kindDone verdictKind = iota + 1
	kindRequeue
	kindReject
)

// Done removes the message: it was dealt with.
var Done = Verdict{kind: kindDone}

// Reject hands the message to gpuq.dlx, or drops it where its queue has no net.
var Reject = Verdict{kind: kindReject}

// Requeue gives the message back after a delay, for which it keeps its worker.
func Requeue(after time.Duration) Verdict { return Verdict{kind: kindRequeue, after: after} }

// Handler deals with one delivery. Its context ends when the consumer stops;
// what it does not finish is delivered again, so it must bear repetition.
type Handler func(ctx context.Context, d *Delivery) Verdict

// ConsumeSubmit hands the messages of gpuq.submit to handler, at most workers
// at once, until ctx ends; it survives reconnects. PauseSubmit stops it for a
// while.
func (c *Client) ConsumeSubmit(ctx context.Context, workers int, handler Handler) error {
	return c.consume(ctx, source{queue: QueueSubmit, workers: workers, gate: &c.intake}, handler)
}

// ConsumeDead hands the messages of gpuq.dead and gpuq.dlx to handler, one at a
// time per queue, until ctx ends.
func (c *Client) ConsumeDead(ctx context.Context, handler Handler) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, queue := range []string{QueueDead, QueueDLX} {
		group.Go(func() error { return c.consume(ctx, source{queue: queue, workers: 1}, handler) })
	}
	return group.Wait()
}

// ConsumeControl hands the requests to any daemon and those to this host to
// handler, at most workers of each at once, until ctx ends. The host's queue
// lives as long as the connection, so that a request to an absent host comes
// back at once.
func (c *Client) ConsumeControl(ctx context.Context, workers int, handler Handler) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.consume(ctx, source{queue: QueueControl, workers: workers}, handler) })
	group.Go(func() error {
		return c.consume(ctx, source{
			queue: ExchangeControl + "." + c.cfg.Host, workers: workers,
			own: &binding{exchange: ExchangeControl, key: HostKey(c.cfg.Host)},
		}, handler)
	})
	return group.Wait()
}

// PauseSubmit stops taking jobs in and gives back what is prefetched, so that
// daemons that can reach the ledger have it; handlers under way finish.
func (c *Client) PauseSubmit() { c.intake.set(true) }

// ResumeSubmit ends PauseSubmit.
func (c *Client) ResumeSubmit() { c.intake.set(false) }

// source says what to consume, and how.
type source struct {
	queue   string
	workers int      // deliveries handled at once, and prefetched
	gate    *gate    // nil is always open
	own     *binding // set: a queue of this client's own, bound so, gone with its connection
	noAck   bool     // the broker forgets on delivery; verdicts do not count
}

type binding struct{ exchange, key string }

// consumeBackoff is the wait before a consumer that failed is set up again on
// the same connection.
const consumeBackoff = 500 * time.Millisecond

// consume keeps a consumer up until ctx ends. It returns nil then.
func (c *Client) consume(ctx context.Context, src source, handler Handler) error {
	src.workers = max(src.workers, 1)
	var last error
	for ctx.Err() == nil {
		if err := src.gate.wait(ctx); err != nil {
			return nil
		}
		s, err := c.look.current(ctx)
		if err != nil {
			return nil
		}
		err = consumeOnce(ctx, s, src, handler)
		if err == nil || ctx.Err() != nil || s.isGone() {
			continue
		}
		if last == nil || last.Error() != err.Error() { // once per reason
			c.cfg.Logger.Warn("consumer is set up again", "queue", src.queue, "err", err)
		}
		last = err
		sleep(ctx, consumeBackoff)
	}
	return nil
}

// consumeOnce consumes on one session until it is lost, the gate closes, the
// broker cancels the consumer, or ctx ends.
func consumeOnce(ctx context.Context, s *session, src source, handler Handler) error {
	ch, err := s.conn.Channel()
	if err != nil {
		return kindOf(err)
	}
	defer ch.Close() // gives back what is not settled; the connection may be gone already
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	name := src.queue
	if src.own != nil {
		if name, err = declareOwn(ch, src); err != nil {
			return err
		}
	}
	if err := ch.Qos(src.workers, 0, false); err != nil {
		return kindOf(err)
	}
	const consumerTag = "gpuqd" // unique within its channel, which is enough
	deliveries, err := ch.Consume(name, consumerTag, src.noAck, src.own != nil, false, false, nil)
	if err != nil {
		return kindOf(err)
	}
	var stopping atomic.Bool
	finished := make(chan struct{})
	var stopper sync.WaitGroup
	stopper.Go(func() {
		select {
		case <-ctx.Done():
		case <-src.gate.closing():
		case <-finished:
			return
		}
		stopping.Store(true)
		_ = ch.Cancel(consumerTag, false) // on a lost connection deliveries end anyway
	})
	work(ctx, src, deliveries, &stopping, handler)
	close(finished)
	stopper.Wait()
	if stopping.Load() {
		return nil
	}
	select {
	case err := <-closed:
		if err != nil {
			return err
		}
	default:
	}
	return errors.New("the broker ended the consumer")
}

// work handles deliveries until the library ends them. While stopping, what was
// prefetched goes back unhandled.
func work(ctx context.Context, src source, deliveries <-chan amqp.Delivery, stopping *atomic.Bool, handler Handler) {
	var workers sync.WaitGroup
	for range src.workers {
		workers.Go(func() {
			for d := range deliveries {
				verdict := Requeue(0)
				if !stopping.Load() {
					verdict = handler(ctx, newDelivery(src.queue, d))
				}
				if !src.noAck {
					settle(ctx, d, verdict)
				}
			}
		})
	}
	workers.Wait()
}

// settle tells the broker the verdict. An error means that the connection is
// gone and with it the delivery.
func settle(ctx context.Context, d amqp.Delivery, v Verdict) {
	switch v.kind {
	case kindDone:
		_ = d.Ack(false)
	case kindReject:
		_ = d.Nack(false, false)
	default:
		sleep(ctx, v.after)
		_ = d.Nack(false, true)
	}
}

// declareOwn declares a queue that goes when its connection goes. Its name is
// new each time: that of a lost connection lingers, and is locked, until the
// broker notices the loss.
func declareOwn(ch *amqp.Channel, src source) (string, error) {
	name := src.queue + "." + randomName()
	args := amqp.Table{amqp.QueueMaxLenArg: int64(bellLength)}
	if _, err := ch.QueueDeclare(name, false, true, true, false, args); err != nil {
		return "", fmt.Errorf("declare queue %s: %w", name, kindOf(err))
	}
	if err := ch.QueueBind(name, src.own.key, src.own.exchange, false, nil); err != nil {
		return "", fmt.Errorf("bind queue %s: %w", name, kindOf(err))
	}
	return name, nil
}

// gate holds a consumer up while it is shut. The zero gate is open.
type gate struct {
	mu      sync.Mutex
	shut    bool
	changed chan struct{} // closed when shut changes; made on demand
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == shut {
		return
	}
	g.shut = shut
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

func (g *gate) state() (shut bool, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	return g.shut, g.changed
}

// wait returns when the gate is open, or with an error when ctx has ended.
func (g *gate) wait(ctx context.Context) error {
	for g != nil {
		shut, changed := g.state()
		if !shut {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// closing returns a channel that is closed once the gate shuts; nil for a nil
// gate.
func (g *gate) closing() <-chan struct{} {
	if g == nil {
		return nil
	}
	shut, changed := g.state()
	if shut {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	return changed
}
