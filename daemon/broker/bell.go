package broker

import (
	"context"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Ring tells every daemon, this one included, that a queue has work. It is a
// hint: it never waits, and rings that cannot be sent soon are lost. Rings of
// one queue that pile up become one.
func (c *Client) Ring(_ context.Context, queue string) { c.rings.add(queue) }

// Bells yields the queues named by bells. Those that nobody receives in time
// are lost.
func (c *Client) Bells() <-chan string { return c.bells }

// ringsWaiting bounds the queues with a ring not yet sent.
const ringsWaiting = 1024

// ringer holds the queues with a ring to be sent.
type ringer struct {
	mu     sync.Mutex
	queues map[string]bool
	wake   chan struct{} // capacity 1
}

func newRinger() *ringer {
	return &ringer{queues: map[string]bool{}, wake: make(chan struct{}, 1)}
}

func (r *ringer) add(queue string) {
	r.mu.Lock()
	if len(r.queues) < ringsWaiting {
		r.queues[queue] = true
	}
	r.mu.Unlock()
	r.rouse()
}

func (r *ringer) rouse() {
	select {
	case r.wake <- struct{}{}:
	default: // it is awake already
	}
}

func (r *ringer) drain() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	queues := make([]string, 0, len(r.queues))
	for queue := range r.queues {
		queues = append(queues, queue)
	}
	clear(r.queues)
	return queues
}

// run sends rings until ctx ends.
func (r *ringer) run(ctx context.Context, c *Client) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		s, err := c.publish.current(ctx)
		if err != nil {
			return // ctx ended
		}
		if s.accepting(ctx) != nil {
			r.rouse() // the rings wait for the next connection, not for the next ring
			continue
		}
		for _, queue := range r.drain() {
			// A lost bell is made up for by the listeners' slow tick.
			_ = s.loose.Publish(ExchangeBell, "", false, false, amqp.Publishing{UserId: s.user, Body: []byte(queue)})
		}
	}
}

// consumeBells feeds Bells until ctx ends.
func (c *Client) consumeBells(ctx context.Context) error {
	src := source{
		queue: ExchangeBell + "." + c.cfg.Host, workers: 1, noAck: true,
		own: &binding{exchange: ExchangeBell},
	}
	return c.consume(ctx, src, func(_ context.Context, d *Delivery) Verdict {
		select {
		case c.bells <- string(d.Body):
		default:
		}
		return Done
	})
}
