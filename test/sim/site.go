package sim

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/job"
	"gpuqd/test/history"
	"gpuqd/test/sim/cache"
	"gpuqd/test/sim/disk"
	"gpuqd/test/sim/queue"
	"gpuqd/test/sim/store"
	"gpuqd/test/sim/world"
)

// site is one running history.
type site struct {
	plan  Plan
	world *world.World
	queue *queue.Server
	store *store.Server
	cache *cache.Server
	hosts []*host
	users *world.Process // where the clients of the broker run
	log   slog.Handler   // nil discards
	watch func(world.Step)
	tune  func(*agent.Options) // changes what each daemon is made of; nil is nothing

	over context.Context // ends with the history
	end  context.CancelFunc
	work sync.WaitGroup // supervisors, clients and faults

	// Guarded by the world's instant.
	confirmed map[job.ID]bool
	awaited   int // jobs that are not confirmed yet
	breaking  int // faults that are to come or last
	striking  map[string][]*strike
}

// recovery bounds the time from the last fault to the end of every job: a lease
// and its grace, the sweeper's evidence, a restart, and the jobs' own time, with
// room.
const recovery = 8 * time.Minute

// newSite sets a site up; nothing runs yet.
func newSite(p Plan, log slog.Handler) *site {
	w := world.New(p.Seed)
	s := &site{
		plan: p, world: w, log: log, confirmed: map[job.ID]bool{}, awaited: len(p.Jobs),
		striking: map[string][]*strike{},
		queue:    queue.NewServer(w), store: store.NewServer(w), cache: cache.NewServer(w),
	}
	s.store.Needless = func(id job.ID, promised time.Time) bool {
		// The sweeper's last look is no older than a slack, and a slow call. What
		// came in when its date says, and was ready all that time, it has met.
		since := time.Now().Add(-slack - 5*time.Second)
		if punctual := promised.Add(slack / 2); punctual.Before(since) {
			since = punctual
		}
		return s.queue.HasReady(id, since)
	}
	s.over, s.end = context.WithCancel(context.Background())
	s.users = w.NewHost("login").Start("gpuqctl", nil)
	for _, h := range p.Hosts {
		s.hosts = append(s.hosts, s.newHost(h))
	}
	s.setNoise(p.Noise)
	s.queue.SetConsumerTimeout(p.ConsumerTimeout)
	return s
}

// Ways of calls without noise: from Fast up to Slow.
var ways = map[string]world.Rates{
	queue.Part: {Fast: 200 * time.Microsecond, Slow: 3 * time.Millisecond},
	store.Part: {Fast: 500 * time.Microsecond, Slow: 8 * time.Millisecond},
	cache.Part: {Fast: 100 * time.Microsecond, Slow: time.Millisecond},
	disk.Part:  {Fast: 500 * time.Microsecond, Slow: 10 * time.Millisecond},
}

// setNoise makes the parts fail by themselves now and then.
func (s *site) setNoise(n Noise) {
	for part, r := range ways {
		r.Slow += n.Slow
		if part != disk.Part { // a disk neither loses nor delays what it was given
			r.LoseAsk, r.LoseAnswer, r.Late = n.Lose, n.LoseAnswer, n.Late
		}
		s.world.SetRates(part, r)
	}
	s.queue.HoldConfirms(n.LoseAnswer)
	s.queue.LoseReturns(n.LoseAnswer)
	s.queue.LoseReplies(n.LoseAnswer)
	s.store.Unconfirmed(n.LoseAnswer)
}

// run lets the history happen. It returns when every confirmed job is over and
// nothing moves any more, or when that has taken too long.
func (s *site) run() {
	s.arm()
	for _, h := range s.hosts {
		s.work.Go(h.supervise)
	}
	for i := range s.plan.Jobs {
		s.work.Go(func() { s.submit(&s.plan.Jobs[i]) })
		if s.plan.Jobs[i].KillAt > 0 {
			s.work.Go(func() { s.kill(&s.plan.Jobs[i]) })
		}
		if s.plan.Jobs[i].HoldAt > 0 {
			s.work.Go(func() { s.hold(&s.plan.Jobs[i]) })
		}
	}
	for i := range s.plan.Drains {
		s.work.Go(func() { s.drain(&s.plan.Drains[i]) })
	}
	for s.pause(500 * time.Millisecond) {
		if s.settled() || s.world.Now() > s.lastFault()+recovery+time.Minute {
			break
		}
	}
}

// close ends everything that runs, and waits for it.
func (s *site) close() {
	s.end()
	for _, h := range s.hosts {
		h.host.Crash()
	}
	s.users.Kill()
	s.queue.Close()
	s.work.Wait()
	time.Sleep(time.Minute) // what was on its way arrives nowhere
}

// pause waits for d of true time. It returns false when the history is over.
func (s *site) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.over.Done():
		return false
	}
}

// lastFault is when the last fault of the plan that has its time ends, and what
// people did to hold jobs and hosts back.
func (s *site) lastFault() time.Duration {
	last := submitWithin
	for _, d := range s.plan.Drains {
		last = max(last, d.At+d.For)
	}
	for _, j := range s.plan.Jobs {
		last = max(last, j.HoldAt+j.HoldFor)
	}
	for _, f := range s.plan.Faults {
		last = max(last, f.At+f.For)
		if f.Step != "" {
			last = max(last, faultsWithin+f.For)
		}
	}
	return last
}

// settled reports whether all is said and done.
func (s *site) settled() bool {
	settled := false
	s.world.Do(func() {
		settled = s.awaited == 0 && s.timedFaultsOver() && len(s.leftovers()) == 0
	})
	return settled
}

// leftovers names what is not at its end, for people. Within the world's instant.
func (s *site) leftovers() (left []string) {
	for _, j := range s.store.Jobs() {
		if !j.State.Terminal() {
			left = append(left, "job "+string(j.ID)+" is "+string(j.State)+": "+j.Reason)
		}
	}
	left = append(left, s.queue.Leftovers()...)
	for _, h := range s.hosts {
		left = append(left, h.disk.Running()...)
	}
	return left
}

// documents returns the jobs as the ledger has them.
func (s *site) documents() map[job.ID]*job.Job {
	docs := map[job.ID]*job.Job{}
	s.world.Do(func() {
		for _, j := range s.store.Jobs() {
			docs[j.ID] = j
		}
	})
	return docs
}

func (s *site) host(name string) *host {
	i := slices.IndexFunc(s.hosts, func(h *host) bool { return h.plan.Name == name })
	return s.hosts[i]
}

// some returns the host of a name, or all where it is "".
func (s *site) some(name string) []*host {
	if name == "" {
		return s.hosts
	}
	return []*host{s.host(name)}
}

func (s *site) jobOf(id job.ID) *Job {
	for i := range s.plan.Jobs {
		if s.plan.Jobs[i].ID == id {
			return &s.plan.Jobs[i]
		}
	}
	return nil
}

// judge checks the history.
func (s *site) judge() []history.Violation {
	var left []string
	s.world.Do(func() { left = s.leftovers() })
	all := history.Check(s.world.Events(),
		history.End{Jobs: s.documents(), Leftovers: left},
		history.Rules{
			OnLoss: s.plan.OnLoss, Tick: disk.Tick, Contact: 15 * time.Second, Recovery: recovery, Deadline: time.Now(), Mishaps: s.world.Mishaps(),
			DeviceBytes: s.plan.deviceBytes(), Serve: s.plan.serve(),
		})
	if s.plan.clocksDiffer() {
		for i := range all {
			// What says that a message is lost are times of several hosts.
			all[i].Excused = all[i].Excused || all[i].Invariant == history.NeedlessRepublish
		}
	}
	return all
}

// clocksDiffer reports whether wall clocks of the site come to be apart by a good
// part of the slack, for which nobody promises an exact sweeper.
func (p Plan) clocksDiffer() bool {
	const far = slack / 4
	off := func(d time.Duration) bool { return d > far || d < -far }
	return slices.ContainsFunc(p.Hosts, func(h Host) bool { return off(h.ClockOff) }) ||
		slices.ContainsFunc(p.Faults, func(f Fault) bool { return f.Kind == StepClock && off(f.Off) })
}
