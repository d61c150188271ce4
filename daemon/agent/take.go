package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/placement"
)

// Bell manners: a host for which a job is a tight fit answers at once, the
// others wait at random, longer where many hosts are idle.
const (
	bellWaitPerHost = 2 * time.Millisecond
	bellWaitMax     = 200 * time.Millisecond
	// avoidTime is how long a queue is passed over after its leader did not
	// answer a get.
	avoidTime = 30 * time.Second
)

// takeLoop takes messages while jobs fit: on a bell, when a device is freed, and
// at every tick.
func (a *Agent) takeLoop(ctx context.Context) error {
	interval := a.cfg.Take.Tick.Std()
	tick := time.NewTimer(a.interval("take", interval))
	defer tick.Stop()
	a.refreshShapes(ctx)
	for {
		for a.takeNext(ctx) {
		}
		for look := false; !look; {
			s := a.awaitSignals(ctx, tick.C)
			beat(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if s.ticked {
				tick.Reset(a.interval("take", interval))
				a.refreshShapes(ctx)
			}
			look = a.worthALook(s)
		}
	}
}

// signals are reasons to look at the queues.
type signals struct {
	ticked, woken bool
	bells         []string // queues
}

// awaitSignals waits for a signal, and returns all that have come by then: one
// look answers them all.
func (a *Agent) awaitSignals(ctx context.Context, tick <-chan time.Time) (s signals) {
	select {
	case <-ctx.Done():
	case <-tick:
		s.ticked = true
	case <-a.wake:
		s.woken = true
	case <-a.devices.Changed():
		s.woken = true
	case queue := <-a.broker.Bells():
		s.bells = append(s.bells, queue)
	}
	for {
		select {
		case <-tick:
			s.ticked = true
		case <-a.wake:
			s.woken = true
		case <-a.devices.Changed():
			s.woken = true
		case queue := <-a.broker.Bells():
			s.bells = append(s.bells, queue)
		default:
			return s
		}
	}
}

// worthALook reports whether the signals are a reason to look at once.
func (a *Agent) worthALook(s signals) bool {
	look := s.ticked || s.woken
	for _, queue := range s.bells {
		a.metrics.bells.Inc()
		a.shapes.add(queue)
	}
	for _, queue := range s.bells {
		look = look || a.answerBell(queue)
	}
	return look
}

// answerBell reports whether to look at once; else it arranges to look later.
func (a *Agent) answerBell(queue string) bool {
	shape, err := job.ParseQueue(queue)
	if err != nil {
		return false
	}
	if placement.Tight(shape, a.view()) {
		return true
	}
	bound := min(bellWaitMax, time.Duration(a.idleHosts(shape))*bellWaitPerHost)
	if bound == 0 {
		return true
	}
	time.AfterFunc(a.jitter("bell", bound), a.wakeUp) // waking a loop that has ended does nothing
	return false
}

// idleHosts counts the other hosts that could start a job of the shape, as of the
// last watch; those with a free device, where it needs none.
func (a *Agent) idleHosts(shape job.Shape) int {
	hosts := a.hosts.Load()
	if hosts == nil {
		return 0
	}
	shape.GPUs = max(shape.GPUs, 1)
	idle := 0
	for _, h := range *hosts {
		if h.Name == a.host || h.Session.State != ledger.Live || h.Drain != nil {
			continue
		}
		if placement.Serves(shape, explainedDevices(h, h.Devices)) {
			idle++
		}
	}
	return idle
}

func (a *Agent) refreshShapes(ctx context.Context) {
	queues, err := a.ledger.ShapeList(ctx)
	if err != nil {
		a.ledgerFailed(err)
		return
	}
	for _, queue := range queues {
		a.shapes.add(queue)
	}
}

// view is what the host could start on now.
func (a *Agent) view() placement.View {
	v := placement.View{
		Pools:     a.cfg.Host.Pools,
		Queues:    a.shapes.list(),
		FreeSlots: a.cfg.Host.SlotsWithoutGPU - a.runs.slotsUsed(),
	}
	a.offered(&v, a.runs.promisedOf)
	v.AgainPools = a.rehearsals.againPools(v.Queues)
	return v
}

// room returns the queues of the shapes that the host has room for. What is set aside
// for takes under way counts as room: they wait for the broker, for long where it does
// not answer.
func (a *Agent) room() map[string]bool {
	queues := map[string]bool{}
	if !a.ready.Load() || a.mayTake() != "" {
		return queues
	}
	v := placement.View{
		Pools: a.cfg.Host.Pools, Queues: a.shapes.list(), FreeSlots: a.cfg.Host.SlotsWithoutGPU - a.runs.slotsHeld(),
	}
	a.offered(&v, func(string) promised { return promised{} })
	for _, t := range placement.Plan(v) {
		queues[t.Shape.Queue()] = true
	}
	return queues
}

// mayTake says why the host takes nothing now; "" when it does.
func (a *Agent) mayTake() string {
	if why := a.trouble(); why != "" {
		return why
	}
	if d := a.drains.onHost(); d != nil {
		return drainedBy(d)
	}
	return ""
}

// trouble is mayTake but for what operators have drained.
func (a *Agent) trouble() string {
	if why := a.parting.reason(); why != "" {
		return why
	}
	if why := a.reach.trouble(); why != "" {
		return "the ledger is out of reach: " + why
	}
	if !a.lease.hasMargin() {
		return "the lease has no margin left"
	}
	return a.holdOff.why(a.clock.Now())
}

// takeNext takes at most one message and hands it on. It reports whether it did:
// then the host has changed, and the next take is a new decision.
func (a *Agent) takeNext(ctx context.Context) bool {
	beat(ctx)
	if ctx.Err() != nil || a.mayTake() != "" {
		return false
	}
	for _, t := range placement.Plan(a.view()) {
		if a.avoided.has(t.Queue, a.clock.Now()) || !a.promise(t) {
			continue
		}
		beat(ctx)
		d, err := a.takeFrom(ctx, t.Shape.Queue(), t.Queue)
		if d == nil {
			a.runs.unpromise(t)
		}
		if ctx.Err() != nil || errors.Is(err, broker.ErrUnreachable) {
			return false // no other queue fares better
		}
		if err != nil {
			a.avoid(t.Queue, err) // the others must not wait for it
			continue
		}
		if d != nil {
			a.start(ctx, d, t)
			return true
		}
	}
	return false
}

// takeFrom looks at the depth first, since an empty get costs a Raft entry. A
// depth of 0 is a hint only; the sweeper asks with a get.
func (a *Agent) takeFrom(ctx context.Context, shape, queue string) (*broker.Delivery, error) {
	depth, err := a.broker.Depth(ctx, queue)
	if errors.Is(err, broker.ErrNoQueue) {
		return nil, a.broker.DeclareShape(ctx, shape)
	}
	if err == nil {
		a.metrics.countDepth(queue, depth, a.clock.Now())
	}
	if err == nil && depth == 0 && bugged(DepthZeroIsEmpty) {
		a.evidence.empty(queue, a.clock.Now())
	}
	if err != nil || depth == 0 {
		return nil, err
	}
	beat(ctx)
	return a.get(ctx, queue)
}

// avoid passes a queue over for a while, since looking at it fails.
func (a *Agent) avoid(queue string, err error) {
	a.metrics.queuesAvoided.Inc()
	a.log.Warn("queue could not be looked at; passing it over for a while", "queue", queue,
		"duration_seconds", avoidTime.Seconds(), "err", err)
	a.avoided.set(queue, a.clock.Now().Add(avoidTime))
}

// avoided are the queues that are passed over, and until when.
type avoided struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func (v *avoided) set(queue string, until time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.until[queue] = until
}

func (v *avoided) has(queue string, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return now.Before(v.until[queue])
}

// get takes one message and notes what that says about the queue. That it was
// empty is known of the time before the question only: the answer can be late.
func (a *Agent) get(ctx context.Context, queue string) (*broker.Delivery, error) {
	asked := a.clock.Now()
	d, err := a.broker.Take(ctx, queue)
	if err != nil {
		return nil, err
	}
	if d == nil {
		a.evidence.empty(queue, asked)
		return nil, nil
	}
	a.metrics.takes.Inc()
	if d.Redelivered {
		a.metrics.redeliveries.Inc()
	}
	a.generation.Store(d.Tag.Generation)
	a.log.Debug("message taken", "job_id", d.MessageID, "queue", queue,
		"generation", d.Tag.Generation, "delivery_tag", d.Tag.Delivery)
	if ticket, err := job.ParseTicket(d.Body); err == nil {
		a.evidence.taken(queue, ticket.EnqueuedAt, a.clock.Now())
	}
	return d, nil
}

// start handles a delivery on its own; what the take needs has been promised to it.
func (a *Agent) start(ctx context.Context, d *broker.Delivery, t placement.Take) {
	ctx = apart(ctx)
	a.work.Go(func() {
		r := a.settle(ctx, d, t.Devices)
		a.runs.unpromise(t)
		if r == nil {
			a.wakeUp() // the devices are still free
			return
		}
		r.drive(ctx)
	})
}
