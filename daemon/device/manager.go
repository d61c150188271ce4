package device

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Manager keeps the one picture of a host's devices. A device is held by one
// attempt, or shared by several, each with a part of its memory. All methods may
// be called from any goroutine.
type Manager struct {
	host      string
	source    Source
	looker    Looker    // source, where it can be asked to look; else nil
	processes Processes // nil: nobody can tell whose a process is
	closed    bool
	silence   time.Duration
	fast      time.Duration
	log       *slog.Logger
	now       func() time.Time
	ready     chan struct{} // closed by the first report
	changed   chan struct{} // capacity 1: a signal that nobody has read yet covers the next
	alarms    chan Alarm
	// isDevice tells whether a device file is there; tests say so themselves.
	isDevice func(path string) bool
	allowed  []string    // programs whose processes may be on any device, as comm has them
	asking   asking      // about processes
	pausing  atomic.Bool // a look is about to be asked for

	mu       sync.Mutex // guards what follows
	entries  map[string]*entry
	windows  map[attemptKey]*window
	breaker  hostBreaker
	good     goodRuns
	asked    uint64 // the last look asked for
	tally    tally
	file     stateFile
	spent    map[State]time.Duration // in each state, stretches that are over
	gap      func(time.Duration)     // ObserveGaps; nil for none
	problem  string                  // what the source last complained of; "" when it is well
	reported bool
	over     map[attemptKey]bool // attempts that the last inventory found over their share
}

// Options are what a Manager may have beside a source. The zero value is none of it.
type Options struct {
	Logger    *slog.Logger
	Processes Processes
	// Allow names programs whose processes may be on any device at any time.
	Allow []string
	// Closed: attempts are held to the device files of Nodes, so that what they need
	// must be there before they start.
	Closed bool
	// Silence is after how long without an inventory a device takes nothing new; 0:
	// its last one counts for ever.
	Silence time.Duration
	// BreakerFast is below what duration a failed attempt is a fast failure; 0: there
	// are no breakers.
	BreakerFast time.Duration
	// StateFile keeps quarantines and breakers over restarts of the daemon, within
	// the boot BootID; "": they end with it.
	StateFile, BootID string
}

// New is NewWith that has only a logger, which may be nil.
func New(host string, source Source, log *slog.Logger) *Manager {
	return NewWith(host, source, Options{Logger: log})
}

// NewWith returns the manager of host's devices; Run feeds it. Until the first
// report it knows only what was adopted, and what its file says.
func NewWith(host string, source Source, o Options) *Manager {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Manager{
		host:      host,
		source:    source,
		processes: o.Processes,
		closed:    o.Closed,
		silence:   o.Silence,
		fast:      o.BreakerFast,
		log:       o.Logger,
		now:       time.Now,
		ready:     make(chan struct{}),
		changed:   make(chan struct{}, 1),
		alarms:    make(chan Alarm, alarmsMax),
		isDevice:  isDevice,
		entries:   map[string]*entry{},
		windows:   map[attemptKey]*window{},
		good:      goodRuns{},
		tally:     newTally(),
		spent:     map[State]time.Duration{},
	}
	m.looker, _ = source.(Looker)
	for _, name := range o.Allow {
		m.allowed = append(m.allowed, comm(name))
	}
	m.openFile(o.StateFile, o.BootID)
	return m
}

// Host returns the name of the host whose devices these are.
func (m *Manager) Host() string { return m.host }

// Run takes in the source's reports until ctx ends. When the source gives up,
// all devices are sick and Run returns its error.
func (m *Manager) Run(ctx context.Context) error {
	err := m.source.Run(ctx, m.take)
	if err == nil || ctx.Err() != nil {
		return nil
	}
	m.take(Report{Version: WireVersion, Error: &ReportError{Kind: HelperFailed, Message: err.Error()}})
	return err
}

// Ready is closed once the source has reported for the first time, be it an
// error.
func (m *Manager) Ready() <-chan struct{} { return m.ready }

// Changed signals that a device may have become free or that its health changed.
// Signals are coalesced into one; there can be one reader.
func (m *Manager) Changed() <-chan struct{} { return m.changed }

// Alarms tells which running attempts must end, and why. An alarm that is not
// read is raised again with the next inventory for as long as its reason lasts.
func (m *Manager) Alarms() <-chan Alarm { return m.alarms }

// Problem returns what is wrong with the source itself, such as a missing
// driver; "" when it is well. It says why a host shows no devices.
func (m *Manager) Problem() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.problem
}

// Snapshot returns every device with its status, by index. The caller owns it.
func (m *Manager) Snapshot() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settleAll()
	all := make([]Status, 0, len(m.entries))
	for _, e := range m.entries {
		all = append(all, e.status())
	}
	slices.SortFunc(all, func(a, b Status) int { return order(a.Device, b.Device) })
	return all
}

// Free returns the devices that can be acquired whole now, by index.
func (m *Manager) Free() []Device {
	var free []Device
	for _, c := range m.Candidates() {
		if !c.Shared {
			free = append(free, c.Device)
		}
	}
	return free
}

func order(a, b Device) int {
	return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.UUID, b.UUID))
}

// settle brings one device's state up to date after its facts changed, logs the
// change and signals it. m.mu is held.
func (m *Manager) settle(e *entry) {
	m.closeOutlived(e, m.now())
	w, since := m.weather(), e.since
	from, changed := e.settle(w)
	before := e.room
	c, _ := e.candidate(w)
	if e.room = c.RoomBytes; e.room > before {
		m.signal() // of a shared device, which stays busy, too
	}
	if !changed {
		return
	}
	m.spend(from, w.now.Sub(since))
	level := slog.LevelInfo
	if e.state == Sick {
		level = slog.LevelWarn
	}
	m.log.Log(context.Background(), level, "device state changed", "device_uuid", e.facts.UUID,
		"state_from", from, "state_to", e.state, "reason", e.reason,
		"job_id", e.first().JobID, "attempt", e.first().Attempt)
	if e.state == Free || e.state == Sick || from == Sick {
		m.signal()
	}
}

// settleAll brings all states up to what time has made of them. m.mu is held.
func (m *Manager) settleAll() {
	for _, e := range m.sorted() {
		m.settle(e)
	}
}

// weather is what decides beside each device's own facts. m.mu is held.
func (m *Manager) weather() weather {
	return weather{now: m.now(), silence: m.silence, fast: m.fast, place: m.host, host: &m.breaker}
}

// sorted returns the devices in the order of people. m.mu is held.
func (m *Manager) sorted() []*entry {
	list := slices.Collect(maps.Values(m.entries))
	slices.SortFunc(list, func(a, b *entry) int { return order(a.facts.Device, b.facts.Device) })
	return list
}

// signal never blocks: a full channel means that the reader will look anyway.
func (m *Manager) signal() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}
