package floor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/job"

	amqp "github.com/rabbitmq/amqp091-go"
)

// The floor's own queues and bell, below the prefix that a host's account may use.
const (
	queue   = "gpuq.floor"
	again   = "gpuq.floor.again"
	bell    = "gpuq.floor.bell"
	bellFor = "gpuq.floor.bell.here"
)

// exchange is the broker: a connection to take, one to publish and one to look,
// as gpuqd has them.
type exchange struct {
	conns []*amqp.Connection
	user  string

	publishing sync.Mutex // a number and its message go together
	publishes  *amqp.Channel
	loose      *amqp.Channel // bells, not confirmed
	taking     sync.Mutex    // one look and get at a time
	looks      *amqp.Channel
	gets       *amqp.Channel
	bells      <-chan amqp.Delivery
}

func openExchange(url, user string) (e *exchange, err error) {
	e = &exchange{user: user}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("prepare the broker: %w", err), e.close())
		}
	}()
	for range 3 {
		conn, err := amqp.Dial(url)
		if err != nil {
			return e, err
		}
		e.conns = append(e.conns, conn)
	}
	for _, c := range []struct {
		to   **amqp.Channel
		conn *amqp.Connection
	}{{&e.publishes, e.conns[0]}, {&e.loose, e.conns[0]}, {&e.looks, e.conns[1]}, {&e.gets, e.conns[2]}} {
		if *c.to, err = c.conn.Channel(); err != nil {
			return e, err
		}
	}
	return e, e.declare()
}

// declare makes the queues as gpuqd makes a shape's, and a bell.
func (e *exchange) declare() error {
	args := amqp.Table{
		amqp.QueueTypeArg: amqp.QueueTypeQuorum, "x-dead-letter-exchange": broker.ExchangeDLX, "x-delivery-limit": int64(1<<31 - 1),
	}
	for _, name := range []string{queue, again} {
		if _, err := e.looks.QueueDeclare(name, true, false, false, false, args); err != nil {
			return err
		}
	}
	if err := e.looks.ExchangeDeclare(bell, amqp.ExchangeFanout, false, true, false, false, nil); err != nil {
		return err
	}
	if _, err := e.looks.QueueDeclare(bellFor, false, true, true, false, nil); err != nil {
		return err
	}
	if err := e.looks.QueueBind(bellFor, "", bell, false, nil); err != nil {
		return err
	}
	var err error
	if e.bells, err = e.looks.Consume(bellFor, "", true, true, false, false, nil); err != nil {
		return err
	}
	return e.publishes.Confirm(false)
}

func (e *exchange) close() error {
	var errs []error
	for _, conn := range e.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// publish puts a job's message into the queue, waits for its confirm and rings.
func (e *exchange) publish(ctx context.Context, j *job.Job) error {
	e.publishing.Lock()
	confirm, err := e.publishes.PublishWithDeferredConfirmWithContext(ctx, "", queue, true, false, amqp.Publishing{
		Headers: amqp.Table{}, ContentType: "application/json", DeliveryMode: amqp.Persistent, MessageId: string(j.ID),
		Timestamp: time.Now(), UserId: e.user, Body: job.Ticket{ID: j.ID, EnqueuedAt: j.PublishedAt}.Encode(),
	})
	e.publishing.Unlock()
	if err != nil {
		return err
	}
	if ok, err := confirm.WaitContext(ctx); err != nil || !ok {
		return errors.Join(errors.New("the broker did not confirm a message"), err)
	}
	return e.loose.Publish(bell, "", false, false, amqp.Publishing{UserId: e.user, Body: []byte(queue)})
}

// take looks at the depths and gets one message; false where there is none.
func (e *exchange) take(depths int) (d amqp.Delivery, looked int, ok bool, err error) {
	e.taking.Lock()
	defer e.taking.Unlock()
	names := [2]string{again, queue}
	for looked < depths {
		if _, err := e.looks.QueueDeclarePassive(names[looked%2], true, false, false, false, nil); err != nil {
			return d, looked, false, err
		}
		looked++
	}
	d, ok, err = e.gets.Get(queue, false)
	return d, looked, ok, err
}

func (e *exchange) ack(d amqp.Delivery) error { return e.gets.Ack(d.DeliveryTag, false) }
