package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/broker"
	"gpuqd/test/wait"
)

// bench is a broker, real or simulated, with the verbs that break it.
type bench interface {
	// connect starts the client of a host. Its connections are not to the nodes
	// that lead the queues of queue.
	connect(t *testing.T, host string) *client
	// queue declares a job queue of the test's own.
	queue(t *testing.T, name string) string

	// submit publishes a job as alice and waits for its reply until ctx ends.
	submit(ctx context.Context, body string) (string, error)

	freeze(t *testing.T, queue string) // its leader stands still
	thaw(t *testing.T, queue string)   // and goes on, before anybody has missed it
	kill(t *testing.T, queue string)   // its leader dies, and is started again after the test
	restart(t *testing.T)              // every node is killed and started
	drop(t *testing.T, host, duty string)
	alarm(t *testing.T, on bool)
	cut(t *testing.T, host string) // nothing gets through to its client, nor from it
	mend(t *testing.T, host string)
	remove(t *testing.T, queue string)
	// late is how much later than due things may happen: a real machine is busy.
	late() time.Duration
	// setConsumerTimeout is for connections made from then on; 0 ends it.
	setConsumerTimeout(t *testing.T, d time.Duration)
}

// Timeouts of all clients here: short, since the scripts run in real time too.
const (
	takeTimeout    = 1500 * time.Millisecond
	confirmTimeout = 2 * time.Second
	heartbeat      = 2 * time.Second
	backoffMax     = time.Second
)

// client is one host's client.
type client struct {
	agent.Broker
	host string
	stop func()
}

// ready waits until all its connections are up.
func (c *client) ready(t *testing.T) {
	t.Helper()
	wait.For(t, time.Minute, func() error {
		if ok, why := c.Healthy(); !ok {
			return errors.New(why)
		}
		return nil
	})
}

// publish publishes messages that do not fail.
func (c *client) publish(t *testing.T, queue string, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := c.Publish(t.Context(), broker.Message{Queue: queue, Body: []byte(id), MessageID: id}); err != nil {
			t.Fatalf("publish %s: %v", id, err)
		}
	}
}

// take takes messages that are there.
func (c *client) take(t *testing.T, queue string, n int) (list []*broker.Delivery) {
	t.Helper()
	for range n {
		d, err := c.Take(t.Context(), queue)
		if d == nil || err != nil {
			t.Fatalf("take from %s gave %v, %v after %d", queue, d, err, len(list))
		}
		list = append(list, d)
	}
	return list
}

// takeSoon takes one message, whatever fails meanwhile.
func (c *client) takeSoon(t *testing.T, queue string) (got *broker.Delivery) {
	t.Helper()
	wait.For(t, time.Minute, func() error {
		d, err := c.Take(t.Context(), queue)
		if err != nil {
			return err
		}
		if got = d; d == nil {
			return fmt.Errorf("%s is empty", queue)
		}
		return nil
	})
	return got
}

func (c *client) ack(t *testing.T, list ...*broker.Delivery) {
	t.Helper()
	for _, d := range list {
		if err := c.Ack(t.Context(), d.Tag); err != nil {
			t.Errorf("ack %s: %v", d.MessageID, err)
		}
	}
}

// wantDepth waits until a queue shows so many messages.
func (c *client) wantDepth(t *testing.T, queue string, n int) {
	t.Helper()
	wait.For(t, time.Minute, func() error {
		got, err := c.Depth(t.Context(), queue)
		if err == nil && got != n {
			err = fmt.Errorf("%s holds %d messages, want %d", queue, got, n)
		}
		return err
	})
}

// names are the messages of deliveries, with an r where they were redelivered.
func names(list []*broker.Delivery) (ids []string) {
	for _, d := range list {
		id := d.MessageID
		if d.Redelivered {
			id += "r"
		}
		ids = append(ids, id)
	}
	return ids
}

// wantTaken takes and acks all that is wanted, in this order.
func (c *client) wantTaken(t *testing.T, queue string, want ...string) {
	t.Helper()
	c.wantDepth(t, queue, len(want))
	list := c.take(t, queue, len(want))
	if got := names(list); !slices.Equal(got, want) {
		t.Errorf("took %v, want %v", got, want)
	}
	c.ack(t, list...)
	if d, err := c.Take(t.Context(), queue); d != nil || err != nil {
		t.Errorf("then took %v, %v", d, err)
	}
}

// background runs a consumer until the test ends, or the returned function is
// called.
func background(t *testing.T, consume func(ctx context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := consume(ctx); err != nil {
			t.Errorf("a consumer ended: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// echo answers each request with the host, the user and the body.
func echo(c *client) broker.Handler {
	return func(ctx context.Context, d *broker.Delivery) broker.Verdict {
		if err := c.Reply(ctx, d, fmt.Appendf(nil, "%s answers %s: %s", c.host, d.UserID, d.Body)); err != nil {
			return broker.Requeue(100 * time.Millisecond)
		}
		return broker.Done
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
