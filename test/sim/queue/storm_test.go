package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/job"
	"gpuqd/test/history"
	"gpuqd/test/sim/world"
)

// storm is a few daemons that publish, take, ack and give back at random, while
// everything breaks.
type storm struct {
	*site
	hosts []*world.Host
	loops int // of each daemon
	over  context.Context
	end   context.CancelFunc
	work  sync.WaitGroup

	// Guarded by the world's instant.
	sent map[job.ID]error // what the publisher was told of each message
}

func newStorm(b *site) *storm {
	s := &storm{site: b, loops: 3, sent: map[job.ID]error{}}
	s.over, s.end = context.WithCancel(context.Background())
	for _, name := range []string{"a", "b", "c"} {
		s.hosts = append(s.hosts, b.w.NewHost(name))
	}
	return s
}

const stormTime = 4 * time.Minute

// rage lets it all happen, heals everything and waits until nothing moves.
func (s *storm) rage(*testing.T) {
	s.w.SetRates(Part, world.Rates{Fast: wayMin, Slow: wayMax, LoseAsk: 0.01, LoseAnswer: 0.01, Late: 0.01})
	for _, h := range s.hosts {
		s.work.Go(func() { s.live(h) })
	}
	for n := range 12 {
		s.sleep(s.w.Between(0, stormTime/12, "calm", fmt.Sprint(n)))
		s.breakSomething(n)
	}
	s.end()
	s.w.SetRates(Part, world.Rates{Fast: wayMin, Slow: wayMax})
	time.Sleep(time.Minute) // what breaks for a while is mended
	for _, h := range s.hosts {
		h.Crash()
	}
	s.work.Wait()
	time.Sleep(time.Minute) // the server notices
}

func (s *storm) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.over.Done():
		return false
	}
}

// live runs one daemon after another on a host.
func (s *storm) live(h *world.Host) {
	for n := 0; s.over.Err() == nil; n++ {
		ctx, cancel := context.WithCancel(s.over)
		p := h.Start("gpuqd", cancel)
		c := s.s.Connect(p, "gpuqd")
		var loops sync.WaitGroup
		for i := range s.loops {
			loops.Go(func() { s.act(ctx, c, fmt.Sprint(h.Name(), n, "-", i)) })
		}
		loops.Wait()
		p.Kill()
		s.sleep(s.w.Between(time.Second, 3*time.Second, h.Name(), "restart"))
	}
}

// act does one thing after another until ctx ends.
func (s *storm) act(ctx context.Context, c *Client, name string) {
	var held []*broker.Delivery
	for n := 0; ctx.Err() == nil; n++ {
		id := job.ID(fmt.Sprint(name, "-", n))
		switch s.w.Draw(name, "what") % 6 {
		case 0, 1:
			s.publish(ctx, c, id)
		case 2, 3:
			if d, err := c.Take(ctx, shape); err == nil && d != nil {
				held = append(held, d)
			}
		case 4:
			if len(held) > 0 {
				_ = c.Ack(ctx, held[0].Tag) // stale ones come again
				held = held[1:]
			}
		case 5:
			if len(held) > 0 {
				_ = c.Nack(ctx, held[0].Tag, true)
				held = held[1:]
			}
			_, _ = c.Depth(ctx, shape) // for its own sake
		}
		if !s.sleep(s.w.Between(0, 3*time.Second, name, "pause")) {
			return
		}
	}
}

func (s *storm) publish(ctx context.Context, c *Client, id job.ID) {
	m := broker.Message{Queue: shape, MessageID: string(id)}
	if err := c.DeclareShape(ctx, shape); err != nil {
		return
	}
	var err error
	if s.w.Chance(0.3, string(id), "retry") {
		err = c.PublishRetry(ctx, 2*time.Second, m)
	} else {
		err = c.Publish(ctx, m)
	}
	s.w.Do(func() { s.sent[id] = err })
}

// breakSomething breaks one thing, for a while.
func (s *storm) breakSomething(n int) {
	h := s.hosts[s.w.Draw("host")%3]
	where := []string{h.Name(), world.Everyone}[s.w.Draw("where")%2]
	mend := func() {}
	link := func(l world.Link) {
		s.w.SetLink(where, Part, l)
		mend = func() { s.w.SetLink(where, Part, world.Up) }
	}
	switch n {
	case 0:
		s.s.Drop(h.Name())
	case 1:
		s.s.Restart()
	case 2:
		s.s.Leaderless("", true)
		mend = func() { s.s.Leaderless("", false) }
	case 3:
		s.s.Freeze(shape, true)
		mend = func() { s.s.Freeze(shape, false) }
	case 4:
		link(world.Cut)
	case 5:
		link(world.Refused)
	case 6:
		link(world.Frozen)
	case 7:
		s.s.Alarm(true)
		mend = func() { s.s.Alarm(false) }
	case 8:
		h.Crash()
		mend = h.Boot
	case 9:
		h.Freeze("")
		mend = func() { h.Thaw("") }
	case 10:
		s.s.CloseOnGet(h.Name(), 2)
		s.s.SetConsumerTimeout(5 * time.Second)
	case 11:
		s.s.HoldConfirms(0.2)
		s.s.DropDuty(h.Name(), "publish")
	}
	time.AfterFunc(s.w.Between(time.Second, 40*time.Second, "mend"), mend)
}

// A message whose publisher was told that the broker has it is there, or was
// acked; one that was never sent is not; none is there twice. Whoever was handed
// a message has acked it or lost it again.
func TestConservation(t *testing.T) {
	seeds := uint64(300)
	if testing.Short() {
		seeds = 30
	}
	fates := map[string]int{}
	for seed := range seeds {
		bubble(t, seed, func(t *testing.T, b *site) {
			s := newStorm(b)
			s.rage(t)
			s.check(t, seed, fates)
		})
		if t.Failed() {
			return
		}
	}
	t.Log(fates)
	for _, fate := range []string{"confirmed", "unknown and there", "unknown and lost", "unsent", "acked", "redelivered", "left"} {
		if fates[fate] == 0 {
			t.Errorf("no message was %s: the test shows less than it says", fate)
		}
	}
}

func (s *storm) check(t *testing.T, seed uint64, fates map[string]int) {
	t.Helper()
	acked, taken, returned := map[job.ID]int{}, map[job.ID]int{}, map[job.ID]int{}
	for _, e := range s.events() {
		switch e.Kind {
		case history.Acked:
			acked[e.Job]++
		case history.Taken:
			taken[e.Job]++
		case history.Returned:
			returned[e.Job]++
			fates["redelivered"]++
		}
	}
	s.w.Do(func() {
		for id, err := range s.sent {
			left := s.s.Messages(id)
			n := left.Ready + left.Unacked + left.Waiting + acked[id]
			fates["acked"] += acked[id]
			fates["left"] += left.Ready
			switch {
			case err == nil:
				fates["confirmed"]++
				if n != 1 {
					t.Errorf("seed %d: %s was confirmed; %+v are left, %d were acked", seed, id, left, acked[id])
				}
			case errors.Is(err, broker.ErrUnreachable), errors.Is(err, broker.ErrBlocked):
				fates["unsent"]++
				if n != 0 {
					t.Errorf("seed %d: %s was not sent (%v); %+v are left, %d were acked", seed, id, err, left, acked[id])
				}
			case n > 0:
				fates["unknown and there"]++
			default:
				fates["unknown and lost"]++
			}
			if n > 1 {
				t.Errorf("seed %d: %s is there %d times", seed, id, n)
			}
			if left.Unacked+left.Waiting > 0 || taken[id] != acked[id]+returned[id] {
				t.Errorf("seed %d: %s was taken %d times, acked %d, returned %d, left %+v",
					seed, id, taken[id], acked[id], returned[id], left)
			}
		}
	})
}
