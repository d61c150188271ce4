package conformance

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/test/wait"
)

// script is one scenario. It uses queues of its own and leaves the broker whole.
type script struct {
	name string
	run  func(t *testing.T, b bench)
}

var scripts = slices.Concat(takeScripts, lossScripts, leaderScripts, publishScripts, consumeScripts, requestScripts)

var takeScripts = []script{
	{"QueueIsInOrderAndAckRemoves", func(t *testing.T, b bench) {
		c, q := b.connect(t, "a"), b.queue(t, "order")
		c.publish(t, q, "1", "2", "3")
		if err := c.Publish(t.Context(), broker.Message{
			Queue: q, Again: true, AskLedger: true, MessageID: "4", Body: []byte("4"),
			Headers: map[string]any{"gpuq-x": "y", "x-death": "forged", "CC": []any{"gpuq.dead"}},
		}); err != nil {
			t.Fatal(err)
		}
		if err := c.DeclareShape(t.Context(), q); err != nil {
			t.Error(err)
		}
		again := c.take(t, q+".again", 1)[0]
		if !again.AskLedger || again.Headers["gpuq-x"] != "y" || again.Headers["x-death"] != nil || again.Headers["CC"] != nil ||
			string(again.Body) != "4" || again.UserID != "a" || again.Queue != q+".again" || again.Tag.Delivery != 1 {
			t.Errorf("got %+v", again)
		}
		c.ack(t, again)
		first := c.take(t, q, 1)[0]
		if first.AskLedger || first.Redelivered || first.MessageID != "1" || first.Tag.Delivery != 2 {
			t.Errorf("got %+v", first)
		}
		c.wantDepth(t, q, 2)
		c.ack(t, first)
		if err := c.Ack(t.Context(), first.Tag); !errors.Is(err, broker.ErrStaleTag) {
			t.Errorf("a second ack gave %v", err)
		}
		c.wantTaken(t, q, "2", "3")
	}},
	{"NackedMessagesComeFirstInTheOrderOfTheirReturn", func(t *testing.T, b bench) {
		c, q := b.connect(t, "a"), b.queue(t, "nacked")
		c.publish(t, q, "0", "1", "2", "3", "4", "5")
		list := c.take(t, q, 4)
		for _, i := range []int{2, 0, 3, 1} {
			if err := c.Nack(t.Context(), list[i].Tag, true); err != nil {
				t.Error(err)
			}
		}
		c.wantTaken(t, q, "2r", "0r", "3r", "1r", "4", "5")
		if err := c.Nack(t.Context(), list[0].Tag, true); !errors.Is(err, broker.ErrStaleTag) {
			t.Errorf("a nack after a nack gave %v", err)
		}
	}},
	{"MissingQueueIsSaid", func(t *testing.T, b bench) {
		c := b.connect(t, "a")
		if _, err := c.Depth(t.Context(), "gpuq.job.none"); !errors.Is(err, broker.ErrNoQueue) {
			t.Errorf("Depth gave %v", err)
		}
		err := c.Publish(t.Context(), broker.Message{Queue: "gpuq.job.none", MessageID: "x"})
		if !errors.Is(err, broker.ErrUnroutable) {
			t.Errorf("Publish gave %v", err)
		}
		q := b.queue(t, "missing")
		c.publish(t, q, "1", "2")
		held := c.take(t, q, 1)[0]
		if _, err := c.Take(t.Context(), "gpuq.none"); !errors.Is(err, broker.ErrNoQueue) {
			t.Errorf("Take gave %v", err)
		}
		// It cost the connection, and with it the delivery.
		if err := c.Ack(t.Context(), held.Tag); !errors.Is(err, broker.ErrStaleTag) {
			t.Errorf("an ack then gave %v", err)
		}
		c.wantTaken(t, q, "1r", "2")
	}},
	{"DeletedQueueIsDeclaredAgain", func(t *testing.T, b bench) {
		c := b.connect(t, "a")
		for i, miss := range []func(q string) error{
			func(q string) error { _, err := c.Depth(t.Context(), q); return err },
			func(q string) error { _, err := c.Take(t.Context(), q); return err },
			func(q string) error { return c.Publish(t.Context(), broker.Message{Queue: q}) },
		} {
			q := b.queue(t, fmt.Sprint("deleted", i))
			if err := c.DeclareShape(t.Context(), q); err != nil {
				t.Fatal(err)
			}
			c.publish(t, q, "lost")
			b.remove(t, q)
			if err := miss(q); !errors.Is(err, broker.ErrNoQueue) && !errors.Is(err, broker.ErrUnroutable) {
				t.Errorf("case %d: a deleted queue gave %v", i, err)
			}
			// Until all nodes know that it is gone, a declare can end in 541.
			wait.For(t, 30*time.Second, func() error { return c.DeclareShape(t.Context(), q) })
			c.publish(t, q, "kept")
			if d := c.takeSoon(t, q); d.MessageID != "kept" {
				t.Errorf("got %s", d.MessageID)
			}
		}
	}},
}

var lossScripts = []script{
	{"LostConnectionReturnsAllAndEndsItsGeneration", func(t *testing.T, b bench) {
		c, q := b.connect(t, "a"), b.queue(t, "lost")
		ids := make([]string, 14)
		for i := range ids {
			ids[i] = fmt.Sprint(i)
		}
		c.publish(t, q, ids...)
		held := c.take(t, q, 12)
		c.ack(t, held[3])
		b.drop(t, "a", "take")
		c.wantDepth(t, q, 13)
		// Its numbers start anew: this one has the number of an old delivery.
		first := c.takeSoon(t, q)
		if first.Tag.Generation != held[0].Tag.Generation+1 || first.Tag.Delivery != 1 {
			t.Fatalf("the new connection's first delivery is %+v after %+v", first.Tag, held[0].Tag)
		}
		for _, tag := range []broker.Tag{
			held[0].Tag, held[3].Tag, held[11].Tag, {}, {Generation: first.Tag.Generation, Delivery: 99},
		} {
			if err := c.Ack(t.Context(), tag); !errors.Is(err, broker.ErrStaleTag) {
				t.Errorf("ack of %+v gave %v", tag, err)
			}
		}
		// What was held comes first, in any order; then the rest.
		list := append([]*broker.Delivery{first}, c.take(t, q, 12)...)
		got := names(list)
		slices.Sort(got[:11])
		want := []string{"0r", "10r", "11r", "1r", "2r", "4r", "5r", "6r", "7r", "8r", "9r", "12", "13"}
		if !slices.Equal(got, want) {
			t.Errorf("took %v, want %v", got, want)
		}
		c.ack(t, list...)
		c.wantTaken(t, q)
	}},
	{"OtherConnectionsCostNoDelivery", func(t *testing.T, b bench) {
		c, q := b.connect(t, "a"), b.queue(t, "others")
		c.publish(t, q, "1")
		held := c.take(t, q, 1)[0]
		for _, duty := range []string{"look", "publish", "reply"} {
			b.drop(t, "a", duty)
		}
		c.ready(t)
		c.wantDepth(t, q, 0)
		c.ack(t, held)
		c.publish(t, q, "2")
		c.wantTaken(t, q, "2")
	}},
	{"StoppedClientLeavesItsMessagesToOthers", func(t *testing.T, b bench) {
		one, two, q := b.connect(t, "a"), b.connect(t, "b"), b.queue(t, "stopped")
		one.publish(t, q, "1", "2")
		one.ack(t, one.take(t, q, 1)...)
		one.take(t, q, 1)
		one.stop()
		two.wantTaken(t, q, "2r")
		if err := one.Publish(t.Context(), broker.Message{Queue: q}); !errors.Is(err, broker.ErrUnreachable) {
			t.Errorf("a stopped client's publish gave %v", err)
		}
	}},
	// Each end notices by itself: the client first, within 1.5 heartbeats, the
	// server after 2 to 3.
	{"CutWireIsNoticedByHeartbeats", func(t *testing.T, b bench) {
		one, two, q := b.connect(t, "a"), b.connect(t, "b"), b.queue(t, "cut")
		one.publish(t, q, "1")
		held := one.take(t, q, 1)[0]
		began := time.Now()
		b.cut(t, "a")
		wait.For(t, time.Minute, func() error {
			if ok, _ := one.Healthy(); ok {
				return errors.New("it believes to be connected")
			}
			return nil
		})
		if took := time.Since(began); took < heartbeat/2 || took > 2*heartbeat+b.late() {
			t.Errorf("the client noticed after %s", took)
		}
		wait.For(t, time.Minute, func() error {
			if err := one.Ack(t.Context(), held.Tag); !errors.Is(err, broker.ErrStaleTag) {
				return fmt.Errorf("an ack then gave %w", err)
			}
			return nil
		})
		wait.For(t, time.Minute, func() error {
			if err := one.Publish(t.Context(), broker.Message{Queue: q}); !errors.Is(err, broker.ErrUnreachable) {
				return fmt.Errorf("a publish then gave %w", err)
			}
			return nil
		})
		if d := two.takeSoon(t, q); !d.Redelivered {
			t.Error("the other did not get it as redelivered")
		}
		if took := time.Since(began); took < 2*heartbeat-500*time.Millisecond || took > 4*heartbeat+b.late() {
			t.Errorf("the server noticed after %s", took)
		}
		b.mend(t, "a")
		one.ready(t)
		one.publish(t, q, "2")
		one.wantTaken(t, q, "2")
	}},
	{"ShortCutCostsNothing", func(t *testing.T, b bench) {
		c, q := b.connect(t, "a"), b.queue(t, "short")
		c.publish(t, q, "1")
		held := c.take(t, q, 1)[0]
		b.cut(t, "a")
		time.AfterFunc(heartbeat/4, func() { b.mend(t, "a") })
		if wait.For(t, time.Minute, func() error { _, err := c.Depth(t.Context(), q); return err }); t.Failed() {
			return
		}
		wait.For(t, time.Minute, func() error { return c.Ack(t.Context(), held.Tag) })
	}},
	{"DeliveryHeldTooLongClosesItsConnection", func(t *testing.T, b bench) {
		b.setConsumerTimeout(t, time.Second)
		defer b.setConsumerTimeout(t, 0)
		c, q := b.connect(t, "a"), b.queue(t, "overdue")
		c.publish(t, q, "1")
		held := c.take(t, q, 1)[0]
		c.wantDepth(t, q, 1)
		wait.For(t, time.Minute, func() error {
			if err := c.Ack(t.Context(), held.Tag); !errors.Is(err, broker.ErrStaleTag) {
				return fmt.Errorf("an ack of it gave %w", err)
			}
			return nil
		})
		d := c.takeSoon(t, q)
		if !d.Redelivered || d.Tag.Generation != held.Tag.Generation+1 {
			t.Errorf("then took %+v", d)
		}
		c.ack(t, d)
	}},
	{"RestartOfAllKeepsWhatWasConfirmed", func(t *testing.T, b bench) {
		c, q := b.connect(t, "a"), b.queue(t, "restart")
		c.publish(t, q, "1", "2", "3")
		if err := c.PublishRetry(t.Context(), time.Second, broker.Message{Queue: q, Again: true, MessageID: "4"}); err != nil {
			t.Error(err)
		}
		c.ack(t, c.take(t, q, 2)[0])
		c.take(t, q, 1) // after the ack, on the same channel: the broker has it
		b.restart(t)
		c.wantSoon(t, q, "2", "3")
		c.wantSoon(t, q+".again", "4")
		c.ready(t)
	}},
}
