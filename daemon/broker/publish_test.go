package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"gpuqd/test/wait"
)

func TestPublish(t *testing.T) {
	c := runClient(t, configOf("host1"))

	t.Run("ConfirmedMessageIsTakenWithAllItCarried", func(t *testing.T) {
		queue := queueOf(t, c, "carried")
		m := Message{
			Queue: queue, Body: []byte(`{"a":1}`), MessageID: "id-1", AskLedger: true,
			Headers: map[string]any{"gpuq-x": "y", "x-death": "forged", "CC": []any{"gpuq.dead"}},
		}
		if err := c.Publish(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		d := takeOne(t, c, queue)
		if string(d.Body) != `{"a":1}` || d.MessageID != "id-1" || !d.AskLedger || d.Headers["gpuq-x"] != "y" || d.UserID != "host1" {
			t.Errorf("got %+v", d)
		}
		if d.Headers["x-death"] != nil || d.Headers["CC"] != nil {
			t.Errorf("the broker's headers were kept: %v", d.Headers)
		}
		if err := c.Ack(t.Context(), d.Tag); err != nil {
			t.Error(err)
		}
	})
	t.Run("AgainGoesToTheAgainQueue", func(t *testing.T) {
		queue := queueOf(t, c, "republished")
		if err := c.Publish(t.Context(), Message{Queue: queue, Again: true, Body: []byte("a")}); err != nil {
			t.Fatal(err)
		}
		d := takeOne(t, c, queue+".again")
		if err := c.Ack(t.Context(), d.Tag); err != nil {
			t.Error(err)
		}
	})
	t.Run("MissingQueueIsUnroutableThoughConfirmed", func(t *testing.T) {
		// Mixed with good ones on the same channel: each gets its own fate.
		queue := queueOf(t, c, "mixed")
		var group errgroup.Group
		for i := range 200 {
			group.Go(func() error {
				if i%2 == 0 {
					return c.Publish(t.Context(), Message{Queue: queue, Body: []byte("good")})
				}
				err := c.Publish(t.Context(), Message{Queue: "gpuq.job.nowhere", Body: []byte("bad")})
				if !errors.Is(err, ErrUnroutable) {
					return fmt.Errorf("a missing queue gave %v", err)
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
		wantDepth(t, c, queue, 100)
	})
	t.Run("ThousandAtOnceAreAllConfirmed", func(t *testing.T) {
		queue := queueOf(t, c, "thousand")
		var group errgroup.Group
		began := time.Now()
		for i := range 1000 {
			group.Go(func() error {
				return c.Publish(t.Context(), Message{Queue: queue, Body: []byte("x"), MessageID: fmt.Sprint(i)})
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		t.Logf("1000 messages confirmed in %s", time.Since(began))
		wantDepth(t, c, queue, 1000)
	})
	t.Run("LostConnectionLeavesNoFalseConfirm", func(t *testing.T) {
		queue := queueOf(t, c, "torn")
		var mu sync.Mutex
		confirmed := map[string]bool{}
		var group errgroup.Group
		for i := range 300 {
			id := fmt.Sprint(i)
			group.Go(func() error {
				err := c.Publish(t.Context(), Message{Queue: queue, Body: []byte("x"), MessageID: id})
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					confirmed[id] = true
				} else if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrUnreachable) {
					return err
				}
				return nil
			})
			if i == 150 {
				dropLink(t, c.publish)
			}
		}
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
		for len(confirmed) > 0 {
			d := takeOne(t, c, queue) // fails where none is left
			delete(confirmed, d.MessageID)
			if err := c.Ack(t.Context(), d.Tag); err != nil && !errors.Is(err, ErrStaleTag) {
				t.Fatal(err)
			}
		}
	})
	t.Run("ContextEndIsUnreachableBeforeRun", func(t *testing.T) {
		idle := New(configOf("host1"))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		err := idle.Publish(ctx, Message{Queue: "gpuq.job.x"})
		if !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// wantDepth waits until a queue holds n ready messages.
func wantDepth(t *testing.T, c *Client, queue string, n int) {
	t.Helper()
	wait.For(t, 20*time.Second, func() error {
		got, err := c.Depth(t.Context(), queue)
		if err == nil && got != n {
			err = fmt.Errorf("%s holds %d messages, want %d", queue, got, n)
		}
		return err
	})
}

// dropLink breaks a link's connection as a cut network would.
func dropLink(t *testing.T, l *link) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := l.current(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.raw.Close()
	select {
	case <-s.gone:
	case <-ctx.Done():
		t.Fatal("the cut was not noticed")
	}
}

func TestRetryLadder(t *testing.T) {
	for _, c := range []struct{ want, step time.Duration }{
		{0, time.Second},
		{-time.Second, time.Second},
		{time.Second, time.Second},
		{1001 * time.Millisecond, 2 * time.Second},
		{31 * time.Second, time.Minute},
		{time.Hour, time.Hour},
		{30 * time.Hour, time.Hour},
	} {
		if got := RetryStep(c.want); got != c.step {
			t.Errorf("RetryStep(%s) is %s, want %s", c.want, got, c.step)
		}
	}
	names := map[string]bool{}
	for _, step := range RetryLadder {
		names[RetryQueue(step)] = true
	}
	for _, name := range []string{"gpuq.retry.1s", "gpuq.retry.30s", "gpuq.retry.1m", "gpuq.retry.10m", "gpuq.retry.1h"} {
		if !names[name] {
			t.Errorf("no retry queue is called %s: %v", name, names)
		}
	}
}

func TestRetry(t *testing.T) {
	c := runClient(t, configOf("host1"))

	t.Run("MessageComesBackAndXDeathDoesNotGrow", func(t *testing.T) {
		queue := queueOf(t, c, "retry")
		headers := map[string]any{"gpuq-x": "y"}
		for range 3 {
			began := time.Now()
			if err := c.PublishRetry(t.Context(), time.Second, Message{Queue: queue, Body: []byte("r"), MessageID: "r", Headers: headers}); err != nil {
				t.Fatal(err)
			}
			d := takeOne(t, c, queue)
			if waited := time.Since(began); waited < 900*time.Millisecond {
				t.Errorf("it came back after %s", waited)
			}
			if deaths, _ := d.Headers["x-death"].([]any); len(deaths) != 1 || d.Headers["gpuq-x"] != "y" {
				t.Errorf("headers are %v, want one death and ours", d.Headers)
			}
			headers = d.Headers // as a daemon does that publishes it again
			if err := c.Ack(t.Context(), d.Tag); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("MessageWaitsWhereItsQueueIsMissingAndIsNotLost", func(t *testing.T) {
		queue := "gpuq.job.test.normal.g1.late"
		if err := c.PublishRetry(t.Context(), time.Second, Message{Queue: queue, Body: []byte("l")}); err != nil {
			t.Fatal(err)
		}
		sleep(t.Context(), 2*time.Second) // past its TTL: the queue must be missing then
		queueOf(t, c, "late")
		d := takeOne(t, c, queue)
		if err := c.Ack(t.Context(), d.Tag); err != nil {
			t.Error(err)
		}
	})
	t.Run("StepOffTheLadderIsRefused", func(t *testing.T) {
		if err := c.PublishRetry(t.Context(), 3*time.Second, Message{Queue: "gpuq.job.x"}); err == nil {
			t.Error("3s was accepted")
		}
	})
}
