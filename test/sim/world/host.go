package world

import (
	"context"
	"fmt"
	"slices"
	"time"
	"unsafe"

	"gpuqd/test/history"
)

// Host is one machine.
type Host struct {
	world *World
	name  string

	// What follows is guarded by the world's instant.
	boots     int
	bootedAt  time.Duration
	clockOff  time.Duration
	up        bool
	processes []*Process      // by their starts
	frozen    map[string]bool // names of processes that stand still; "" is all
}

// NewHost returns a host that is up.
func (w *World) NewHost(name string) *Host {
	return &Host{world: w, name: name, boots: 1, up: true, frozen: map[string]bool{}}
}

// Name returns the host's name.
func (h *Host) Name() string { return h.name }

// World returns the world that the host is in.
func (h *Host) World() *World { return h.world }

// BootID names this boot.
func (h *Host) BootID() string {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	return fmt.Sprintf("boot-%s-%d", h.name, h.boots)
}

// Boottime is the host's CLOCK_BOOTTIME. It does not wait for a frozen process:
// one that reads the clock while it stands still has read it just before.
func (h *Host) Boottime() time.Duration {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	return time.Since(h.world.began) - h.bootedAt + time.Hour
}

// Now is the host's wall clock, with a monotonic reading that no step moves.
func (h *Host) Now() time.Time {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	now := time.Now()
	return reading(now.Add(h.clockOff), now.Sub(h.world.began)+time.Hour)
}

// StepClock sets the wall clock so far off the true time. The monotonic clock
// goes on.
func (h *Host) StepClock(off time.Duration) {
	h.world.Do(func() { h.clockOff = off })
}

// reading returns what time.Now returns on a host: the wall clock, and beside it a
// monotonic reading that no step of the wall clock moves. A bubble's own time.Now
// has no such reading, and no function of package time sets one. The layout is
// that of time.Time since Go 1.9; TestReading holds it.
func reading(wall time.Time, monotonic time.Duration) time.Time {
	t := wall
	*(*struct {
		wall uint64 // the top bit says that this is the layout; 33 bits of seconds since 1885, 30 of nanoseconds
		ext  int64  // the monotonic reading
	})(unsafe.Pointer(&t)) = struct {
		wall uint64
		ext  int64
	}{1<<63 | uint64(wall.Unix()-year1885)<<30 | uint64(wall.Nanosecond()), int64(monotonic)}
	return t
}

var year1885 = time.Date(1885, 1, 1, 0, 0, 0, 0, time.UTC).Unix()

// Up reports whether the host runs. Call it within Do.
func (h *Host) Up() bool { return h.up }

// Crash ends the host and everything on it at this instant, disks excepted.
func (h *Host) Crash() {
	h.world.mu.Lock()
	h.up = false
	all := slices.Clone(h.processes)
	h.world.mu.Unlock()
	for _, p := range all {
		p.Kill()
	}
}

// Boot starts a crashed host again.
func (h *Host) Boot() {
	h.world.Do(func() {
		h.up, h.bootedAt = true, time.Since(h.world.began)
		h.boots++
		clear(h.frozen)
	})
}

// Freeze lets the processes of a name stand still, or all where it is "", until
// Thaw.
func (h *Host) Freeze(name string) {
	h.world.Do(func() {
		h.frozen[name] = true
		if name == "" {
			h.world.Record(history.Event{Kind: history.Paused, Host: h.name})
		}
		for _, p := range h.processes {
			p.freeze()
		}
	})
}

// Thaw ends Freeze.
func (h *Host) Thaw(name string) {
	h.world.Do(func() {
		delete(h.frozen, name)
		if name == "" {
			h.world.Record(history.Event{Kind: history.Resumed, Host: h.name})
		}
		for _, p := range h.processes {
			p.freeze()
		}
	})
}

// Process is one run of one program on a host. When it dies its calls return
// ErrDead, and nothing that it does any more reaches a part: its goroutines run
// out.
type Process struct {
	host *Host
	name string // "gpuqd", "shim"
	dead chan struct{}
	exit func() // called once at its death, outside of any instant

	// Guarded by the world's instant.
	gone bool
	ice  chan struct{} // closed at the thaw; nil while it goes
}

// Start starts a process, unless the host is down: then it is dead at once. exit
// is called at its death.
func (h *Host) Start(name string, exit func()) *Process {
	p := &Process{host: h, name: name, dead: make(chan struct{}), exit: exit}
	h.world.mu.Lock()
	up := h.up
	if up {
		h.processes = append(h.processes, p)
		p.freeze()
	}
	h.world.mu.Unlock()
	if !up {
		p.Kill()
	}
	return p
}

// Host returns the host it runs on.
func (p *Process) Host() *Host { return p.host }

// Dead is closed at the process's death.
func (p *Process) Dead() <-chan struct{} { return p.dead }

// Gone reports whether it is dead. Call it within Do.
func (p *Process) Gone() bool { return p.gone }

// Frozen reports whether it stands still. Call it within Do.
func (p *Process) Frozen() bool { return p.ice != nil }

// Kill ends the process, as SIGKILL does.
func (p *Process) Kill() {
	p.host.world.mu.Lock()
	already := p.gone
	p.gone = true
	p.host.processes = slices.DeleteFunc(p.host.processes, func(q *Process) bool { return p == q })
	p.host.world.mu.Unlock()
	if already {
		return
	}
	close(p.dead)
	if p.exit != nil {
		p.exit()
	}
}

// freeze brings the ice in line with the host's orders. Within Do.
func (p *Process) freeze() {
	cold := p.host.frozen[""] || p.host.frozen[p.name]
	switch {
	case cold && p.ice == nil:
		p.ice = make(chan struct{})
	case !cold && p.ice != nil:
		close(p.ice)
		p.ice = nil
	}
}

// Wait returns once the process goes, at once where it is not frozen; ErrDead
// where it is dead.
func (p *Process) Wait() error { return p.enter(context.Background()) }

func (p *Process) enter(ctx context.Context) error {
	for {
		p.host.world.mu.Lock()
		gone, ice := p.gone, p.ice
		p.host.world.mu.Unlock()
		if gone {
			return ErrDead
		}
		if ice == nil {
			return ctx.Err()
		}
		select {
		case <-ice:
		case <-p.dead:
		}
	}
}
