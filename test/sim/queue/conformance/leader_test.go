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

// wantSoon takes and acks messages until it has seen all that are wanted, each
// at least once. Those that gets took along which nobody heard any more come
// late.
func (c *client) wantSoon(t *testing.T, queue string, want ...string) {
	t.Helper()
	for len(want) > 0 {
		d := c.takeSoon(t, queue)
		if i := slices.Index(want, d.MessageID); i >= 0 {
			want = slices.Delete(want, i, i+1)
		} else {
			t.Fatalf("took %s, want %v", d.MessageID, want)
		}
		c.ack(t, d)
	}
}

var leaderScripts = []script{
	{"FrozenLeaderBlocksGetsUntilTheirConnectionIsClosed", func(t *testing.T, b bench) {
		c, q := b.connect(t, "a"), b.queue(t, "frozen")
		other := b.queue(t, "held")
		c.publish(t, q, "1", "2")
		c.publish(t, other, "held")
		held := c.take(t, other, 1)[0]
		b.freeze(t, q)
		began := time.Now()
		if n, err := c.Depth(t.Context(), q); n != 0 || err != nil {
			t.Errorf("Depth gave %d, %v; want 0 without error", n, err)
		}
		_, err := c.Take(t.Context(), q)
		if took := time.Since(began); !errors.Is(err, broker.ErrTakeTimeout) || took < takeTimeout || took > takeTimeout+time.Second+b.late() {
			t.Errorf("Take gave %v after %s", err, took)
		}
		b.thaw(t, q)
		// Its deliveries of other queues went with the connection.
		if err := c.Ack(t.Context(), held.Tag); !errors.Is(err, broker.ErrStaleTag) {
			t.Errorf("an ack then gave %v", err)
		}
		if d := c.takeSoon(t, other); !d.Redelivered || d.Tag.Generation == held.Tag.Generation {
			t.Errorf("then took %+v", d)
		}
		c.wantSoon(t, q, "1", "2")
	}},
	{"LeaderThatGoesOnAnswersTheGetThatWaits", func(t *testing.T, b bench) {
		c, q := b.connect(t, "a"), b.queue(t, "thawed")
		c.publish(t, q, "1")
		b.freeze(t, q)
		time.AfterFunc(takeTimeout/3, func() { b.thaw(t, q) })
		began := time.Now()
		d, err := c.Take(t.Context(), q)
		if err != nil || d == nil || time.Since(began) < takeTimeout/3 {
			t.Fatalf("Take gave %v, %v after %s", d, err, time.Since(began))
		}
		c.ack(t, d)
	}},
	{"FrozenLeaderConfirmsLateOrNever", func(t *testing.T, b bench) {
		c, q := b.connect(t, "a"), b.queue(t, "late")
		b.freeze(t, q)
		err := c.Publish(t.Context(), broker.Message{Queue: q, MessageID: "unknown"})
		if !errors.Is(err, broker.ErrUnknown) {
			t.Errorf("Publish gave %v", err)
		}
		time.AfterFunc(confirmTimeout/4, func() { b.thaw(t, q) })
		c.publish(t, q, "late") // confirmed in time
		c.wantTaken(t, q, "unknown", "late")
	}},
	{"FrozenLeaderThatDiesEndsTheGetThatWaits", func(t *testing.T, b bench) {
		c, q := b.connect(t, "a"), b.queue(t, "died")
		c.publish(t, q, "1")
		held := c.take(t, q, 1)[0]
		c.publish(t, q, "2")
		b.freeze(t, q)
		began, killed := time.Now(), make(chan struct{})
		time.AfterFunc(takeTimeout/3, func() { b.kill(t, q); close(killed) })
		_, err := c.Take(t.Context(), q)
		<-killed
		if took := time.Since(began); !errors.Is(err, broker.ErrTakeTimeout) || took > takeTimeout-100*time.Millisecond+b.late() {
			t.Errorf("Take gave %v after %s", err, took)
		}
		if err := c.Ack(t.Context(), held.Tag); !errors.Is(err, broker.ErrStaleTag) {
			t.Errorf("an ack then gave %v", err)
		}
		b.thaw(t, q)
		c.wantSoon(t, q, "1", "2")
	}},
	{"KilledLeaderCostsNothingThatIsHeldButByAGetThatAsksIt", func(t *testing.T, b bench) {
		c, q := b.connect(t, "a"), b.queue(t, "killed")
		c.publish(t, q, "1", "2")
		held := c.take(t, q, 1)[0]
		b.kill(t, q)
		wait.For(t, time.Minute, func() error {
			return c.Publish(t.Context(), broker.Message{Queue: q, MessageID: "3"})
		})
		c.wantDepth(t, q, 2)
		c.ack(t, held)
		second, err := c.Take(t.Context(), q)
		if errors.Is(err, broker.ErrTakeTimeout) {
			// The publishing channel has learnt of the new leader, the taking one has
			// not: its get asks the dead one (541, nodedown) and costs the connection.
			// An ack on it may not have got through.
			if err := c.Ack(t.Context(), held.Tag); !errors.Is(err, broker.ErrStaleTag) {
				t.Errorf("an ack after the get that failed gave %v", err)
			}
			d := c.takeSoon(t, q)
			if c.ack(t, d); d.MessageID == "1" {
				c.wantSoon(t, q, "2", "3")
			} else {
				c.wantSoon(t, q, "3")
			}
			return
		}
		if err != nil || second == nil {
			t.Fatalf("Take gave %v, %v", second, err)
		}
		list := append([]*broker.Delivery{second}, c.take(t, q, 1)...)
		if got := names(list); fmt.Sprint(got) != "[2 3]" || list[0].Tag.Generation != held.Tag.Generation {
			t.Errorf("then took %v, %+v after %+v", got, list[0].Tag, held.Tag)
		}
		c.ack(t, list...)
	}},
}
