package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"gpuqd/test/wait"
)

// inBackground runs a consumer until the test ends.
func inBackground(t *testing.T, consume func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := consume(ctx); err != nil {
			t.Errorf("consume: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// echo answers each request with the host, the user and the body.
func echo(c *Client) Handler {
	return func(ctx context.Context, d *Delivery) Verdict {
		if err := c.Reply(ctx, d, fmt.Appendf(nil, "%s answers %s: %s", c.cfg.Host, d.UserID, d.Body)); err != nil {
			return Requeue(100 * time.Millisecond)
		}
		return Done
	}
}

func requesterOf(t *testing.T, user string) *Requester {
	t.Helper()
	r, err := DialRequester(t.Context(), configOf(user))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func TestSubmit(t *testing.T) {
	c := runClient(t, configOf("host1"))
	inBackground(t, func(ctx context.Context) error { return c.ConsumeSubmit(ctx, 4, echo(c)) })
	r := requesterOf(t, "alice")

	t.Run("UserGetsTheReply", func(t *testing.T) {
		reply, err := r.Submit(bounded(t), []byte("job"))
		if err != nil || string(reply) != "host1 answers alice: job" {
			t.Errorf("got %q, %v", reply, err)
		}
	})
	t.Run("IntakeSurvivesALostConnection", func(t *testing.T) {
		dropLink(t, c.look)
		dropLink(t, c.publish)
		reply, err := r.Submit(bounded(t), []byte("job"))
		if err != nil || string(reply) != "host1 answers alice: job" {
			t.Errorf("got %q, %v", reply, err)
		}
	})
	t.Run("PausedIntakeLeavesJobsToOthers", func(t *testing.T) {
		c.PauseSubmit()
		// The consumer is cancelled in its own time; then the queue keeps what comes.
		answered := make(chan error, 1)
		wait.For(t, 20*time.Second, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if _, err := r.Submit(ctx, []byte("early")); !errors.Is(err, ErrNoReply) {
				return fmt.Errorf("a paused intake gave %v", err)
			}
			return nil
		})
		go func() {
			_, err := r.Submit(bounded(t), []byte("waits"))
			answered <- err
		}()
		wait.For(t, 10*time.Second, func() error {
			if n, err := c.Depth(t.Context(), QueueSubmit); err != nil || n < 2 {
				return fmt.Errorf("%d wait (%v)", n, err)
			}
			return nil
		})
		c.ResumeSubmit()
		if err := <-answered; err != nil {
			t.Error(err)
		}
	})
	t.Run("RequeuedMessageComesAgain", func(t *testing.T) {
		// Through a client of its own account, on a queue that only it consumes.
		var mu sync.Mutex
		seen := 0
		inBackground(t, func(ctx context.Context) error {
			return c.ConsumeDead(ctx, func(_ context.Context, d *Delivery) Verdict {
				mu.Lock()
				defer mu.Unlock()
				if seen++; seen < 3 {
					return Requeue(10 * time.Millisecond)
				}
				if d.DeadReason != "not JSON" || d.DeadSource != QueueSubmit || d.UserID != "alice" || string(d.Body) != "bad" {
					t.Errorf("got %+v", d)
				}
				return Done
			})
		})
		dead := DeadLetter{Body: []byte("bad"), Reason: "not JSON", Source: QueueSubmit, UserID: "alice"}
		if err := c.PublishDead(t.Context(), dead); err != nil {
			t.Fatal(err)
		}
		wait.For(t, 20*time.Second, func() error {
			mu.Lock()
			defer mu.Unlock()
			if seen != 3 {
				return fmt.Errorf("seen %d times", seen)
			}
			return nil
		})
		wantDepth(t, c, QueueDead, 0)
	})
}

func TestControl(t *testing.T) {
	one, two := runClient(t, configOf("host1")), runClient(t, configOf("host2"))
	for _, c := range []*Client{one, two} {
		inBackground(t, func(ctx context.Context) error { return c.ConsumeControl(ctx, 2, echo(c)) })
	}
	r := requesterOf(t, "alice")

	t.Run("NamedHostAnswers", func(t *testing.T) {
		for _, host := range []string{"host1", "host2"} {
			want := host + " answers alice: ping"
			wait.For(t, 20*time.Second, func() error { // until its consumer stands
				reply, err := r.Ask(bounded(t), host, []byte("ping"))
				if err == nil && string(reply) != want {
					err = fmt.Errorf("got %q, want %q", reply, want)
				}
				return err
			})
		}
	})
	t.Run("AnyHostAnswersWhereNoneIsNamed", func(t *testing.T) {
		reply, err := r.Ask(bounded(t), "", []byte("ping"))
		if err != nil || !slices.Contains([]string{"host1 answers alice: ping", "host2 answers alice: ping"}, string(reply)) {
			t.Errorf("got %q, %v", reply, err)
		}
	})
	t.Run("AbsentHostIsSaidAtOnce", func(t *testing.T) {
		if _, err := r.Ask(bounded(t), "nobody", []byte("ping")); !errors.Is(err, ErrNoHost) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("DaemonForwardsToAnother", func(t *testing.T) {
		reply, err := one.Request(bounded(t), ExchangeControl, HostKey("host2"), []byte("fwd"), nil)
		if err != nil || string(reply) != "host2 answers host1: fwd" {
			t.Errorf("got %q, %v", reply, err)
		}
	})
	t.Run("RequesterDialsAgainAfterALostConnection", func(t *testing.T) {
		_ = r.s.raw.Close()
		wait.For(t, 20*time.Second, func() error {
			_, err := r.Ask(bounded(t), "host1", []byte("ping"))
			return err
		})
	})
	t.Run("ReplyToAGoneRequesterHarmsNothing", func(t *testing.T) {
		asked := make(chan *Delivery, 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() {
			done <- one.ConsumeSubmit(ctx, 1, func(_ context.Context, d *Delivery) Verdict {
				asked <- d
				return Done
			})
		}()
		gone := requesterOf(t, "bob")
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := gone.Submit(short, []byte("x")); !errors.Is(err, ErrNoReply) {
			t.Fatalf("an unanswered request gave %v", err)
		}
		gone.Close()
		if err := one.Reply(t.Context(), <-asked, []byte("late")); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := r.Ask(bounded(t), "host1", []byte("x")); err != nil {
			t.Error(err)
		}
		if ok, why := one.Healthy(); !ok {
			t.Error(why)
		}
	})
	t.Run("ForgedReplyToReachesNoQueueAndStopsNoPublishing", func(t *testing.T) {
		queue := queueOf(t, one, "forged")
		publishing, err := one.publish.current(bounded(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, forged := range []string{
			queue, QueueSubmit,
			replyQueue + ".AAAAAAAA.AAAAAAAA",
			replyQueue + ".g1h2AA5yZXBseUAxMjM0NTY3OAAAAAAAAAAAAAAAAA==.AAAAAAAA",
		} {
			if err := one.Reply(bounded(t), &Delivery{ReplyTo: forged}, []byte("x")); err != nil && !errors.Is(err, ErrUnreachable) {
				t.Errorf("reply to %s: %v", forged, err)
			}
		}
		publish(t, one, queue, "mine")
		if d := takeOne(t, one, queue); d.MessageID != "mine" {
			t.Errorf("a forged reply-to put %q into a job queue", d.Body)
		}
		if publishing.isGone() {
			t.Error("a forged reply-to cost the publish connection")
		}
		wait.For(t, 20*time.Second, func() error { // replies come back by themselves
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := r.Ask(ctx, "host1", []byte("x"))
			return err
		})
	})
}

// bounded returns a context for one call.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestBells(t *testing.T) {
	one, two := runClient(t, configOf("host1")), runClient(t, configOf("host2"))
	heard := func(c *Client, queue string) error {
		for {
			select {
			case got := <-c.Bells():
				if got == queue {
					return nil
				}
			default:
				return fmt.Errorf("%s did not hear %s", c.cfg.Host, queue)
			}
		}
	}
	for i, c := range []*Client{one, two} {
		queue := fmt.Sprintf("gpuq.job.bell.%d", i)
		for _, listener := range []*Client{one, two} {
			wait.For(t, 20*time.Second, func() error {
				c.Ring(t.Context(), queue)
				return heard(listener, queue)
			})
		}
	}
	dropLink(t, two.look)
	wait.For(t, 20*time.Second, func() error {
		one.Ring(t.Context(), "gpuq.job.bell.again")
		return heard(two, "gpuq.job.bell.again")
	})
}
