package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"gpuqd/daemon/job"

	"github.com/google/uuid"
)

// Plan is everything that a history depends on. It is plain data: a plan that
// showed a mistake is kept in testdata and run again.
type Plan struct {
	Seed   uint64  `json:"seed"` // of all chance that the plan leaves open
	OnLoss string  `json:"on_loss"`
	Hosts  []Host  `json:"hosts"`
	Jobs   []Job   `json:"jobs"`
	Drains []Drain `json:"drains,omitempty"`
	Faults []Fault `json:"faults"`
	Noise  Noise   `json:"noise"`
	// ConsumerTimeout is the broker's for a delivery that is not acked; 0 is off.
	ConsumerTimeout time.Duration `json:"consumer_timeout,omitempty"`
}

// Host is one GPU host of the site.
type Host struct {
	Name     string        `json:"name"`
	Devices  int           `json:"devices"`
	Model    string        `json:"model,omitempty"`     // of all of them
	GiB      uint64        `json:"gib,omitempty"`       // of memory of each
	ClockOff time.Duration `json:"clock_off,omitempty"` // of its wall clock
}

// Job is one job and what its user does about it.
type Job struct {
	ID          job.ID          `json:"id"`
	At          time.Duration   `json:"at"`            // of its submission
	Via         string          `json:"via,omitempty"` // host whose socket takes it; "" is the broker
	GPUs        int             `json:"gpus"`
	ShareGiB    uint64          `json:"share_gib,omitempty"` // of one device's memory; 0 is whole devices
	Model       string          `json:"model,omitempty"`     // word of its devices' model
	LeastGiB    uint64          `json:"least_gib,omitempty"` // of each device's memory
	Run         time.Duration   `json:"run"`                 // of each attempt
	Codes       []int           `json:"codes,omitempty"`     // exit code of each attempt; 0 where there is none
	MaxAttempts int             `json:"max_attempts"`
	Backoff     []time.Duration `json:"backoff,omitempty"`
	TimeLimit   time.Duration   `json:"time_limit,omitempty"`
	Expires     time.Duration   `json:"expires,omitempty"`
	KillAt      time.Duration   `json:"kill_at,omitempty"`
	HoldAt      time.Duration   `json:"hold_at,omitempty"` // its user holds it, if it has not started
	HoldFor     time.Duration   `json:"hold_for,omitempty"`
	IgnoresTERM bool            `json:"ignores_term,omitempty"`
	Forks       bool            `json:"forks,omitempty"` // what it forks outlives its shim
}

// Drain is what an operator does about a host, or one device of it, and takes
// back.
type Drain struct {
	Host     string        `json:"host"`
	Device   string        `json:"device,omitempty"` // its index; "" is the host
	Mode     string        `json:"mode"`
	Deadline time.Duration `json:"deadline,omitempty"` // for what runs
	At       time.Duration `json:"at"`
	For      time.Duration `json:"for"`
}

// Noise is how often the parts fail by themselves, as long as the faults last.
type Noise struct {
	Lose       float64       `json:"lose,omitempty"`        // a request is lost
	LoseAnswer float64       `json:"lose_answer,omitempty"` // an answer is lost
	Late       float64       `json:"late,omitempty"`        // a request arrives after its caller gave up
	Slow       time.Duration `json:"slow,omitempty"`        // added to the slowest way of a call
}

// Fault breaks one thing, at a time or at a step of the protocol, for a while.
type Fault struct {
	Kind FaultKind     `json:"kind"`
	Host string        `json:"host,omitempty"` // "" is every host
	Part string        `json:"part,omitempty"` // of a wire
	At   time.Duration `json:"at,omitempty"`
	For  time.Duration `json:"for,omitempty"`
	Off  time.Duration `json:"off,omitempty"` // of a clock

	// Where Step is set, it happens at the Nth step of that name on the host,
	// before the step or after it has taken effect.
	Step  string `json:"step,omitempty"`
	Nth   int    `json:"nth,omitempty"`
	After bool   `json:"after,omitempty"`
}

// String is the fault in one line.
func (f Fault) String() string {
	when := f.At.String()
	if f.Step != "" {
		side := "before"
		if f.After {
			side = "after"
		}
		when = fmt.Sprintf("%s %q no. %d", side, f.Step, f.Nth)
	}
	text := fmt.Sprintf("%s %s", f.Kind, when)
	if f.Host != "" {
		text += " on " + f.Host
	}
	if f.Part != "" {
		text += " of " + f.Part
	}
	if f.Off != 0 {
		text += " by " + f.Off.String()
	}
	return text + " for " + f.For.String()
}

// FaultKind names what is broken.
type FaultKind string

// The kinds of faults. The class of a fault's event is its kind.
const (
	KillDaemon   FaultKind = "kill_daemon"   // SIGKILL; started again after For
	StopDaemon   FaultKind = "stop_daemon"   // SIGTERM; started again after For
	FreezeDaemon FaultKind = "freeze_daemon" // SIGSTOP; SIGCONT after For
	CrashHost    FaultKind = "crash_host"    // power off; boots after For, never where that is 0
	FreezeHost   FaultKind = "freeze_host"   // everything on it stands still
	FreezeShims  FaultKind = "freeze_shims"
	LateShim     FaultKind = "late_shim" // the daemon is killed, and its shims stand still until it is back
	KillShim     FaultKind = "kill_shim"
	KillTree     FaultKind = "kill_tree"
	FullDisk     FaultKind = "full_disk"
	SlowDisk     FaultKind = "slow_disk"
	StepClock    FaultKind = "step_clock"

	ShutDown FaultKind = "shut_down" // told before, as logind does; down when it is ready, or at once after shutDownWithin; boots after For
	CallOff  FaultKind = "call_off"  // a shutdown is told, and after For that it does not happen

	CutWire    FaultKind = "cut_wire"    // between a host, or all, and a part
	RefuseWire FaultKind = "refuse_wire" // the part's port is closed
	FreezePart FaultKind = "freeze_part"
	Isolate    FaultKind = "isolate" // all wires of a host

	Leaderless   FaultKind = "leaderless"   // the queues have no leader
	DropBroker   FaultKind = "drop_broker"  // a host's connections break
	RestartAll   FaultKind = "restart_all"  // every connection to the broker breaks
	DiskAlarm    FaultKind = "disk_alarm"   // the broker takes no messages
	CloseOnGet   FaultKind = "close_on_get" // the next gets close their connection
	FlushCache   FaultKind = "flush_cache"  // Redis forgets everything
	FailOver     FaultKind = "fail_over"    // of the ledger
	TornFinds    FaultKind = "torn_finds"   // searches miss or repeat what changes meanwhile
	EverythingAt FaultKind = "everything"   // all daemons die and all brokers restart at once
)

// Bounds of a generated plan.
const (
	jobsMax   = 5
	faultsMax = 4
	drainsMax = 2
	// submitWithin and faultsWithin keep a history short.
	submitWithin = 8 * time.Second
	faultsWithin = 25 * time.Second
)

// NewPlan returns the plan of a seed.
func NewPlan(seed uint64) Plan {
	g := generator{rand.New(rand.NewPCG(seed, 0x67707571))}
	p := Plan{Seed: seed, OnLoss: pick(g, "freeze", "freeze", "freeze", "stop", "continue")}
	for i := range 2 + g.IntN(2) {
		h := Host{Name: fmt.Sprintf("host_%d", i+1), Devices: 1 + g.IntN(2)}
		if g.chance(0.1) {
			h.ClockOff = g.signed(pick(g, time.Second, time.Minute))
		}
		p.Hosts = append(p.Hosts, h)
	}
	for range 1 + g.IntN(jobsMax) {
		p.Jobs = append(p.Jobs, g.job(p.Hosts))
	}
	if g.chance(0.4) {
		p.Noise = Noise{Slow: g.upTo(40 * time.Millisecond)}
		for _, rate := range []*float64{&p.Noise.Lose, &p.Noise.LoseAnswer, &p.Noise.Late} {
			if g.chance(0.5) {
				*rate = g.Float64() * 0.03
			}
		}
	}
	if g.chance(0.1) {
		p.ConsumerTimeout = g.between(5*time.Second, 30*time.Second)
	}
	theme := pick(g, themes...)
	if theme.long {
		for i := range p.Jobs {
			p.Jobs[i].Run = g.between(20*time.Second, 50*time.Second)
		}
	}
	for range g.IntN(faultsMax + 1) {
		p.Faults = append(p.Faults, g.fault(p.Hosts, theme))
		if !p.placeable() {
			p.Faults[len(p.Faults)-1].For = 20 * time.Second
		}
	}
	g.operate(&p)
	if g.chance(0.25) { // last, so that what else a seed means stays
		p.Faults = append(p.Faults, g.shutdown(p.Hosts, theme))
	}
	if g.chance(0.35) { // as the shutdown
		g.diversify(&p)
	}
	return p
}

// operate adds what people do about jobs and hosts.
func (g generator) operate(p *Plan) {
	if g.chance(0.3) {
		for range 1 + g.IntN(drainsMax) {
			p.Drains = append(p.Drains, g.drain(p.Hosts))
		}
	}
	for i := range p.Jobs {
		if j := &p.Jobs[i]; g.chance(0.12) {
			j.HoldAt = j.At + pick(g, g.upTo(500*time.Millisecond), g.upTo(15*time.Second))
			j.HoldFor = g.upTo(20 * time.Second)
		}
	}
}

func (g generator) drain(hosts []Host) Drain {
	h := hosts[g.IntN(len(hosts))]
	d := Drain{
		Host: h.Name, Mode: pick(g, "finish", "requeue", "requeue", "kill"),
		At: g.upTo(faultsWithin), For: g.between(time.Second, 30*time.Second),
	}
	if g.chance(0.5) {
		d.Device = fmt.Sprint(g.IntN(h.Devices))
	}
	if g.chance(0.5) {
		d.Deadline = g.upTo(10 * time.Second)
	}
	return d
}

// placeable reports whether every job fits a host that does not go for good.
func (p Plan) placeable() bool {
	gone := map[string]bool{}
	for _, f := range p.Faults {
		if f.Kind == CrashHost && f.For == 0 {
			gone[f.Host] = true
		}
	}
	return !slices.ContainsFunc(p.Jobs, func(j Job) bool {
		return !slices.ContainsFunc(p.Hosts, func(h Host) bool { return !gone[h.Name] && j.fits(h) })
	})
}

// generator draws a plan. Its draws are made in order, before the history begins.
type generator struct{ *rand.Rand }

func pick[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

func (g generator) chance(p float64) bool { return g.Float64() < p }

func (g generator) upTo(most time.Duration) time.Duration {
	return time.Duration(g.Int64N(int64(most))) + 1
}

func (g generator) between(low, high time.Duration) time.Duration { return low + g.upTo(high-low) }

func (g generator) signed(most time.Duration) time.Duration {
	return pick(g, -1, time.Duration(1)) * g.upTo(most)
}

func (g generator) id() job.ID {
	var u uuid.UUID
	for i := range u {
		u[i] = byte(g.Uint32())
	}
	u[6], u[8] = u[6]&0x0f|0x70, u[8]&0x3f|0x80 // version 7, RFC variant
	return job.ID(u.String())
}

func (g generator) job(hosts []Host) Job {
	devices := 0
	for _, h := range hosts {
		devices = max(devices, h.Devices)
	}
	j := Job{
		ID: g.id(), At: g.upTo(submitWithin), GPUs: pick(g, 0, 1, 1, 1, 1), MaxAttempts: 1,
		Run: pick(g, g.upTo(2*time.Second), g.upTo(10*time.Second), g.upTo(30*time.Second)),
	}
	if devices > 1 && g.chance(0.2) {
		j.GPUs = devices
	}
	if g.chance(0.4) {
		j.Via = hosts[g.IntN(len(hosts))].Name
	}
	if g.chance(0.3) {
		j.MaxAttempts = 1 + g.IntN(3)
		for range 1 + g.IntN(3) {
			j.Codes = append(j.Codes, pick(g, 0, 1, 3))
		}
		j.Backoff = []time.Duration{pick(g, time.Second, 2*time.Second, 5*time.Second)}
	}
	if g.chance(0.1) {
		j.TimeLimit = g.between(time.Second, 20*time.Second)
	}
	if g.chance(0.05) {
		j.Expires = g.between(time.Second, 30*time.Second)
	}
	if g.chance(0.15) {
		j.KillAt = j.At + g.upTo(20*time.Second)
	}
	j.IgnoresTERM, j.Forks = g.chance(0.1), g.chance(0.1)
	return j
}

// wires are the parts that a wire leads to.
var wires = []string{"ledger", "broker", "redis"}

// theme makes some faults meet more often than chance would have it.
type theme struct {
	kinds []FaultKind
	steps []string
	long  bool // jobs that run longer than a lease
}

var themes = []theme{
	{kinds: everyKind, steps: steps},
	{kinds: everyKind, steps: steps},
	{
		kinds: []FaultKind{FreezeDaemon, FreezeDaemon, FreezeHost, Isolate, CutWire, FreezePart, StepClock, KillDaemon, CrashHost},
		steps: []string{"ledger renew", "ledger renew", "ledger end session", "ledger takeover", "ledger claimed"}, long: true,
	},
	{
		kinds: []FaultKind{KillDaemon, LateShim, LateShim, FreezeShims, KillShim, SlowDisk, CrashHost, FullDisk, StopDaemon},
		steps: []string{"ledger claimed", "disk begin", "disk start", "shim lock", "shim started", "shim exec", "shim exit"},
	},
	{
		kinds: []FaultKind{Leaderless, Leaderless, DropBroker, RestartAll, CloseOnGet, DiskAlarm, CutWire, KillDaemon},
		steps: []string{"broker take", "broker publish", "broker ack", "broker depth", "ledger submit", "ledger republish"}, long: true,
	},
}

// everyKind lists the kinds of faults, as often as they are worth it.
var everyKind = []FaultKind{
	KillDaemon, KillDaemon, KillDaemon, KillDaemon, StopDaemon, FreezeDaemon, FreezeDaemon, CrashHost, CrashHost, FreezeHost,
	FreezeShims, LateShim, KillShim, KillShim, KillTree, FullDisk, SlowDisk, StepClock, CutWire, CutWire, RefuseWire, FreezePart,
	Isolate, Isolate, Leaderless, DropBroker, DropBroker, RestartAll, DiskAlarm, CloseOnGet, FlushCache, FailOver, TornFinds,
	EverythingAt,
}

func (g generator) fault(hosts []Host, theme theme) Fault {
	one := hosts[g.IntN(len(hosts))].Name
	anyone := pick(g, one, "")
	f := Fault{At: g.upTo(faultsWithin), Host: one}
	f.Kind = pick(g, theme.kinds...)
	f.For = pick(g, g.upTo(2*time.Second), g.upTo(10*time.Second), g.between(10*time.Second, 40*time.Second))
	switch f.Kind {
	case FreezeShims, LateShim:
		// A shim that stands still beyond its lease cannot freeze its attempt: who
		// stops shims by hand is not promised anything.
		f.For = g.between(3*time.Second, 4*time.Second)
	case CrashHost:
		if g.chance(0.3) {
			f.For = 0
		}
	case StepClock:
		f.Off = g.signed(pick(g, time.Second, time.Minute, time.Hour))
	case CutWire, RefuseWire, FreezePart:
		f.Part, f.Host = wires[g.IntN(len(wires))], anyone
	case Leaderless, RestartAll, DiskAlarm, FlushCache, FailOver, TornFinds, EverythingAt:
		f.Host = ""
	case CloseOnGet, DropBroker:
		f.Host = anyone
	}
	if atStep[f.Kind] && g.chance(0.6) {
		f.At, f.Step = 0, pick(g, theme.steps...)
		f.Nth, f.After = 1+g.IntN(3), g.chance(0.5)
	}
	return f
}

// laterKinds are the kinds that are drawn apart from everyKind.
var laterKinds = []FaultKind{ShutDown, CallOff}

// shutDownWithin is how long a host waits for its daemon before it goes down: the
// default of logind's InhibitDelayMaxSec.
const shutDownWithin = 5 * time.Second

func (g generator) shutdown(hosts []Host, theme theme) Fault {
	f := Fault{Kind: pick(g, laterKinds...), Host: hosts[g.IntN(len(hosts))].Name, At: g.upTo(faultsWithin)}
	if f.Kind == ShutDown {
		f.For = g.between(shutDownWithin+time.Second, 40*time.Second)
	} else {
		f.For = g.between(2*wordMax, 8*time.Second) // the second word comes after the first
	}
	if g.chance(0.4) {
		f.At, f.Step = 0, pick(g, theme.steps...)
		f.Nth, f.After = 1+g.IntN(3), g.chance(0.5)
	}
	return f
}

// atStep are the faults that can strike at a step of the protocol.
var atStep = map[FaultKind]bool{
	KillDaemon: true, StopDaemon: true, FreezeDaemon: true, CrashHost: true, FreezeHost: true, FreezeShims: true,
	LateShim: true, KillShim: true, DropBroker: true, RestartAll: true, FailOver: true, CutWire: true, Isolate: true, FullDisk: true,
}
