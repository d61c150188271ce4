package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/test/wait"
)

// heard waits until a client has heard a bell that is rung again and again.
func heard(t *testing.T, from, to *client, queue string) {
	t.Helper()
	wait.For(t, 20*time.Second, func() error {
		from.Ring(t.Context(), queue)
		for {
			select {
			case got := <-to.Bells():
				if got == queue {
					return nil
				}
			default:
				return fmt.Errorf("%s did not hear %s of %s", to.host, queue, from.host)
			}
		}
	})
}

// seen collects what a consumer's handler saw.
type seen chan string

func (s seen) want(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-s:
		if got != want {
			t.Errorf("handled %q, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("%q was not handled", want)
	}
}

func (s seen) wantNothing(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case got := <-s:
		t.Errorf("handled %q", got)
	case <-time.After(d):
	}
}

var consumeScripts = []script{
	{"BellsAreHeardByAll", func(t *testing.T, b bench) {
		one, two := b.connect(t, "a"), b.connect(t, "b")
		heard(t, one, two, "gpuq.job.bell.1")
		heard(t, one, one, "gpuq.job.bell.2")
		b.drop(t, "b", "look")
		heard(t, one, two, "gpuq.job.bell.3")
		b.drop(t, "a", "publish")
		heard(t, one, two, "gpuq.job.bell.4")
	}},
	{"DeadLettersArriveWithTheirReason", func(t *testing.T, b bench) {
		c, q := b.connect(t, "a"), b.queue(t, "dead")
		got := make(seen, 10)
		first := true
		background(t, func(ctx context.Context) error {
			return c.ConsumeDead(ctx, func(_ context.Context, d *broker.Delivery) broker.Verdict {
				got <- fmt.Sprint(d.Queue, " ", d.MessageID, " ", d.DeadReason, " ", d.DeadSource, " ", d.UserID, " ", d.Redelivered)
				if d.MessageID == "twice" && first {
					first = false
					return broker.Requeue(100 * time.Millisecond)
				}
				return broker.Done
			})
		})
		set := func(id string) {
			dead := broker.DeadLetter{Body: []byte("bad"), MessageID: id, Reason: "not JSON", Source: "gpuq.submit", UserID: "alice"}
			if err := c.PublishDead(t.Context(), dead); err != nil {
				t.Error(err)
			}
		}
		set("once")
		got.want(t, "gpuq.dead once not JSON gpuq.submit alice false")
		set("twice")
		got.want(t, "gpuq.dead twice not JSON gpuq.submit alice false")
		got.want(t, "gpuq.dead twice not JSON gpuq.submit alice true")
		c.publish(t, q, "rejected")
		if err := c.Nack(t.Context(), c.take(t, q, 1)[0].Tag, false); err != nil {
			t.Error(err)
		}
		got.want(t, "gpuq.dlx rejected rejected "+q+" a false")
		got.wantNothing(t, 200*time.Millisecond) // and its ack is out
		b.drop(t, "a", "look")
		set("late")
		got.want(t, "gpuq.dead late not JSON gpuq.submit alice false")
		got.wantNothing(t, 200*time.Millisecond)
	}},
	{"SubmissionIsAnswered", func(t *testing.T, b bench) {
		c := b.connect(t, "a")
		stop := background(t, func(ctx context.Context) error { return c.ConsumeSubmit(ctx, 4, echo(c)) })
		for _, duty := range []string{"", "look", "reply"} {
			if duty != "" {
				b.drop(t, "a", duty)
			}
			wait.For(t, time.Minute, func() error { // a reply can get lost: the user asks again
				reply, err := b.submit(within(t, 2*time.Second), "job")
				if err == nil && reply != "a answers alice: job" {
					err = fmt.Errorf("got %q", reply)
				}
				return err
			})
		}
		stop()
		_, err := b.submit(within(t, 500*time.Millisecond), "left")
		if !errors.Is(err, broker.ErrNoReply) {
			t.Errorf("with nobody there it gave %v", err)
		}
		background(t, func(ctx context.Context) error { return c.ConsumeSubmit(ctx, 4, echo(c)) })
		c.wantDepth(t, broker.QueueSubmit, 0)
	}},
	{"PausedIntakeGivesBackAndLeavesJobsToOthers", func(t *testing.T, b bench) {
		one, two := b.connect(t, "a"), b.connect(t, "b")
		handling, release := make(seen, 10), make(chan bool)
		background(t, func(ctx context.Context) error {
			return one.ConsumeSubmit(ctx, 1, func(ctx context.Context, d *broker.Delivery) broker.Verdict {
				handling <- string(d.Body)
				<-release
				return echo(one)(ctx, d)
			})
		})
		answers := make(seen, 10)
		ask := func(body string) {
			go func() {
				reply, err := b.submit(within(t, 30*time.Second), body)
				answers <- fmt.Sprint(reply, err)
			}()
		}
		ask("first")
		handling.want(t, "first")
		one.PauseSubmit()
		ask("second")
		one.wantDepth(t, broker.QueueSubmit, 1)
		handling.wantNothing(t, 200*time.Millisecond)
		background(t, func(ctx context.Context) error { return two.ConsumeSubmit(ctx, 4, echo(two)) })
		answers.want(t, "b answers alice: second<nil>")
		close(release) // what was under way is finished
		answers.want(t, "a answers alice: first<nil>")
		two.PauseSubmit()
		two.PauseSubmit()
		wait.For(t, 20*time.Second, func() error { // the consumer is cancelled in its own time
			if _, err := b.submit(within(t, 300*time.Millisecond), "early"); !errors.Is(err, broker.ErrNoReply) {
				return fmt.Errorf("a paused intake gave %w", err)
			}
			return nil
		})
		one.ResumeSubmit()
		ask("third")
		answers.want(t, "a answers alice: third<nil>")
	}},
	{"RequeuedSubmissionIsRedelivered", func(t *testing.T, b bench) {
		c := b.connect(t, "a")
		got := make(seen, 10)
		stop := background(t, func(ctx context.Context) error {
			return c.ConsumeSubmit(ctx, 2, func(ctx context.Context, d *broker.Delivery) broker.Verdict {
				got <- fmt.Sprint(string(d.Body), " ", d.Redelivered)
				if !d.Redelivered {
					return broker.Requeue(10 * time.Millisecond)
				}
				return echo(c)(ctx, d)
			})
		})
		if reply, err := b.submit(within(t, 20*time.Second), "job"); err != nil || reply != "a answers alice: job" {
			t.Errorf("got %q, %v", reply, err)
		}
		got.want(t, "job false")
		got.want(t, "job true")
		stop()
		// What a lost connection held comes back, too: the verdict goes nowhere.
		release := make(chan bool)
		background(t, func(ctx context.Context) error {
			return c.ConsumeSubmit(ctx, 1, func(context.Context, *broker.Delivery) broker.Verdict {
				got <- "again"
				<-release
				return broker.Done
			})
		})
		if _, err := b.submit(within(t, 500*time.Millisecond), "held"); !errors.Is(err, broker.ErrNoReply) {
			t.Errorf("got %v", err)
		}
		got.want(t, "again")
		b.drop(t, "a", "look")
		c.wantDepth(t, broker.QueueSubmit, 1)
		close(release)
		got.want(t, "again")
		c.wantDepth(t, broker.QueueSubmit, 0)
	}},
	{"AsManyAreHandledAtOnceAsThereAreWorkers", func(t *testing.T, b bench) {
		c := b.connect(t, "a")
		handling, release := make(seen, 10), make(chan bool)
		background(t, func(ctx context.Context) error {
			return c.ConsumeSubmit(ctx, 2, func(context.Context, *broker.Delivery) broker.Verdict {
				handling <- "one"
				<-release
				return broker.Done
			})
		})
		for range 3 {
			if _, err := b.submit(within(t, 200*time.Millisecond), "job"); !errors.Is(err, broker.ErrNoReply) {
				t.Errorf("got %v", err)
			}
		}
		handling.want(t, "one")
		handling.want(t, "one")
		handling.wantNothing(t, 100*time.Millisecond)
		c.wantDepth(t, broker.QueueSubmit, 1)
		close(release)
		handling.want(t, "one")
		c.wantDepth(t, broker.QueueSubmit, 0)
	}},
	{"RejectedSubmissionFallsIntoTheNet", func(t *testing.T, b bench) {
		c := b.connect(t, "a")
		got := make(seen, 10)
		background(t, func(ctx context.Context) error {
			return c.ConsumeSubmit(ctx, 2, func(context.Context, *broker.Delivery) broker.Verdict { return broker.Reject })
		})
		background(t, func(ctx context.Context) error {
			return c.ConsumeDead(ctx, func(_ context.Context, d *broker.Delivery) broker.Verdict {
				got <- fmt.Sprint(d.Queue, " ", string(d.Body), " ", d.DeadReason, " ", d.DeadSource)
				return broker.Done
			})
		})
		if _, err := b.submit(within(t, 500*time.Millisecond), "bad"); !errors.Is(err, broker.ErrNoReply) {
			t.Errorf("got %v", err)
		}
		got.want(t, "gpuq.dlx bad rejected gpuq.submit")
	}},
}

var requestScripts = []script{
	{"RequestReachesItsHost", func(t *testing.T, b bench) {
		one, two := b.connect(t, "a"), b.connect(t, "b")
		ask := func(key string) (string, error) {
			reply, err := one.Request(within(t, 20*time.Second), broker.ExchangeControl, key, []byte("ping"), nil)
			return string(reply), err
		}
		if _, err := ask(broker.HostKey("b")); !errors.Is(err, broker.ErrNoHost) {
			t.Errorf("a host that does not listen gave %v", err)
		}
		stop := background(t, func(ctx context.Context) error { return two.ConsumeControl(ctx, 2, echo(two)) })
		wait.For(t, 20*time.Second, func() error { // until its consumer stands
			reply, err := ask(broker.HostKey("b"))
			if err == nil && reply != "b answers a: ping" {
				err = fmt.Errorf("got %q", reply)
			}
			return err
		})
		background(t, func(ctx context.Context) error { return one.ConsumeControl(ctx, 2, echo(one)) })
		reply, err := ask(broker.KeyAny)
		if !slices.Contains([]string{"a answers a: ping", "b answers a: ping"}, reply) {
			t.Errorf("anybody gave %q, %v", reply, err)
		}
		b.drop(t, "b", "look")
		wait.For(t, 20*time.Second, func() error { _, err := ask(broker.HostKey("b")); return err })
		stop()
		wait.For(t, 20*time.Second, func() error {
			if _, err := ask(broker.HostKey("b")); !errors.Is(err, broker.ErrNoHost) {
				return fmt.Errorf("a host that is gone gave %w", err)
			}
			return nil
		})
	}},
	{"UnansweredRequestIsSaid", func(t *testing.T, b bench) {
		one, two := b.connect(t, "a"), b.connect(t, "b")
		background(t, func(ctx context.Context) error {
			return two.ConsumeControl(ctx, 2, func(context.Context, *broker.Delivery) broker.Verdict { return broker.Done })
		})
		wait.For(t, 20*time.Second, func() error {
			_, err := one.Request(within(t, 300*time.Millisecond), broker.ExchangeControl, broker.HostKey("b"), []byte("x"), nil)
			if !errors.Is(err, broker.ErrNoReply) {
				return fmt.Errorf("got %w", err)
			}
			return nil
		})
		if err := one.Reply(t.Context(), &broker.Delivery{}, []byte("x")); err != nil {
			t.Errorf("a reply that nobody wants gave %v", err)
		}
		if err := one.Reply(t.Context(), &broker.Delivery{ReplyTo: "gpuq.submit"}, []byte("x")); err != nil {
			t.Errorf("a reply elsewhere gave %v", err)
		}
		one.wantDepth(t, broker.QueueSubmit, 0)
	}},
}
