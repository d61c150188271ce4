package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/runner"

	"github.com/prometheus/client_golang/prometheus"
)

// Identity tells this installation, machine and boot from every other.
type Identity struct {
	InstallID string // made once per state directory
	MachineID string // /etc/machine-id
	BootID    string // /proc/sys/kernel/random/boot_id
}

// Options are the parts that an agent is made of.
type Options struct {
	Config   config.Config
	Identity Identity
	Version  string
	Commit   string
	Broker   Broker
	Done     DoneCache
	Devices  *device.Manager
	Runner   Runner
	Clock    Clock
	// Accounts finds whom a submitter's jobs run as; nil where they run as the
	// daemon's own user.
	Accounts func(ctx context.Context, submitter string) (*runner.Account, error)
	// OpenLedger connects to the ledger; it is called until it succeeds, and
	// twice: the lease has a connection of its own, so that no other work can
	// hold a renewal up. An error of ledger.ErrUnfit is final.
	OpenLedger func(context.Context) (*ledger.Ledger, error)
	Logger     *slog.Logger
	Registerer prometheus.Registerer // of the agent's metrics; nil for none
	// Notify passes states such as READY=1 to the service manager; nil is none.
	Notify func(state string)
	// Watchdog is how long the service manager waits for a sign of life; 0 is for
	// ever.
	Watchdog time.Duration
	// Shutdown says that the host goes down, or does not after all; nil is never.
	Shutdown <-chan Shutdown
	// Jitter returns a random duration of at least 0 and below max for the wait
	// that is named; nil is chance.
	Jitter func(wait string, max time.Duration) time.Duration
	// Faults are what rehearsals do to this host; nil is the real ones.
	Faults Faults
}

// Agent is one host's part in the queue. Run it once.
type Agent struct {
	cfg        config.Config                 // as it was started with
	reloaded   atomic.Pointer[config.Config] // nil before the first reload; see live
	host       string                        // its name
	identity   Identity
	version    string
	commit     string
	broker     Broker
	done       DoneCache
	devices    *device.Manager
	runner     Runner
	clock      Clock
	accounts   func(ctx context.Context, submitter string) (*runner.Account, error) // nil: nobody in particular
	openLedger func(context.Context) (*ledger.Ledger, error)
	// predecessor is the watch of an earlier installation's session; start-up's alone.
	predecessor *watcher
	notify      func(state string)
	managed     bool          // a service manager is told how this daemon fares
	watchdog    time.Duration // 0: it does not wait for signs of life
	shutdown    <-chan Shutdown
	jitter      func(wait string, max time.Duration) time.Duration
	log         *slog.Logger
	metrics     *metrics

	opened   chan struct{}  // closed when the two ledgers are set
	ledger   *ledger.Ledger // of everything but the lease
	renewals *ledger.Ledger // of the lease

	progress progress // of the loops
	lease    *lease
	runs     *runs
	usage    *usage
	tally    atomic.Pointer[jobTally] // nil where other hosts count, or nobody asks
	shapes   *shapes
	evidence *evidence
	hosts    atomic.Pointer[[]*ledger.Host] // as last read by the watch

	doctors    doctors
	rehearsals *rehearsals // nil where the settings allow none
	struck     struck      // requests for faults of devices

	standing standing
	told     told

	drains  *drains // of this host
	avoided avoided
	reach   reach   // whether the ledger answers
	holdOff holdOff // why this host takes nothing for a while
	parting *parting
	ready   atomic.Bool
	wake    chan struct{} // capacity 1: a signal not yet read covers the next

	generation atomic.Uint64 // of the last delivery taken; for AckAcrossGenerations alone

	work sync.WaitGroup // goroutines of single jobs
}

// New returns an agent; it does nothing before Run.
func New(o Options) *Agent {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = SystemClock{}
	}
	managed := o.Notify != nil
	if !managed {
		o.Notify = func(string) {}
	}
	if o.Jitter == nil {
		o.Jitter = func(_ string, max time.Duration) time.Duration { return rand.N(max) }
	}
	o.Logger, o.Config.Host.Pools = log, servedPools(o)
	if o.Faults == nil {
		o.Faults = hostFaults{o.Broker}
	}
	a := &Agent{
		cfg:        o.Config,
		host:       o.Config.Host.Name,
		identity:   o.Identity,
		version:    o.Version,
		commit:     o.Commit,
		broker:     o.Broker,
		done:       o.Done,
		devices:    o.Devices,
		runner:     o.Runner,
		clock:      o.Clock,
		accounts:   o.Accounts,
		openLedger: o.OpenLedger,
		notify:     o.Notify,
		managed:    managed,
		watchdog:   o.Watchdog,
		shutdown:   o.Shutdown,
		jitter:     o.Jitter,
		log:        log,
		metrics:    newMetrics(o.Registerer),
		opened:     make(chan struct{}),
		lease:      &lease{clock: o.Clock, ttl: o.Config.Lease.TTL.Std()},
		progress:   progress{block: o.Faults.Block},
		runs:       newRuns(),
		usage:      newUsage(),
		shapes:     newShapes(),
		evidence:   newEvidence(o.Config.Take.Slack.Std()),
		drains:     newDrains(),
		parting:    newParting(),
		rehearsals: newRehearsals(o),
		avoided:    avoided{until: map[string]time.Time{}},
		wake:       make(chan struct{}, 1),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(newScrape(a), newHealthScrape(a.devices))
		a.devices.ObserveGaps(func(gap time.Duration) { a.metrics.deviceGap.Observe(gap.Seconds()) })
	}
	return a
}

// live returns the settings with what a reload has changed, for what
// config.IsLive names.
func (a *Agent) live() *config.Config {
	if c := a.reloaded.Load(); c != nil {
		return c
	}
	return &a.cfg
}

// Ready reports whether start-up is over.
func (a *Agent) Ready() bool { return a.ready.Load() }

// Reload goes on with what a reload may change of these settings. It may be called
// at any time.
func (a *Agent) Reload(c config.Config) {
	merged, _, _ := a.cfg.Reloaded(c)
	a.reloaded.Store(&merged)
}

// Run takes part in the queue until ctx ends. Then it stops taking work and
// returns; attempts run on under their shims, and the next Run adopts them. An
// error means that this daemon cannot do its work and a person must act.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	start := func(name string, loop func(context.Context) error) {
		group.Go(func() {
			if err := loop(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	watched := func(name string, loop func(context.Context) error) {
		ctx, end := a.follow(ctx, name)
		start(name, func(context.Context) error {
			defer end()
			return loop(ctx)
		})
	}
	start("control requests", a.serveControl)
	if a.managed {
		start("watchdog", a.feed)
		start("status", a.tellStatuses)
	}
	start("shutdown", a.shutdownLoop)
	err := a.enter(ctx)
	if err == nil {
		watched(loopLease, a.renewLoop)
		watched(loopWatch, a.watchLoop)
		watched(loopTake, a.takeLoop)
		watched(loopDrain, a.drainLoop)
		watched(loopAlarms, a.alarmLoop)
		watched(loopSweep, a.sweepLoop)
		start("intake", a.intake)
		start("dead letters", a.drainDead)
		watched(loopProbe, a.probeLoop)
		close(a.parting.entered)
		a.ready.Store(true)
		a.rehearsals.isReady(a.now())
		a.tellStatus()
		a.notify("READY=1")
		a.log.Info("daemon ready", "host", a.host, "session", a.lease.current(), "ledger", a.ledger.Kind())
		<-ctx.Done()
	}
	cancel(nil)
	a.tellLast("stopping")
	group.Wait()
	a.work.Wait()
	a.leave(context.WithoutCancel(ctx))
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// enter opens the ledger, settles what an earlier run left, and opens or
// carries on this host's session.
func (a *Agent) enter(ctx context.Context) error {
	ctx, end := a.follow(ctx, loopStart)
	defer end()
	a.standing.waits("the devices to be found")
	defer a.standing.waits("")
	wake := rest(ctx)
	select {
	case <-a.devices.Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	wake()
	a.standing.waits("the ledger")
	if err := a.openLedgers(ctx); err != nil {
		return err
	}
	a.standing.waits("what an earlier run left to be settled")
	return a.persist(ctx, stepReconcile, a.reconcile)
}

func (a *Agent) openLedgers(ctx context.Context) error {
	err := a.persist(ctx, stepOpenLedger, func(ctx context.Context) (err error) {
		if a.ledger == nil {
			if a.ledger, err = a.openLedger(ctx); err != nil {
				return unfitIsFatal(err)
			}
		}
		a.renewals, err = a.openLedger(ctx)
		return unfitIsFatal(err)
	})
	if err != nil {
		return err
	}
	a.done.SetLedger(a.ledger.ID())
	close(a.opened)
	return nil
}

func unfitIsFatal(err error) error {
	if errors.Is(err, ledger.ErrUnfit) {
		return fatal{err}
	}
	return err
}

// leave closes what Run opened, after a last renewal: the attempts that run on
// have the whole lease for the daemon to come back.
func (a *Agent) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Ledger.Timeout.Std())
	defer cancel()
	if a.renewals != nil && a.lease.current() != "" && !a.lease.isClosed() {
		if err := a.renewOnce(ctx); err != nil {
			a.log.Warn("last renewal of the lease did not succeed", "err", err)
		}
		left := a.lease.left()
		a.log.Info("daemon stopped; its attempts run on under their shims until the lease ends",
			"attempts", a.runs.len(), "duration_seconds", left.Seconds())
		a.tellLast(stoppedLine(a.runs.len(), a.clock.Now().Add(left), a.cfg.Lease.OnLoss))
	}
	switch {
	case a.lease.current() == "":
		a.tellLast("stopped before its start was over; jobs were left alone")
	case a.lease.isClosed():
		a.tellLast("stopped; the host goes down, and others have its jobs")
	}
	for _, l := range []*ledger.Ledger{a.ledger, a.renewals} {
		if l != nil {
			_ = l.Close() // every write was answered: nothing is left to lose
		}
	}
}

// The steps of start-up.
const (
	stepOpenLedger = "open the ledger"
	stepReconcile  = "start up"
)

// Backoff of persist.
const (
	retryWaitMin = 200 * time.Millisecond
	retryWaitMax = 3 * time.Second
)

// persist repeats step until it succeeds, ctx ends, or the error is fatal. It
// logs the first failure of a row and the recovery, not each one.
func (a *Agent) persist(ctx context.Context, what string, step func(context.Context) error) error {
	wait := retryWaitMin
	failed := false
	for {
		beat(ctx)
		err := step(ctx)
		switch {
		case err == nil:
			if failed {
				a.log.Info("step succeeded after failures", "step", what)
			}
			return nil
		case isFatal(err):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if !a.ready.Load() && pulseOf(ctx) != nil {
			a.standing.waits(waitingFor(what, err))
		}
		if !failed {
			a.log.Warn("step is repeated until it succeeds", "step", what, "err", err)
			failed = true
		}
		if err := a.sleep(ctx, wait/2+a.jitter(what, wait)); err != nil {
			return err
		}
		wait = min(2*wait, retryWaitMax)
	}
}

func (a *Agent) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// every calls step at once and then after each interval, until ctx ends. The
// intervals count from start to start.
func (a *Agent) every(ctx context.Context, what string, interval time.Duration, step func(context.Context)) error {
	for {
		tick := time.NewTimer(a.interval(what, interval))
		beat(ctx)
		step(ctx)
		beat(ctx)
		select {
		case <-ctx.Done():
			tick.Stop()
			return nil
		case <-tick.C:
		}
	}
}

// interval shortens an interval by chance, up to a sixteenth, so that neither the
// loops of a daemon nor the daemons of a site go in step.
func (a *Agent) interval(what string, d time.Duration) time.Duration {
	return d - a.jitter(what, d/16)
}

func (a *Agent) now() job.Time { return job.At(a.clock.Now()) }

// wakeUp makes the take loop look at the queues soon.
func (a *Agent) wakeUp() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}
