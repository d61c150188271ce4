package broker

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"gpuqd/test/wait"
)

// dialSession dials one session that no link looks after.
func dialSession(t *testing.T) *session {
	t.Helper()
	d, err := newDialer(configOf("host1").withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.dial(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close(true) })
	return s
}

func TestSession(t *testing.T) {
	t.Run("ChannelThatEndsFirstStillHasACause", func(t *testing.T) {
		// The session is not known to be lost when the library ends the channels.
		s := &session{gone: make(chan struct{})}
		confirms, returns := make(chan amqp.Confirmation), make(chan amqp.Return)
		replies, closed := make(chan amqp.Delivery), make(chan *amqp.Error)
		close(confirms)
		close(returns)
		close(replies)
		close(closed)
		o := &outcome{done: make(chan error, 1)}
		c := &confirmer{s: s, pending: map[uint64]*outcome{1: o}}
		c.dispatch(confirms, returns)
		x := &exchanger{s: s, pending: map[string]chan answer{}}
		waiter, _ := x.register("id")
		x.dispatch(replies, returns, closed)
		for want, err := range map[error]error{ErrUnknown: <-o.done, ErrNoReply: (<-waiter).err} {
			if !errors.Is(err, want) || !errors.Is(err, errEnded) || strings.Contains(err.Error(), "%!") {
				t.Errorf("got %v, want %v", err, want)
			}
		}
		if _, err := x.request(t.Context(), "e", "k", nil, nil); !errors.Is(err, errEnded) || strings.Contains(err.Error(), "%!") {
			t.Errorf("a later request gave %v", err)
		}
	})
	t.Run("NoCallStartsOnceItIsClosed", func(t *testing.T) {
		runClient(t, configOf("host1")) // declares the topology
		for range 20 {
			s := dialSession(t)
			gets, err := s.openChannel("gets")
			if err != nil {
				t.Fatal(err)
			}
			s.gets = gets
			var closed atomic.Bool
			var callers sync.WaitGroup
			busy := make(chan struct{}, 1)
			callers.Go(func() {
				for {
					err := s.do(t.Context(), func(*amqp.Channel) error {
						if closed.Load() {
							t.Error("a call ran after close")
						}
						select {
						case busy <- struct{}{}:
						default:
						}
						return nil
					})
					if err != nil {
						return
					}
				}
			})
			callers.Go(func() {
				for !s.isGone() {
					_, _ = s.get(QueueDLX, time.Second) // fails in any way once the session goes
				}
			})
			select {
			case <-busy:
			case <-s.gone:
				t.Fatalf("lost before it was closed: %v", s.cause())
			}
			s.close(true)
			closed.Store(true)
			callers.Wait()
			if err := s.do(t.Context(), func(*amqp.Channel) error { return nil }); !errors.Is(err, ErrUnreachable) {
				t.Errorf("do gave %v", err)
			}
			if _, err := s.get(QueueDLX, time.Second); !errors.Is(err, ErrUnreachable) {
				t.Errorf("get gave %v", err)
			}
			if _, err := newConfirmer(s, gets); err == nil {
				t.Error("a confirmer started on a closed session")
			}
		}
	})
	t.Run("RingsOutliveABlockedConnection", func(t *testing.T) {
		c := runClient(t, configOf("host1"))
		heard := func(queue string) error {
			for {
				select {
				case got := <-c.Bells():
					if got == queue {
						return nil
					}
				default:
					return errors.New("not heard")
				}
			}
		}
		wait.For(t, 20*time.Second, func() error { // until the listener stands
			c.Ring(t.Context(), "gpuq.job.first")
			return heard("gpuq.job.first")
		})
		s, err := c.publish.current(bounded(t))
		if err != nil {
			t.Fatal(err)
		}
		s.setBlocked(amqp.Blocking{Active: true, Reason: "a test"})
		c.Ring(t.Context(), "gpuq.job.once")
		// Until the ring is seen; it stays unseen where the ringer waits already, over
		// an earlier one.
		for deadline := time.Now().Add(time.Second); len(c.rings.wake) > 0 && time.Now().Before(deadline); {
			sleep(t.Context(), 10*time.Millisecond)
		}
		dropLink(t, c.publish)
		wait.For(t, 20*time.Second, func() error { return heard("gpuq.job.once") })
	})
}

// deleteQueue removes a queue as an operator would.
func deleteQueue(t *testing.T, queue string) {
	t.Helper()
	if _, err := channelOf(t, "admin").QueueDelete(queue, false, false, false); err != nil {
		t.Fatal(err)
	}
}

// A queue that an operator deletes is declared again, whoever misses it first.
//
// RabbitMQ 3.10 answers a declaration that comes right after a deletion now and then
// with 541, or not at all (3 of 330 times here): what is left of the deleted queue's
// members is in its way. That says nothing of the client: the case is played again
// by another client, with another queue.
func TestDeletedQueue(t *testing.T) {
	for name, miss := range map[string]func(c *Client, queue string) error{
		"Depth": func(c *Client, queue string) error {
			_, err := c.Depth(t.Context(), queue)
			return is(err, ErrNoQueue)
		},
		"Take": func(c *Client, queue string) error {
			_, err := c.Take(t.Context(), queue)
			return is(err, ErrNoQueue)
		},
		"Publish": func(c *Client, queue string) error {
			return is(c.Publish(t.Context(), Message{Queue: queue, Body: []byte("lost")}), ErrUnroutable)
		},
	} {
		for _, suffix := range []string{"", againSuffix} {
			t.Run(name+"Misses"+suffix, func(t *testing.T) {
				for try := 1; ; try++ {
					c := runClient(t, configOf("host1"))
					plain := queueOf(t, c, fmt.Sprintf("deleted%s%s%d", name, strings.TrimPrefix(suffix, "."), try))
					look, generation := c.look.generation(), c.Generation()
					deleteQueue(t, plain+suffix)
					if err := miss(c, plain+suffix); err != nil {
						t.Fatal(err)
					}
					err := c.DeclareShape(t.Context(), plain)
					if errors.Is(err, ErrUnreachable) && try < 5 {
						t.Logf("the broker was not ready for it: %v", err)
						continue
					}
					if err != nil {
						t.Fatal(err)
					}
					expectDeclaredAgain(t, c, plain+suffix)
					lost := uint64(0)
					if name == "Take" {
						lost = 1 // a get from a missing queue closes its channel
					}
					if n := c.Generation() - generation; n != lost {
						t.Errorf("the take connection was lost %d times, want %d", n, lost)
					}
					if c.look.generation() != look {
						t.Error("the look connection was lost: the test shows nothing")
					}
					return
				}
			})
		}
	}
}

// is returns nil for an error of the kind that is wanted.
func is(err, want error) error {
	if errors.Is(err, want) {
		return nil
	}
	return fmt.Errorf("got %v, want %v", err, want)
}

// expectDeclaredAgain sends a message through the queue.
func expectDeclaredAgain(t *testing.T, c *Client, queue string) {
	t.Helper()
	publish(t, c, queue, "kept")
	d := takeOne(t, c, queue)
	if err := c.Ack(t.Context(), d.Tag); err != nil || d.MessageID != "kept" {
		t.Errorf("got %+v, %v", d, err)
	}
}
