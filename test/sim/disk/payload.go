package disk

import (
	"slices"
	"time"

	"gpuqd/test/history"
	"gpuqd/test/sim/world"

	"golang.org/x/sys/unix"
)

// tree is an attempt's command and what it forked. It runs, stands still, or is
// over; its time is the time in which it ran.
type tree struct {
	d    *Disk
	e    *entry
	shim *shim
	proc *world.Process // stands still and dies with the host
	what Payload
	pid  int

	// Guarded by the world's instant.
	begun  bool // released
	over   bool
	halted bool
	code   int // as an exit record has it, once it is over
	signal unix.Signal
	run    time.Duration // in which it ran, up to since
	since  time.Duration // of the world; it ran or stood still from there on
	paused time.Duration // for how long the host had been by then
	last   time.Duration // how long it is to run
	timer  *time.Timer   // fires when it may have
}

// latency keeps ends from the instants at which shims look: a payload's time is
// up to this much longer than it was asked for.
const latency = time.Millisecond

// fork makes the command, which waits to be released.
func (d *Disk) fork(s *shim) *tree {
	t := &tree{d: d, e: s.e, shim: s, what: d.payload(s.e.key.JobID, s.e.key.Attempt)}
	t.last = t.what.Run + d.world.Between(1, latency, d.host.Name(), "payload", s.e.name)
	t.proc = d.host.Start("payload", t.died)
	return t
}

// died is SIGKILL from outside: of the host's crash, or where it is over already.
func (t *tree) died() {
	t.d.world.Do(func() {
		t.d.crash()
		t.kill()
	})
}

// begin is the payload's first instruction. Within Do, as all that follows.
func (t *tree) begin(now time.Duration) {
	if t.over {
		return
	}
	t.begun, t.since, t.paused = true, now, t.d.pausedFor(now)
	t.d.trees = append(t.d.trees, t)
	t.record(history.Event{Kind: history.Began, Devices: t.e.in.Devices, Share: t.e.in.GPUMemoryBytes})
	t.timer = time.AfterFunc(t.last, t.look)
}

func (t *tree) record(e history.Event) {
	e.Job, e.Attempt, e.Host = t.e.key.JobID, t.e.key.Attempt, t.d.host.Name()
	t.d.world.Record(e)
}

// ran returns how long it has run.
func (t *tree) ran(now time.Duration) time.Duration {
	if t.halted || !t.begun {
		return t.run
	}
	return t.run + (now - t.since) - (t.d.pausedFor(now) - t.paused)
}

// look ends it where its time is over.
func (t *tree) look() {
	if t.proc.Wait() != nil { // until the host goes on
		return
	}
	t.d.world.Do(func() {
		now := t.d.world.Now()
		switch left := t.last - t.ran(now); {
		case t.over || t.halted:
		case left > 0:
			t.timer.Reset(left)
		default:
			t.end(t.what.Code, 0, true)
		}
	})
	t.bury()
}

func (t *tree) halt(now time.Duration) {
	if t.over || t.halted || !t.begun {
		return
	}
	t.run = t.ran(now)
	t.halted = true
	t.timer.Stop()
	t.record(history.Event{Kind: history.Halted})
}

func (t *tree) goOn(now time.Duration) {
	if t.over || !t.halted {
		return
	}
	t.halted, t.since, t.paused = false, now, t.d.pausedFor(now)
	t.timer.Reset(t.last - t.run)
	t.record(history.Event{Kind: history.Went})
}

// terminate is SIGTERM.
func (t *tree) terminate() {
	if !t.what.IgnoresTERM {
		t.end(128+int(unix.SIGTERM), unix.SIGTERM, false)
	}
}

// kill is SIGKILL.
func (t *tree) kill() { t.end(128+int(unix.SIGKILL), unix.SIGKILL, false) }

func (t *tree) end(code int, signal unix.Signal, complete bool) {
	if t.over {
		return
	}
	t.over, t.code, t.signal = true, code, signal
	if !t.begun {
		return
	}
	t.timer.Stop()
	t.d.trees = slices.DeleteFunc(t.d.trees, func(o *tree) bool { return o == t })
	t.record(history.Event{Kind: history.Finished, Code: code, Complete: complete})
	if t.d.host.Up() { // else the shim dies at this instant too, and must do nothing
		t.shim.ring()
	}
}

// bury removes the process of a tree that is over. Not within Do.
func (t *tree) bury() {
	over := false
	t.d.world.Do(func() { over = t.over })
	if over {
		t.proc.Kill()
	}
}

// pauses adds up for how long the host itself stood still, by the history of its
// world.
type pauses struct {
	seen  int // events that were looked at
	boot  string
	since time.Duration // of the pause that lasts; -1 where none does
	total time.Duration
}

// pausedFor returns for how long the host has stood still since the world began.
// Within Do.
func (d *Disk) pausedFor(now time.Duration) time.Duration {
	p, events := &d.pauses, d.world.Events()
	for ; p.seen < len(events); p.seen++ {
		e := &events[p.seen]
		if e.Host != d.host.Name() || e.Kind != history.Paused && e.Kind != history.Resumed {
			continue
		}
		at := now - time.Since(e.At)
		switch {
		case e.Kind == history.Paused && p.since < 0:
			p.since = at
		case e.Kind == history.Resumed && p.since >= 0:
			p.total += at - p.since
			p.since = -1
		}
	}
	if p.since >= 0 {
		return p.total + now - p.since
	}
	return p.total
}

// inBoot notes the boot that a process runs in: a pause does not outlast one.
// Within Do.
func (d *Disk) inBoot(boot string) {
	d.pausedFor(d.world.Now())
	if d.pauses.boot != boot {
		d.pauses.boot, d.pauses.since = boot, -1
	}
}
