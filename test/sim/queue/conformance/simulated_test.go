package conformance

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"gpuqd/test/sim/queue"
	"gpuqd/test/sim/world"
)

// simulated is the simulated broker.
type simulated struct {
	w     *world.World
	s     *queue.Server
	hosts map[string]*world.Host
}

func newSimulated(seed uint64) *simulated {
	w := world.New(seed)
	s := queue.NewServer(w)
	s.TakeTimeout, s.ConfirmTimeout, s.Heartbeat, s.BackoffMax = takeTimeout, confirmTimeout, heartbeat, backoffMax
	return &simulated{w: w, s: s, hosts: map[string]*world.Host{}}
}

func (b *simulated) host(name string) *world.Host {
	if b.hosts[name] == nil {
		b.hosts[name] = b.w.NewHost(name)
	}
	return b.hosts[name]
}

func (b *simulated) connect(t *testing.T, host string) *client {
	p := b.host(host).Start("gpuqd", nil)
	one := b.s.Connect(p, host)
	c := &client{Broker: one, host: host, stop: one.Close}
	c.ready(t)
	t.Cleanup(p.Kill)
	return c
}

func (b *simulated) queue(t *testing.T, name string) string {
	name = "gpuq.job.test.normal.g1." + name
	p := b.host("founder").Start("gpuqd", nil)
	defer p.Kill()
	if err := b.s.Connect(p, "founder").DeclareShape(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return name
}

func (b *simulated) submit(ctx context.Context, body string) (string, error) {
	p := b.host("login").Start("gpuqctl", nil)
	defer p.Kill()
	reply, err := b.s.Submit(ctx, p, []byte(body), "alice")
	return string(reply), err
}

func (b *simulated) freeze(_ *testing.T, queue string) { b.s.Freeze(queue, true) }
func (b *simulated) thaw(_ *testing.T, queue string)   { b.s.Freeze(queue, false) }

func (b *simulated) kill(_ *testing.T, queue string) {
	b.s.Leaderless(queue, true)
	time.AfterFunc(200*time.Millisecond, func() { b.s.Leaderless(queue, false) })
}

func (b *simulated) late() time.Duration { return 0 }

func (b *simulated) restart(*testing.T) { b.s.Restart() }

func (b *simulated) drop(_ *testing.T, host, duty string) { b.s.DropDuty(host, duty) }
func (b *simulated) alarm(_ *testing.T, on bool)          { b.s.Alarm(on) }
func (b *simulated) cut(_ *testing.T, host string)        { b.w.SetLink(host, queue.Part, world.Cut) }

func (b *simulated) mend(_ *testing.T, host string)    { b.w.SetLink(host, queue.Part, world.Up) }
func (b *simulated) remove(_ *testing.T, queue string) { b.s.Delete(queue) }

func (b *simulated) setConsumerTimeout(_ *testing.T, d time.Duration) { b.s.SetConsumerTimeout(d) }

// seeds is how many histories of each script are simulated.
const seeds = 50

func TestSimulated(t *testing.T) {
	for _, s := range scripts {
		t.Run(s.name, func(t *testing.T) {
			for seed := range uint64(seeds) {
				ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						b := newSimulated(seed)
						t.Cleanup(b.s.Close)
						s.run(t, b)
					})
				})
				if !ok {
					return // the next would say the same
				}
			}
		})
	}
}
