package broker

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"gpuqd/test/wait"
)

func TestObserve(t *testing.T) {
	var mu sync.Mutex
	var told []string
	cfg := configOf("host1")
	cfg.Observe = func(operation, result string, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if took < 0 {
			t.Errorf("%s took %s", operation, took)
		}
		told = append(told, operation+" "+result)
	}
	c := runClient(t, cfg)

	t.Run("EachOperationIsToldWithWhatCameOfIt", func(t *testing.T) {
		queue := queueOf(t, c, "observed")
		if err := c.Publish(t.Context(), Message{Queue: queue, Body: []byte("a")}); err != nil {
			t.Fatal(err)
		}
		_ = c.Publish(t.Context(), Message{Queue: "gpuq.job.nowhere", Body: []byte("a")})
		_, _ = c.Depth(t.Context(), queue)
		_, _ = c.Depth(t.Context(), "gpuq.job.nowhere")
		d := takeOne(t, c, queue)
		if err := c.Ack(t.Context(), d.Tag); err != nil {
			t.Error(err)
		}
		if empty, err := c.Take(t.Context(), queue); empty != nil || err != nil {
			t.Fatalf("took %v, %v of an empty queue", empty, err)
		}
		_, _ = c.Request(t.Context(), ExchangeControl, HostKey("nobody"), []byte("{}"), nil)
		mu.Lock()
		defer mu.Unlock()
		for _, want := range []string{
			"publish ok", "publish returned", "depth ok", "depth no_queue", "get ok", "get empty", "request no_host",
		} {
			if !slices.Contains(told, want) {
				t.Errorf("%q was not told: %q", want, told)
			}
		}
	})
	t.Run("ConnectionsAreUpAndLossesCount", func(t *testing.T) {
		lost := func() (n uint64, up int) {
			for _, one := range c.Connections() {
				n += one.Lost
				if one.Up {
					up++
				}
				if one.Blocked {
					t.Errorf("%s is blocked", one.Name)
				}
			}
			return n, up
		}
		before, up := lost()
		if up != 4 {
			t.Fatalf("%d connections are up, want 4: %+v", up, c.Connections())
		}
		c.reply.standing().drop(errors.New("for the test"))
		wait.Until(t, "the lost connection is counted and back", func() bool {
			n, up := lost()
			return n == before+1 && up == 4
		})
	})
}
