package queue

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/job"
	"gpuqd/test/history"
	"gpuqd/test/sim/world"
)

const shape = "gpuq.job.default.normal.g1.any"

// site is a server with hosts, in a bubble.
type site struct {
	w *world.World
	s *Server
}

// bubble runs a test on a site of its own.
func bubble(t *testing.T, seed uint64, test func(t *testing.T, b *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := world.New(seed)
		b := &site{w: w, s: NewServer(w)}
		defer b.s.Close()
		test(t, b)
	})
}

// connect starts a client that is ready, in a process of its own.
func (b *site) connect(t *testing.T, h *world.Host) (*Client, *world.Process) {
	t.Helper()
	p := h.Start("gpuqd", nil)
	c := b.s.Connect(p, "gpuqd")
	if err := c.DeclareShape(t.Context(), shape); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	if ok, why := c.Healthy(); !ok {
		t.Fatal(why)
	}
	return c, p
}

func publish(t *testing.T, c *Client, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := c.Publish(t.Context(), broker.Message{Queue: shape, MessageID: id}); err != nil {
			t.Fatal(err)
		}
	}
}

func take(t *testing.T, c *Client) *broker.Delivery {
	t.Helper()
	d, err := c.Take(t.Context(), shape)
	if d == nil || err != nil {
		t.Fatalf("took %v, %v", d, err)
	}
	return d
}

// events are those so far.
func (b *site) events() (list []history.Event) {
	b.w.Do(func() { list = slices.Clone(b.w.Events()) })
	return list
}

// returned is when the message of a job went back to its queue, as time since
// another event; -1 where it did not.
func (b *site) returned(id job.ID, since time.Time) time.Duration {
	for _, e := range b.events() {
		if e.Kind == history.Returned && e.Job == id && e.At.After(since) {
			return e.At.Sub(since)
		}
	}
	return -1
}

func TestDeathReturnsWhatWasHeld(t *testing.T) {
	const heartbeat = 5 * time.Second
	for _, c := range []struct {
		name        string
		end         func(b *site, p *world.Process)
		least, most time.Duration
	}{
		{"KilledProcessAtOnce", func(_ *site, p *world.Process) { p.Kill() }, 0, wayMax},
		{"CrashedHostByHeartbeats", func(_ *site, p *world.Process) { p.Host().Crash() }, 7 * heartbeat / 4, 3 * heartbeat},
		{"RebootedHostWhenItAnswers", func(_ *site, p *world.Process) {
			p.Host().Crash()
			time.AfterFunc(time.Second, p.Host().Boot)
		}, time.Second, time.Second + heartbeat/2},
		{"FrozenProcessByHeartbeats", func(_ *site, p *world.Process) { p.Host().Freeze("") }, 7 * heartbeat / 4, 3 * heartbeat},
		{"KilledBehindACutWireByHeartbeats", func(b *site, p *world.Process) {
			b.w.SetLink("a", Part, world.Cut)
			p.Kill()
		}, 7 * heartbeat / 4, 3 * heartbeat},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, 1, func(t *testing.T, b *site) {
				host := b.w.NewHost("a")
				one, p := b.connect(t, host)
				publish(t, one, "j")
				take(t, one)
				began := time.Now()
				c.end(b, p)
				time.Sleep(time.Minute)
				if took := b.returned("j", began); took < c.least || took > c.most {
					t.Errorf("it came back after %s, want %s to %s", took, c.least, c.most)
				}
				p.Kill()
			})
		})
	}
}

// A daemon that stood still holds deliveries, in its own eyes, that others have
// by now. Its ack must not reach them.
func TestThawedClientAcksNothing(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *site) {
		one, p := b.connect(t, b.w.NewHost("a"))
		two, q := b.connect(t, b.w.NewHost("b"))
		publish(t, one, "j")
		held := take(t, one)
		p.Host().Freeze("gpuqd")
		time.Sleep(20 * time.Second)
		other := take(t, two)
		time.AfterFunc(time.Second, func() { p.Host().Thaw("gpuqd") })
		if err := one.Ack(t.Context(), held.Tag); err != nil && !errors.Is(err, broker.ErrStaleTag) {
			t.Error(err)
		}
		if err := two.Ack(t.Context(), other.Tag); err != nil {
			t.Error(err)
		}
		var acked []string
		for _, e := range b.events() {
			if e.Kind == history.Acked {
				acked = append(acked, e.Host)
			}
		}
		if !slices.Equal(acked, []string{"b"}) {
			t.Errorf("acked for %v", acked)
		}
		p.Kill()
		q.Kill()
	})
}

// The server knows a connection and a number: who writes an old number on a new
// connection removes what has it now.
func TestAckAcrossGenerationsRemovesAnotherJob(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *site) {
		c, p := b.connect(t, b.w.NewHost("a"))
		publish(t, c, "one", "two")
		old := take(t, c)
		b.s.DropDuty("a", "take")
		time.Sleep(time.Second)
		tags := map[string]broker.Tag{}
		for range 2 {
			d := take(t, c)
			tags[d.MessageID] = d.Tag
		}
		forged := broker.Tag{Generation: old.Tag.Generation + 1, Delivery: old.Tag.Delivery}
		if err := c.Ack(t.Context(), forged); err != nil {
			t.Fatal(err)
		}
		all := b.events()
		last := all[len(all)-1]
		if last.Kind != history.Acked || tags[string(last.Job)] != forged || last.Tag != history.Tag(forged) {
			t.Errorf("the ack is recorded as %s, the tags were %v", last, tags)
		}
		p.Kill()
	})
}

func TestUnknownFates(t *testing.T) {
	for _, c := range []struct {
		name    string
		queue   string
		prepare func(b *site)
		there   int // messages in the end
	}{
		{"ConfirmNeverComes", shape, func(b *site) { b.s.HoldConfirms(1) }, 1},
		{"AnswerIsLost", shape, func(b *site) { b.w.SetRates(Part, world.Rates{LoseAnswer: 1}) }, 1},
		{"RequestIsLost", shape, func(b *site) { b.w.SetRates(Part, world.Rates{LoseAsk: 1}) }, 0},
		{"RequestIsLate", shape, func(b *site) { b.w.SetRates(Part, world.Rates{Late: 1}) }, 1},
		{"ReturnIsLost", "gpuq.job.none", func(b *site) { b.s.LoseReturns(1) }, 0},
		{"BrokerIsFrozen", shape, func(b *site) {
			b.w.SetLink(world.Everyone, Part, world.Frozen)
			time.AfterFunc(12*time.Second, func() { b.w.SetLink(world.Everyone, Part, world.Up) })
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, 1, func(t *testing.T, b *site) {
				one, p := b.connect(t, b.w.NewHost("a"))
				c.prepare(b)
				err := one.Publish(t.Context(), broker.Message{Queue: c.queue, MessageID: "j"})
				if !errors.Is(err, broker.ErrUnknown) {
					t.Errorf("got %v", err)
				}
				b.w.SetRates(Part, world.Rates{Fast: wayMin, Slow: wayMax})
				time.Sleep(time.Minute)
				b.w.Do(func() {
					if n := b.s.Messages("j").Ready; n != c.there {
						t.Errorf("%d messages are there, want %d: %v", n, c.there, b.s.Leftovers())
					}
				})
				if ok, why := one.Healthy(); !ok {
					t.Errorf("a minute later: %s", why)
				}
				p.Kill()
			})
		})
	}
}

func TestLostAckIsRedelivered(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *site) {
		c, p := b.connect(t, b.w.NewHost("a"))
		publish(t, c, "j")
		d := take(t, c)
		b.w.SetRates(Part, world.Rates{LoseAsk: 1})
		if err := c.Ack(t.Context(), d.Tag); err != nil {
			t.Errorf("an ack that is written and lost gave %v", err)
		}
		b.w.SetRates(Part, world.Rates{Fast: wayMin, Slow: wayMax})
		time.Sleep(time.Minute) // the connection that lost it is gone by then
		if again := take(t, c); !again.Redelivered || again.Tag.Generation != d.Tag.Generation+1 {
			t.Errorf("got %+v after %+v", again, d.Tag)
		}
		p.Kill()
	})
}

func TestUnreachable(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *site) {
		c, p := b.connect(t, b.w.NewHost("a"))
		b.w.SetLink("a", Part, world.Refused)
		time.Sleep(3 * time.Second) // the broken connections are noticed
		began := time.Now()
		_, err := c.Take(t.Context(), shape)
		if took := time.Since(began); !errors.Is(err, broker.ErrUnreachable) || took > 15*time.Second {
			t.Errorf("take gave %v after %s", err, took)
		}
		if _, err := b.s.Submit(t.Context(), p, []byte("x"), "ada"); !errors.Is(err, broker.ErrUnreachable) {
			t.Errorf("submit gave %v", err)
		}
		b.w.SetLink("a", Part, world.Up)
		time.Sleep(20 * time.Second)
		if _, err := c.Take(t.Context(), shape); err != nil {
			t.Errorf("then take gave %v", err)
		}
		p.Kill()
		if _, err := c.Take(t.Context(), shape); !errors.Is(err, world.ErrDead) {
			t.Errorf("a dead process's take gave %v", err)
		}
		if err := c.Publish(t.Context(), broker.Message{Queue: shape}); !errors.Is(err, world.ErrDead) {
			t.Errorf("a dead process's publish gave %v", err)
		}
	})
}

func TestInspection(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *site) {
		c, p := b.connect(t, b.w.NewHost("a"))
		want := func(when string, n Count, ready, readyLong bool) {
			t.Helper()
			b.w.Do(func() {
				if got := b.s.Messages("j"); got != n {
					t.Errorf("%s: counted %+v, want %+v", when, got, n)
				}
				if got := b.s.HasReady("j", time.Now()); got != ready {
					t.Errorf("%s: HasReady is %t", when, got)
				}
				if got := b.s.HasReady("j", time.Now().Add(-time.Second)); got != readyLong {
					t.Errorf("%s: HasReady for a second is %t", when, got)
				}
				if idle := n == (Count{}); b.s.Idle() != idle || len(b.s.Leftovers()) == 0 != idle {
					t.Errorf("%s: left over are %v", when, b.s.Leftovers())
				}
			})
		}
		want("at first", Count{}, false, false)
		publish(t, c, "j")
		want("published", Count{Ready: 1}, true, false)
		time.Sleep(2 * time.Second)
		want("later", Count{Ready: 1}, true, true)
		d := take(t, c)
		want("taken", Count{Unacked: 1}, false, false)
		if err := c.Nack(t.Context(), d.Tag, true); err != nil {
			t.Error(err)
		}
		want("given back", Count{Ready: 1}, false, false)
		d = take(t, c)
		m := broker.Message{Queue: shape, Again: true, MessageID: "j"}
		if err := c.PublishRetry(t.Context(), 5*time.Second, m); err != nil {
			t.Error(err)
		}
		if err := c.Ack(t.Context(), d.Tag); err != nil {
			t.Error(err)
		}
		want("in a retry queue", Count{Waiting: 1}, false, false)
		time.Sleep(7 * time.Second)
		want("out of it", Count{Ready: 1}, true, true)
		d, err := c.Take(t.Context(), again(shape))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.PublishDead(t.Context(), broker.DeadLetter{MessageID: "j", Source: d.Queue, Reason: "bad"}); err != nil {
			t.Error(err)
		}
		want("set aside too", Count{Ready: 1, Unacked: 1}, false, false)
		all := b.events()
		last := all[len(all)-1]
		if last.Kind != history.SetAside || last.Job != "j" || last.Host != "a" || last.Reason != "bad" {
			t.Errorf("the dead letter is recorded as %s", last)
		}
		p.Kill()
	})
}

// One seed is one history, whatever the machine's scheduler does, as long as no
// process makes two like calls at one instant.
func TestSameSeedSameHistory(t *testing.T) {
	run := func() (list []string) {
		bubble(t, 3, func(t *testing.T, b *site) {
			s := newStorm(b)
			s.loops = 1
			s.rage(t)
			for _, e := range b.events() {
				list = append(list, fmt.Sprint(e.At.UnixNano(), e))
			}
		})
		return list
	}
	first, second := run(), run()
	if len(first) < 20 || !slices.Equal(first, second) {
		t.Errorf("%d and %d events, which differ", len(first), len(second))
	}
}
