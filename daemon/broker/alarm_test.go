package broker

import (
	"errors"
	"strings"
	"testing"
	"time"

	"gpuqd/test/wait"
)

// Under a memory alarm the broker reads no publishing connection. That must be
// said, must not hold up takes and acks, and must end with the alarm.
func TestAlarm(t *testing.T) {
	cfg := configOf("host1")
	cfg.ConfirmTimeout = time.Second
	c := runClient(t, cfg)
	queue := queueOf(t, c, "alarm")
	publish(t, c, queue, "before")

	clear := func() {
		for _, node := range cluster.Nodes {
			if _, err := cluster.Eval(t.Context(), node, "rabbit_alarm:clear_alarm({resource_limit, memory, node()})."); err != nil {
				t.Error(err)
			}
		}
	}
	for _, node := range cluster.Nodes {
		if _, err := cluster.Eval(t.Context(), node, "rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []})."); err != nil {
			t.Fatal(err)
		}
	}
	cleared := false
	defer func() {
		if !cleared {
			clear()
		}
	}()
	// The broker says so at the latest when something is published.
	wait.For(t, 20*time.Second, func() error {
		err := c.Publish(t.Context(), Message{Queue: queue, Body: []byte("during")})
		if !errors.Is(err, ErrBlocked) {
			return errors.Join(errors.New("not ErrBlocked"), err)
		}
		return nil
	})
	if ok, why := c.Healthy(); ok || !strings.Contains(why, "publish connection") {
		t.Errorf("Healthy says %v, %q", ok, why)
	}
	d := takeOne(t, c, queue)
	if err := c.Ack(t.Context(), d.Tag); err != nil {
		t.Errorf("ack under an alarm: %v", err)
	}
	clear()
	cleared = true
	wait.For(t, 20*time.Second, func() error {
		return c.Publish(t.Context(), Message{Queue: queue, Body: []byte("after")})
	})
	if ok, why := c.Healthy(); !ok {
		t.Errorf("Healthy says %q after the alarm", why)
	}
}
