package sim

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/config"
	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/test/sim/cache"
	"gpuqd/test/sim/disk"
	"gpuqd/test/sim/store"
	"gpuqd/test/sim/world"
)

// host is one machine of the site, with the service manager that starts its
// daemon again whenever it ends.
type host struct {
	site *site
	plan Host
	host *world.Host
	disk *disk.Disk
	free chan struct{} // capacity 1: held may be 0 again

	// Guarded by the world's instant.
	held   int     // faults that keep the daemon down
	daemon *daemon // nil while none runs
	runs   int
}

func (s *site) newHost(p Host) *host {
	h := &host{site: s, plan: p, host: s.world.NewHost(p.Name), free: make(chan struct{}, 1)}
	h.host.StepClock(p.ClockOff)
	h.disk = disk.New(h.host, disk.Options{Payload: s.payload})
	return h
}

// payload is what a job's command does at an attempt.
func (s *site) payload(id job.ID, attempt int) disk.Payload {
	j := s.jobOf(id)
	p := disk.Payload{Run: j.Run, IgnoresTERM: j.IgnoresTERM, Forks: j.Forks}
	if attempt <= len(j.Codes) {
		p.Code = j.Codes[attempt-1]
	}
	return p
}

// keepDown keeps the daemon from being started until letUp.
func (h *host) keepDown() { h.site.world.Do(func() { h.held++ }) }

func (h *host) letUp() {
	h.site.world.Do(func() { h.held-- })
	select {
	case h.free <- struct{}{}:
	default:
	}
}

// running returns the daemon, nil where none runs.
func (h *host) running() (d *daemon) {
	h.site.world.Do(func() { d = h.daemon })
	return d
}

// tell says something of the host to its daemon, if one runs. It waits for nothing:
// the word is under way for a moment, so that it meets the daemon at an instant of
// its own, whatever that does at the step where a fault strikes.
func (h *host) tell(word agent.Shutdown) {
	h.site.work.Go(func() {
		if !h.site.pause(h.site.world.Between(time.Millisecond, wordMax, h.plan.Name, "word")) {
			return
		}
		if d := h.running(); d != nil {
			d.words <- word
		}
	})
}

// wordMax is how long a word to a daemon is under way at most.
const wordMax = 20 * time.Millisecond

// supervise keeps a daemon running until the history ends.
func (h *host) supervise() {
	for h.mayStart() {
		d := h.start()
		<-d.over
		h.site.world.Do(func() { h.daemon = nil })
		if !h.site.pause(h.site.world.Between(time.Second, 3*time.Second, h.plan.Name, "restart")) {
			return
		}
	}
}

func (h *host) mayStart() bool {
	for {
		held := 0
		h.site.world.Do(func() { held = h.held })
		if h.site.over.Err() != nil {
			return false
		}
		if held == 0 {
			return true
		}
		select {
		case <-h.free:
		case <-h.site.over.Done():
		}
	}
}

// daemon is one run of gpuqd.
type daemon struct {
	process *world.Process
	agent   *agent.Agent
	stop    context.CancelFunc // as SIGTERM does
	words   chan agent.Shutdown
	over    chan struct{} // closed when it has ended
}

// start starts the real agent over the simulated parts.
func (h *host) start() *daemon {
	s := h.site
	ctx, cancel := context.WithCancel(context.Background())
	// As many as a plan can say in a row; a signal that nobody reads waits.
	d := &daemon{stop: cancel, over: make(chan struct{}), words: make(chan agent.Shutdown, 2*(faultsMax+1))}
	d.process = h.host.Start("gpuqd", cancel)
	h.runs++
	devices := device.New(h.plan.Name, &device.Simulated{Host: h.plan.Name, Count: h.plan.Devices, Model: h.plan.Model, MemoryBytes: h.plan.GiB << 30}, nil)
	books := &books{host: h, process: d.process}
	options := agent.Options{
		Config: h.config(), Version: "simulated", Commit: "simulated",
		Identity: agent.Identity{InstallID: "install-" + h.plan.Name, MachineID: "machine-" + h.plan.Name, BootID: h.host.BootID()},
		Broker:   s.queue.Connect(d.process, "gpuqd"),
		Done:     cache.NewClient(s.cache, d.process, 200*time.Millisecond), Devices: devices, Runner: h.disk.Open(d.process), Clock: h.host,
		OpenLedger: books.open, Shutdown: d.words,
		Jitter: func(wait string, most time.Duration) time.Duration {
			return s.world.Between(0, most, h.plan.Name, wait, "jitter")
		},
	}
	if s.log != nil {
		options.Logger = slog.New(s.log).With("on", h.plan.Name)
	}
	if s.tune != nil {
		s.tune(&options)
	}
	d.agent = agent.New(options)
	s.world.Do(func() { h.daemon = d })
	go func() {
		defer close(d.over)
		inventory := make(chan struct{})
		go func() {
			defer close(inventory)
			_ = devices.Run(ctx) // simulated devices never give up
		}()
		err := d.agent.Run(ctx)
		if err != nil && ctx.Err() == nil && options.Logger != nil {
			options.Logger.Error("daemon ended", "err", err)
		}
		cancel()
		<-inventory
		d.process.Kill()
		books.giveBack()
	}()
	return d
}

// slack is the agents' take.slack.
const slack = 10 * time.Second

func (h *host) config() config.Config {
	second := func(n int) job.Duration { return job.Duration(time.Duration(n) * time.Second) }
	cfg := config.Default()
	cfg.Host.Name, cfg.Host.SlotsWithoutGPU = h.plan.Name, 1
	cfg.Host.StateDir, cfg.Runner.WorkRoot = "/nonexistent", "/nonexistent"
	cfg.Broker.User = "gpuqd"
	cfg.Ledger.Timeout = second(3)
	cfg.Lease.TTL, cfg.Lease.Renew, cfg.Lease.OnLoss = second(15), second(5), h.site.plan.OnLoss
	cfg.Take.Tick, cfg.Take.Slack, cfg.Take.ClaimTimeout = second(5), job.Duration(slack), second(20)
	cfg.Control.Socket = ""
	return cfg
}

// books are the ledgers of one run of a daemon.
type books struct {
	host    *host
	process *world.Process
	lent    []*book
}

// book is a ledger over a port. Opening one proves its compare-and-set, which
// takes longer than a history: they are used again.
type book struct {
	port   *store.Port
	ledger *ledger.Ledger
}

// shelf holds the books that nobody uses. One history runs at a time.
var shelf struct {
	mu    sync.Mutex
	books []*book
}

// takeBook returns one of the shelf, nil where it is empty.
func takeBook() *book {
	shelf.mu.Lock()
	defer shelf.mu.Unlock()
	n := len(shelf.books)
	if n == 0 {
		return nil
	}
	one := shelf.books[n-1]
	shelf.books = shelf.books[:n-1]
	return one
}

func newBook() (*book, error) {
	port := store.NewPort()
	l, err := ledger.Open(context.Background(), port)
	return &book{port, l}, err
}

// open is the agent's way to its ledger.
func (b *books) open(ctx context.Context) (*ledger.Ledger, error) {
	err := b.process.Do(ctx, world.Call{
		Part: store.Part, Step: "ledger open", Timeout: 3 * time.Second, Effect: func() {},
	})
	if err != nil {
		return nil, err
	}
	one := takeBook()
	if one == nil {
		if one, err = newBook(); err != nil {
			return nil, err
		}
	}
	which := "work"
	if len(b.lent) > 0 {
		which = "lease"
	}
	b.lent = append(b.lent, one)
	b.host.site.store.Attach(one.port, b.process, which)
	return one.ledger, nil
}

func (b *books) giveBack() {
	shelf.mu.Lock()
	defer shelf.mu.Unlock()
	for _, one := range b.lent {
		one.port.Detach()
		shelf.books = append(shelf.books, one)
	}
}
