package queue

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/test/sim/world"
)

// replyPrefix begins what the broker writes for a direct reply-to.
const replyPrefix = "amq.rabbitmq.reply-to."

// request is one request and its requester.
type request struct {
	p        *world.Process
	m        *message
	exchange string
	answer   chan answer // capacity 1
}

type answer struct {
	body []byte
	err  error
}

// newRequest returns a request of a process, which is awaited until forget.
func (s *Server) newRequest(p *world.Process, user, exchange, key string, body []byte) *request {
	r := &request{p: p, exchange: exchange, answer: make(chan answer, 1)}
	host := p.Host().Name()
	s.w.Do(func() {
		s.asked[host]++
		id := fmt.Sprintf("%s.%d", host, s.asked[host])
		r.m = &message{
			body: body, user: user, replyTo: replyPrefix + id, correlation: id, exchange: exchange, key: key, sent: time.Now(),
		}
		s.asking[r.m.replyTo] = r
	})
	return r
}

func (s *Server) forget(r *request) {
	s.w.Do(func() { delete(s.asking, r.m.replyTo) })
}

// arrive puts a request into its queue, or lets it come back. Within the instant.
func (s *Server) arrive(r *request) {
	q := s.queues[broker.QueueSubmit]
	if r.exchange == broker.ExchangeControl {
		q = s.queues[broker.QueueControl]
		if r.m.key != broker.KeyAny {
			q = nil
			if bound := s.bound[r.m.key]; len(bound) > 0 {
				q = bound[len(bound)-1]
			}
		}
	}
	if q != nil {
		s.put(q, r.m)
		return
	}
	s.answer(r.m.replyTo, answer{err: fmt.Errorf("%w (312 NO_ROUTE)", broker.ErrNoHost)})
}

// answer sends an answer on its way to whoever awaits it. Within the instant.
func (s *Server) answer(to string, a answer) {
	r := s.asking[to]
	if r == nil || s.w.Chance(s.faults.loseReplies, to, "reply") {
		return
	}
	s.soon(func() {
		if s.w.LinkOf(r.p.Host().Name(), Part) != world.Up {
			return
		}
		select {
		case r.answer <- a:
		default: // it has one
		}
	}, to, "reply")
}

// await waits for the answer to a request that was sent.
func (r *request) await(ctx context.Context, lost <-chan struct{}, timeout <-chan time.Time) ([]byte, error) {
	cause := error(context.DeadlineExceeded)
	select {
	case a := <-r.answer:
		if gone := r.p.Wait(); gone != nil {
			return nil, gone
		}
		return a.body, a.err
	case <-ctx.Done():
		cause = context.Cause(ctx)
	case <-lost:
		cause = broker.ErrUnreachable
	case <-timeout:
		cause = world.ErrNoAnswer
	case <-r.p.Dead():
	}
	if gone := r.p.Wait(); gone != nil {
		return nil, gone
	}
	return nil, fmt.Errorf("%w: %w", broker.ErrNoReply, cause)
}

// Request implements agent.Broker.
func (c *Client) Request(ctx context.Context, exchange, routingKey string, body []byte, _ map[string]any) ([]byte, error) {
	reply, err := c.request(ctx, exchange, routingKey, body)
	if err != nil {
		return nil, fmt.Errorf("request to %s (%s): %w", exchange, routingKey, err)
	}
	return reply, nil
}

func (c *Client) request(ctx context.Context, exchange, key string, body []byte) ([]byte, error) {
	k, err := c.accepting(ctx, &c.publish)
	if err != nil {
		return nil, err
	}
	r := c.s.newRequest(c.p, c.user, exchange, key, body)
	defer c.s.forget(r)
	err = k.call(context.Background(), world.Call{
		Step: "broker request", Key: r.m.correlation, OneWay: true,
		Effect: func() { c.s.read(k, nil, func() { c.s.arrive(r) }) },
	}, false)
	switch {
	case err == world.ErrDead:
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", broker.ErrUnreachable, err)
	}
	return r.await(ctx, k.ctx.Done(), nil)
}

// Submit publishes one job to gpuq.submit as a user, from a process that has no
// Client, and waits for a daemon's reply. Where none comes the error is
// broker.ErrNoReply: the job may be in, or come in yet; send the same again.
// broker.ErrUnreachable says that nothing was sent.
func (s *Server) Submit(ctx context.Context, p *world.Process, body []byte, user string) ([]byte, error) {
	r := s.newRequest(p, user, broker.ExchangeSubmit, "", body)
	defer s.forget(r)
	err := p.Do(ctx, world.Call{
		Part: Part, Step: "broker submit", Key: string(body[:min(len(body), keyBytes)]), OneWay: true,
		Arrived: func() bool { return !s.isDown() }, Effect: func() { s.arrive(r) },
	})
	switch {
	case err == world.ErrRefused:
		return nil, fmt.Errorf("submit: %w: %w", broker.ErrUnreachable, err)
	case err != nil:
		return nil, err
	}
	timer := time.NewTimer(s.SubmitTimeout)
	defer timer.Stop()
	reply, err := r.await(ctx, nil, timer.C)
	if err != nil {
		return nil, fmt.Errorf("submit: %w", err)
	}
	return reply, nil
}

// keyBytes is how much of a job's message names it: its ID comes first.
const keyBytes = 64

// Reply implements agent.Broker.
func (c *Client) Reply(ctx context.Context, to *broker.Delivery, body []byte) error {
	if !strings.HasPrefix(to.ReplyTo, replyPrefix) {
		return nil
	}
	k, err := c.accepting(ctx, &c.reply)
	if err == nil {
		err = k.call(context.Background(), world.Call{
			Step: "broker reply", Key: to.CorrelationID, OneWay: true,
			Effect: func() {
				c.s.read(k, nil, func() { c.s.answer(to.ReplyTo, answer{body: slices.Clone(body)}) })
			},
		}, false)
	}
	if err == world.ErrDead {
		return err
	}
	if err != nil {
		return fmt.Errorf("reply to a request: %w", err)
	}
	return nil
}
