package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpuqd/test/services"
	"gpuqd/test/wait"
)

func publish(t *testing.T, c *Client, queue, id string) {
	t.Helper()
	wait.For(t, time.Minute, func() error {
		return c.Publish(t.Context(), Message{Queue: queue, Body: []byte(id), MessageID: id})
	})
}

func TestTake(t *testing.T) {
	c := runClient(t, configOf("host1"))

	t.Run("EmptyQueueGivesNothing", func(t *testing.T) {
		d, err := c.Take(t.Context(), queueOf(t, c, "empty"))
		if d != nil || err != nil {
			t.Errorf("got %v, %v", d, err)
		}
	})
	t.Run("MissingQueue", func(t *testing.T) {
		if _, err := c.Depth(t.Context(), "gpuq.job.none"); !errors.Is(err, ErrNoQueue) {
			t.Errorf("Depth gave %v", err)
		}
		if _, err := c.Depth(t.Context(), QueueSubmit); err != nil {
			t.Errorf("Depth after a miss: %v", err)
		}
		if _, err := c.Take(t.Context(), "gpuq.none"); !errors.Is(err, ErrNoQueue) {
			t.Errorf("Take gave %v", err)
		}
	})
	t.Run("NackedMessageKeepsItsPlaceAndIsMarkedRedelivered", func(t *testing.T) {
		queue := queueOf(t, c, "nacked")
		publish(t, c, queue, "first")
		publish(t, c, queue, "second")
		d := takeOne(t, c, queue)
		if d.Redelivered || d.MessageID != "first" {
			t.Fatalf("got %+v", d)
		}
		if err := c.Nack(t.Context(), d.Tag, true); err != nil {
			t.Fatal(err)
		}
		again := takeOne(t, c, queue)
		if again.MessageID != "first" || !again.Redelivered {
			t.Errorf("got %q, redelivered %v; want the first again", again.MessageID, again.Redelivered)
		}
		if err := c.Ack(t.Context(), again.Tag); err != nil {
			t.Error(err)
		}
		if err := c.Ack(t.Context(), again.Tag); !errors.Is(err, ErrStaleTag) {
			t.Errorf("a second ack gave %v", err)
		}
		if second := takeOne(t, c, queue); second.MessageID != "second" {
			t.Errorf("got %q", second.MessageID)
		}
	})
	t.Run("MessageSurvivesManyRedeliveries", func(t *testing.T) {
		// RabbitMQ 4 would drop it after 20; see deliveryLimitOff.
		queue := queueOf(t, c, "often")
		publish(t, c, queue, "often")
		for range 30 {
			d := takeOne(t, c, queue)
			if err := c.Nack(t.Context(), d.Tag, true); err != nil {
				t.Fatal(err)
			}
		}
		wantDepth(t, c, queue, 1)
	})
	t.Run("RejectedMessageFallsIntoTheNet", func(t *testing.T) {
		queue := queueOf(t, c, "rejected")
		publish(t, c, queue, "rejected")
		if err := c.Nack(t.Context(), takeOne(t, c, queue).Tag, false); err != nil {
			t.Fatal(err)
		}
		net := takeOne(t, c, QueueDLX)
		if net.MessageID != "rejected" || net.DeadReason != "rejected" || net.DeadSource != queue {
			t.Errorf("got %+v", net)
		}
		if err := c.Ack(t.Context(), net.Tag); err != nil {
			t.Error(err)
		}
	})
	t.Run("StaleTagNeverAcksAnotherMessage", func(t *testing.T) {
		queue := queueOf(t, c, "stale")
		publish(t, c, queue, "one")
		publish(t, c, queue, "two")
		old := takeOne(t, c, queue)
		changed, before := c.GenerationChanged(), c.Generation()
		dropLink(t, c.take)
		<-changed
		if c.Generation() == before {
			t.Fatal("the generation is the same after a lost connection")
		}
		// The new connection counts from 1 again: this delivery has a number that
		// the old connection gave out too.
		fresh := takeOne(t, c, queue)
		same := Tag{Generation: old.Tag.Generation, Delivery: fresh.Tag.Delivery}
		for _, tag := range []Tag{old.Tag, same, {}, {Generation: c.Generation(), Delivery: 99}} {
			if err := c.Ack(t.Context(), tag); !errors.Is(err, ErrStaleTag) {
				t.Errorf("ack of %+v gave %v", tag, err)
			}
		}
		dropLink(t, c.take)
		seen := map[string]bool{}
		for range 2 {
			d := takeOne(t, c, queue)
			seen[d.MessageID] = true
		}
		if !seen["one"] || !seen["two"] {
			t.Errorf("after stale acks only %v are left", seen)
		}
	})
}

// leaderOf returns the node that leads a queue.
func leaderOf(t *testing.T, queue string) *services.RabbitNode {
	t.Helper()
	code := fmt.Sprintf(`{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<%q>>)), {_, N} = amqqueue:get_pid(Q), N.`, queue)
	for _, node := range cluster.Nodes {
		out, err := cluster.Eval(t.Context(), node, code)
		if err != nil {
			continue
		}
		for _, leader := range cluster.Nodes {
			if strings.Trim(out, "'") == leader.Name {
				return leader
			}
		}
	}
	t.Fatalf("nobody knows the leader of %s", queue)
	return nil
}

// Held deliveries are redelivered, and everything works again, though the node
// that leads the queue and the node of the connections are killed in turn.
func TestKilledNode(t *testing.T) {
	c := runClient(t, configOf("host1"))
	queue := queueOf(t, c, "killed")
	publish(t, c, queue, "held")
	held := takeOne(t, c, queue)

	leader := leaderOf(t, queue)
	leader.Process.Kill()
	t.Logf("killed %s, the leader of %s", leader.Name, queue)
	t.Cleanup(func() { restart(t, leader) })
	publish(t, c, queue, "after")
	if s := c.take.at(held.Tag.Generation); s != nil {
		// The connection went to another node and stood: end it too.
		dropLink(t, c.take)
	}
	seen := map[string]*Delivery{}
	for len(seen) < 2 {
		d := takeOne(t, c, queue)
		seen[d.MessageID] = d
	}
	if d := seen["held"]; d == nil || !d.Redelivered {
		t.Errorf("the held message came back as %+v", d)
	}
	for id, d := range seen {
		if err := c.Ack(t.Context(), d.Tag); err != nil {
			t.Errorf("ack %s: %v", id, err)
		}
	}
	wait.For(t, 30*time.Second, func() error {
		if ok, why := c.Healthy(); !ok {
			return errors.New(why)
		}
		return nil
	})
}

func restart(t *testing.T, node *services.RabbitNode) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := node.Process.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

// A get on a queue whose leader is frozen may block without limit: it costs the
// generation, and nothing else, and works again once there is a leader.
func TestFrozenLeader(t *testing.T) {
	c := runClient(t, configOf("host1"))
	queue := queueOf(t, c, "frozen")
	publish(t, c, queue, "one")
	leader := leaderOf(t, queue)
	if err := leader.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	thawed := false
	thaw := func() {
		if !thawed {
			thawed = true
			if err := leader.Process.Signal(syscall.SIGCONT); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(thaw)
	before := c.Generation()
	began := time.Now()
	_, err := c.Take(t.Context(), queue)
	t.Logf("Take on a frozen leader gave %v after %s", err, time.Since(began))
	if !errors.Is(err, ErrTakeTimeout) {
		t.Fatalf("got %v", err)
	}
	wait.For(t, 10*time.Second, func() error {
		if c.Generation() == before {
			return errors.New("the generation is the same")
		}
		return nil
	})
	began = time.Now()
	depth, err := c.Depth(t.Context(), queue)
	t.Logf("Depth on a frozen leader gave %d, %v after %s", depth, err, time.Since(began))
	// Another node takes the lead while this one sleeps.
	d := takeOne(t, c, queue)
	t.Logf("taken with the old leader still frozen, %s after the first take", time.Since(began))
	if err := c.Ack(t.Context(), d.Tag); err != nil {
		t.Error(err)
	}
	thaw()
}
