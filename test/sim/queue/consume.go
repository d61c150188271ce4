package queue

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"gpuqd/daemon/broker"
	"gpuqd/test/sim/world"
)

// ConsumeSubmit implements agent.Broker.
func (c *Client) ConsumeSubmit(ctx context.Context, workers int, handler broker.Handler) error {
	return c.consume(ctx, source{name: "submit", queue: broker.QueueSubmit, workers: workers, gated: true}, handler)
}

// ConsumeDead implements agent.Broker.
func (c *Client) ConsumeDead(ctx context.Context, handler broker.Handler) error {
	return c.consumeAll(ctx, handler,
		source{name: "dead", queue: broker.QueueDead, workers: 1},
		source{name: "dead", queue: broker.QueueDLX, workers: 1})
}

// ConsumeControl implements agent.Broker.
func (c *Client) ConsumeControl(ctx context.Context, workers int, handler broker.Handler) error {
	return c.consumeAll(ctx, handler,
		source{name: "control", queue: broker.QueueControl, workers: workers},
		source{name: "control", queue: c.ownQueue(), workers: workers, own: true})
}

func (c *Client) consumeAll(ctx context.Context, handler broker.Handler, sources ...source) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, src := range sources {
		group.Go(func() error { return c.consume(ctx, src, handler) })
	}
	return group.Wait()
}

func (c *Client) ownQueue() string { return broker.ExchangeControl + "." + c.host }

// PauseSubmit implements agent.Broker.
func (c *Client) PauseSubmit() { c.pauseSubmit(true) }

// ResumeSubmit implements agent.Broker.
func (c *Client) ResumeSubmit() { c.pauseSubmit(false) }

func (c *Client) pauseSubmit(paused bool) {
	c.s.w.Do(func() {
		if c.paused == paused {
			return
		}
		c.paused = paused
		if c.turned != nil {
			close(c.turned)
			c.turned = nil
		}
	})
}

// source says what to consume, and how.
type source struct {
	name    string // in steps
	queue   string
	workers int
	gated   bool // PauseSubmit stops it
	own     bool // a queue of this connection's own
}

// consumer is one consumer on one connection.
type consumer struct {
	src     source
	k       *conn
	ctx     context.Context
	handler broker.Handler

	// The instant's: the server's side.
	q     *fifo
	limit int
	out   int // deliveries that are not settled

	// The instant's: the client's side.
	stopping bool
	handling int
	idle     chan struct{} // closed once stopping and handling nothing
}

// consumeBackoff is the wait before a consumer that failed is set up again.
const consumeBackoff = 500 * time.Millisecond

// consume keeps a consumer up until ctx or the client ends.
func (c *Client) consume(ctx context.Context, src source, handler broker.Handler) error {
	for c.waitOpen(ctx, src) {
		k, err := c.current(ctx, &c.look, 0)
		if err != nil {
			return nil
		}
		one := &consumer{src: src, k: k, ctx: ctx, handler: handler, idle: make(chan struct{})}
		err = c.asks(ctx, k, "broker consume", src.queue, one.join)
		if err == nil {
			one.run()
			continue
		}
		c.s.w.Do(one.abandon)
		<-one.idle
		if ctx.Err() == nil && k.ctx.Err() == nil && !c.pause(consumeBackoff) {
			return nil
		}
	}
	return nil
}

// waitOpen waits until the source may be consumed. It returns false when ctx or
// the client has ended.
func (c *Client) waitOpen(ctx context.Context, src source) bool {
	for ctx.Err() == nil && c.ctx.Err() == nil {
		shut, turned := c.gate(src)
		if !shut {
			return true
		}
		select {
		case <-turned:
		case <-ctx.Done():
		case <-c.ctx.Done():
		}
	}
	return false
}

// gate reports whether a source is shut, and gives a channel that is closed when
// that changes, nil for one that never is.
func (c *Client) gate(src source) (shut bool, turned <-chan struct{}) {
	if !src.gated {
		return false, nil
	}
	c.s.w.Do(func() {
		if c.turned == nil {
			c.turned = make(chan struct{})
		}
		shut, turned = c.paused, c.turned
	})
	return shut, turned
}

// run waits until the consumer has to end, and ends it. It returns once nothing
// is handled any more.
func (o *consumer) run() {
	c := o.k.c
	shut, turned := c.gate(o.src)
	if !shut {
		select {
		case <-o.ctx.Done():
		case <-turned:
		case <-o.k.ctx.Done():
		}
	}
	c.s.w.Do(o.stop)
	_ = o.k.call(context.Background(), world.Call{
		Step: "broker cancel", Key: o.src.queue, OneWay: true, Effect: o.leave,
	}, false) // on a lost connection the consumer has ended anyway
	<-o.idle
}

// abandon keeps a consumer that could not be set up from ever being. Within the
// instant.
func (o *consumer) abandon() {
	o.stop()
	o.leave()
}

// stop keeps the client from handling more. Within the instant.
func (o *consumer) stop() {
	o.stopping = true
	if o.handling == 0 {
		close(o.idle)
	}
}

// join registers the consumer. Within the instant.
func (o *consumer) join() {
	s := o.k.c.s
	if o.stopping {
		return
	}
	if o.src.own {
		s.names++
		o.q = s.declare(fmt.Sprintf("%s.%d", o.src.queue, s.names), own)
		key := broker.HostKey(o.k.c.host)
		s.bound[key] = append(s.bound[key], o.q)
	} else {
		o.q = s.queues[o.src.queue]
	}
	o.limit = max(o.src.workers, 1)
	o.k.consumers = append(o.k.consumers, o)
	at, _ := slices.BinarySearchFunc(o.q.consumers, o.k.c.host, func(other *consumer, host string) int {
		if other.k.c.host < host {
			return -1
		}
		return 1
	})
	o.q.consumers = slices.Insert(o.q.consumers, at, o)
	s.flow(o.q)
}

// leave ends what the server does for the consumer; a queue of its own goes with
// it. Within the instant.
func (o *consumer) leave() {
	if o.q == nil {
		return
	}
	o.q.consumers = slices.DeleteFunc(o.q.consumers, func(other *consumer) bool { return other == o })
	if o.src.own {
		o.k.c.s.drop(o.q)
	}
}

// push sends a message to the consumer. Within the instant.
func (o *consumer) push(m *message) {
	o.out++
	number := o.k.c.s.hand(o.k, m, o)
	o.k.c.s.spawn(func() { o.deliver(m, number) })
}

// deliver brings a message to the client. A client that is stopping gives it
// back unhandled.
func (o *consumer) deliver(m *message, number uint64) {
	_ = o.k.call(o.k.ctx, world.Call{
		Step: "broker " + o.src.name + " delivery", Key: m.id + m.correlation, OneWay: true,
		Effect: func() {
			switch {
			case o.k.lost:
			case o.stopping:
				o.k.c.s.spawn(func() { o.settle(number, broker.Requeue(0)) })
			default:
				o.handling++
				go o.handle(m.delivery(), number)
			}
		},
	}, false) // what is lost comes back with the connection
}

func (o *consumer) handle(d *broker.Delivery, number uint64) {
	d.Queue = o.src.queue
	if o.k.c.p.Wait() == nil {
		o.settle(number, o.handler(o.ctx, d))
	}
	o.k.c.s.w.Do(func() {
		if o.handling--; o.handling == 0 && o.stopping {
			close(o.idle)
		}
	})
}

// delays are those of the verdicts in use, which do not tell theirs.
var delays = []time.Duration{0, 10 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, time.Second}

// delayOf returns the delay of a verdict to requeue: the agent's, if it is none
// of the others.
func delayOf(v broker.Verdict) time.Duration {
	for _, d := range delays {
		if v == broker.Requeue(d) {
			return d
		}
	}
	return 2 * time.Second
}

// settle tells the server the verdict.
func (o *consumer) settle(number uint64, v broker.Verdict) {
	step := "ack"
	if v != broker.Done && v != broker.Reject {
		step = "nack"
		o.wait(delayOf(v))
	}
	_ = o.k.call(context.Background(), world.Call{
		Step: "broker " + o.src.name + " " + step, Key: fmt.Sprint(number), OneWay: true,
		Effect: func() { o.k.c.s.settle(o.k, number, v) },
	}, false) // on a lost connection it is delivered again
}

func (o *consumer) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-o.ctx.Done():
	case <-o.k.c.ctx.Done():
	}
}
