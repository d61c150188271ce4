package conformance

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"gpuqd/daemon/broker"
	"gpuqd/test/wait"
)

var publishScripts = []script{
	{"EachMessageGetsItsOwnFate", func(t *testing.T, b bench) {
		c, q := b.connect(t, "a"), b.queue(t, "mixed")
		var group errgroup.Group
		for i := range 40 {
			group.Go(func() error {
				if i%2 == 0 {
					return c.Publish(t.Context(), broker.Message{Queue: q, MessageID: fmt.Sprint(i)})
				}
				err := c.Publish(t.Context(), broker.Message{Queue: "gpuq.job.nowhere", MessageID: fmt.Sprint(i)})
				if !errors.Is(err, broker.ErrUnroutable) {
					return fmt.Errorf("a missing queue gave %w", err)
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
		c.wantDepth(t, q, 20)
	}},
	{"LostConnectionLeavesNoFalseConfirm", func(t *testing.T, b bench) {
		c, q := b.connect(t, "a"), b.queue(t, "torn")
		var mu sync.Mutex
		confirmed := map[string]bool{}
		var group errgroup.Group
		for i := range 60 {
			id := fmt.Sprint(i)
			group.Go(func() error {
				err := c.Publish(t.Context(), broker.Message{Queue: q, MessageID: id})
				mu.Lock()
				defer mu.Unlock()
				if confirmed[id] = err == nil; err == nil || errors.Is(err, broker.ErrUnknown) || errors.Is(err, broker.ErrUnreachable) {
					return nil
				}
				return err
			})
			if i == 30 {
				b.drop(t, "a", "publish")
			}
		}
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
		for {
			d, err := c.Take(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if d == nil {
				break
			}
			c.ack(t, d)
			if _, sent := confirmed[d.MessageID]; !sent {
				t.Errorf("%s came twice, or was never sent", d.MessageID)
			}
			delete(confirmed, d.MessageID)
		}
		for id, yes := range confirmed {
			if yes {
				t.Errorf("%s was confirmed and is not there", id)
			}
		}
	}},
	{"AlarmStopsPublishesAndNothingElse", func(t *testing.T, b bench) {
		c, q := b.connect(t, "a"), b.queue(t, "alarm")
		c.publish(t, q, "before", "second")
		held := c.take(t, q, 1)[0]
		b.alarm(t, true)
		// The broker says so when something is published, at the latest.
		during := 0
		wait.For(t, time.Minute, func() error {
			err := c.Publish(t.Context(), broker.Message{Queue: q, MessageID: "during"})
			if !errors.Is(err, broker.ErrBlocked) {
				during++
				return fmt.Errorf("not blocked, but %w", err)
			}
			return nil
		})
		if during > 1 {
			t.Errorf("%d messages were sent under the alarm", during)
		}
		if ok, why := c.Healthy(); ok || !strings.Contains(why, "publish connection") {
			t.Errorf("Healthy says %t, %q", ok, why)
		}
		c.ack(t, held)
		c.ack(t, c.take(t, q, 1)...)
		c.ack(t, c.take(t, q, during)...)
		b.alarm(t, false)
		c.ready(t)
		c.publish(t, q, "after")
		c.wantTaken(t, q, "after")
	}},
	{"RetryComesBackAfterItsStepInOrder", func(t *testing.T, b bench) {
		c, q := b.connect(t, "a"), b.queue(t, "retry")
		var sent []time.Time
		for _, id := range []string{"1", "2"} {
			sent = append(sent, time.Now())
			m := broker.Message{Queue: q, Again: true, AskLedger: true, MessageID: id, Body: []byte("r")}
			if err := c.PublishRetry(t.Context(), time.Second, m); err != nil {
				t.Fatal(err)
			}
			wait.Until(t, "a part of its step is over", func() bool { return time.Since(sent[0]) > 300*time.Millisecond })
		}
		wantWaited := func(since time.Time) {
			t.Helper()
			if took := time.Since(since); took < 900*time.Millisecond || took > 3*time.Second+b.late() {
				t.Errorf("it came back after %s", took)
			}
		}
		d := c.takeSoon(t, q+".again")
		wantWaited(sent[0])
		if d.MessageID != "1" || !d.AskLedger || d.Redelivered || string(d.Body) != "r" || d.UserID != "a" {
			t.Errorf("it came back as %+v", d)
		}
		c.ack(t, d)
		c.wantTaken(t, q+".again", "2")
		wantWaited(sent[1])
		if err := c.PublishRetry(t.Context(), 3*time.Second, broker.Message{Queue: q}); err == nil {
			t.Error("3s, no step of the ladder, was accepted")
		}
	}},
	{"RetryWaitsWhereItsQueueIsMissing", func(t *testing.T, b bench) {
		c, q := b.connect(t, "a"), "gpuq.job.test.normal.g1.absent"
		began := time.Now()
		if err := c.PublishRetry(t.Context(), time.Second, broker.Message{Queue: q, MessageID: "1"}); err != nil {
			t.Fatal(err)
		}
		// Its step counts from somewhere before the confirmation, which may be late.
		confirmed := time.Now()
		wait.Until(t, "its step is over", func() bool { return time.Since(confirmed) > 2*time.Second })
		if err := c.DeclareShape(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		d := c.takeSoon(t, q)
		if took := time.Since(began); took < 3*time.Second || took > 15*time.Second+b.late() {
			t.Errorf("it came after %s", took)
		}
		c.ack(t, d)
	}},
}
