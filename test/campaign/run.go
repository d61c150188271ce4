package campaign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"gpuqd/daemon/job"
)

// Options say what a campaign is.
type Options struct {
	Seed   uint64
	Ledger string // config.LedgerSQLite or config.LedgerMongoDB
	Plan   PlanOptions
	Work   WorkOptions // Span is filled in: the faults'

	BinDir  string // gpuqd, gpuqctl, gpuqd-shim
	Program string // path of gpuq-campaign, which the jobs run
	Dir     string // of all files, removed at the end; "" is a temporary one
	// Evidence is a directory for what the judgement rests on: documents, events,
	// logs. "" keeps nothing.
	Evidence string
	Progress io.Writer
}

// The bounds of a campaign's phases, on two slow cores.
const (
	startTimeout = 5 * time.Minute
	healTimeout  = 5 * time.Minute
	// drainTimeout bounds the time from the end of the last fault to the end of
	// the last job.
	drainTimeout = 10 * time.Minute
	quietTimeout = 3 * time.Minute
)

// campaign is one that runs.
type campaign struct {
	o       Options
	rig     *rig
	clients *clients
	log     *slog.Logger
	plan    []Fault
	jobs    []Job
	zero    time.Time // when the first fault and job could come

	probes probes
	mu     sync.Mutex
	blows  []*blow
	errs   []error // of submissions and kills
}

// Run runs a campaign and returns its result, which may tell of broken promises.
// An error means that it could not be run to its end.
func Run(ctx context.Context, o Options) (result *Result, err error) {
	dir := o.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "gpuq-campaign-"); err != nil {
			return nil, err
		}
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c := &campaign{o: o, plan: Plan(o.Seed, o.Plan), probes: probes{all: map[int][]probe{}}}
	c.o.Work.Span = Span(c.plan)
	c.jobs = Work(o.Seed, c.o.Work)
	c.log = slog.New(slog.NewTextHandler(o.Progress, nil))
	c.log.Info("campaign", "seed", o.Seed, "ledger", o.Ledger, "faults", len(c.plan), "jobs", len(c.jobs), "minutes", c.o.Work.Span.Minutes())
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if c.rig, err = newRig(starting, o, dir, c.log); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.rig.end()) }()
	if err := c.rig.Start(starting); err != nil {
		return nil, err
	}
	return c.run(ctx, dir)
}

func (c *campaign) run(ctx context.Context, dir string) (*Result, error) {
	began := time.Now()
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	defer c.clients.close()
	c.zero = time.Now()
	var work, faults sync.WaitGroup
	working, stop := context.WithCancel(ctx)
	defer stop()
	for _, j := range c.jobs {
		work.Go(func() { c.note(c.submit(working, j)) })
	}
	for _, f := range c.plan {
		faults.Go(func() { c.fault(working, &work, f) })
	}
	faults.Wait()
	c.log.Info("all faults are over")
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	healing, cancel := context.WithTimeout(ctx, healTimeout)
	defer cancel()
	healed := c.rig.heal(healing)
	at := time.Now()
	c.note(c.drain(ctx, &work, stop))
	h, err := c.harvest(ctx, dir)
	if err != nil {
		return nil, errors.Join(healed, err)
	}
	h.began, h.healed = began, at
	c.note(healed)
	return c.judge(h)
}

// open makes the clients and waits until every host has run a probe.
func (c *campaign) open(ctx context.Context) error {
	cfg, err := c.rig.clientConfig()
	if err != nil {
		return err
	}
	c.clients = newClients(cfg, c.o.Seed)
	if err := c.rig.describe(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, host := range c.rig.Workers() {
		all.Go(func() { c.note(c.ask(ctx, 0, host, time.Now())) })
	}
	all.Wait()
	for _, p := range c.probes.list()[0] {
		if _, err := c.waitEnd(ctx, p.id); err != nil {
			return fmt.Errorf("before the first fault: %w", err)
		}
	}
	return nil
}

// note keeps an error for the judgement.
func (c *campaign) note(err error) {
	if err == nil {
		return
	}
	c.log.Error("campaign", "err", err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs = append(c.errs, err)
}

// submit hands a job in at its time, and has it killed at its own.
func (c *campaign) submit(ctx context.Context, j Job) error {
	if err := pause(ctx, time.Until(c.zero.Add(j.At))); err != nil {
		return err
	}
	if err := c.clients.submit(ctx, j.ID, j.Spec(c.rig.self, c.rig.witness)); err != nil {
		return err
	}
	if j.Kind != Unwanted {
		return nil
	}
	if err := pause(ctx, j.KillAt); err != nil {
		return err
	}
	return c.clients.kill(ctx, j.ID)
}

// fault does a fault at its time and asks the hosts that it concerns when they
// work again.
func (c *campaign) fault(ctx context.Context, work *sync.WaitGroup, f Fault) {
	if pause(ctx, time.Until(c.zero.Add(f.At))) != nil {
		return
	}
	k := kindOf(f.Class)
	b := &blow{Fault: f}
	if !k.fromEnd {
		b.onHit = func() { c.askAll(ctx, work, b, b.began) }
	}
	c.rig.strike(ctx, b)
	c.mu.Lock()
	c.blows = append(c.blows, b)
	c.mu.Unlock()
	if b.err != nil {
		c.log.Error("fault", "number", f.Number, "class", f.Class, "target", b.target, "err", b.err)
		return
	}
	c.log.Info("fault", "number", f.Number, "class", f.Class, "target", b.target, "lasted_seconds", b.ended.Sub(b.began).Seconds())
	if k.fromEnd {
		c.askAll(ctx, work, b, b.ended)
	}
}

// askAll submits a probe to every host that a fault concerns.
func (c *campaign) askAll(ctx context.Context, work *sync.WaitGroup, b *blow, from time.Time) {
	for _, host := range b.hosts {
		work.Go(func() { c.note(c.ask(ctx, b.Number, host, from)) })
	}
}

func (c *campaign) ask(ctx context.Context, fault int, host string, from time.Time) error {
	p := probe{id: job.NewID(), host: host, from: from}
	c.probes.add(fault, p)
	return c.clients.submit(ctx, p.id, probeSpec(c.rig.self, c.rig.witness, host))
}

// machine says what the campaign ran on.
func machine() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		release = []byte("?")
	}
	// What a vendor appends to it says nothing to a reader.
	upstream, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-")
	return fmt.Sprintf("%d cores, Linux %s", runtime.NumCPU(), upstream)
}
