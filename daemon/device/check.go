package device

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// cleanMost is for how long an attempt's leftovers are ended and looked at again
	// before the device is sick with them. The checking goes on.
	cleanMost = 10 * time.Second
	// cleanPause lies between two looks at a device that was not clean.
	cleanPause = 200 * time.Millisecond
	// idleSlackBytes is how much more than when idle a clean device may use: what a
	// driver keeps back varies by less.
	idleSlackBytes = 64 << 20
	// idleUnknownBytes is what an idle device uses at most where nobody has seen it
	// idle: drivers that do not tell what they reserve count it in.
	idleUnknownBytes = 1 << 30
)

// check is what a device waits for after an attempt, when it is seen for the first time,
// or with somebody else's process on it: an inventory in which it is clean.
type check struct {
	look     uint64 // the inventory must be at least this look; 0: any that comes counts
	since    time.Time
	attempts []attemptKey // that have left; their processes are ended
	dirty    bool         // a look has found it not clean
	failed   string       // why the device is sick; "" while there is hope
}

// remains is what keeps a device from being clean.
type remains struct {
	ours   []left // of attempts that have left it
	strays []left // of attempts that hold something else, or that nobody has found again yet after a restart
	others []left // of nobody who may be there
	gone   []left // that have ended, as far as the host knows
	hang   []left // of which nobody can tell whose they are
	memory uint64 // in use beyond what the idle device uses; 0 is fine
}

func (r remains) none() bool { return r.processes() == 0 && r.memory == 0 }

func (r remains) processes() int {
	return len(r.ours) + len(r.strays) + len(r.others) + len(r.gone) + len(r.hang)
}

// remaining weighs what an inventory shows on a device. Where attempts still hold
// it, only the processes of those that have left count.
func (e *entry) remaining() (r remains) {
	var gone []attemptKey
	if e.check != nil {
		gone = e.check.attempts
	}
	for _, p := range e.users {
		switch {
		case p.known && slices.ContainsFunc(gone, p.owner.of) && !e.heldByOwner(p.owner):
			r.ours = append(r.ours, p)
		case len(e.holders) > 0, p.allowed:
		case p.hangs:
			r.hang = append(r.hang, p)
		case !p.known:
			r.gone = append(r.gone, p)
		case p.owner.JobID != "":
			r.strays = append(r.strays, p)
		default:
			r.others = append(r.others, p)
		}
	}
	if len(e.holders) > 0 || r.processes() > 0 {
		return r // their memory is theirs
	}
	most := uint64(idleUnknownBytes)
	if e.idle != nil {
		most = *e.idle + idleSlackBytes
	}
	if e.used() > most {
		r.memory = e.used()
	}
	return r
}

// heldByOwner reports whether a process may be of an attempt that holds the device: of
// some only the job is known, and an earlier attempt of it may have left the device.
func (e *entry) heldByOwner(o ProcessOwner) bool {
	return slices.ContainsFunc(e.holders, func(h Holder) bool { return o.of(attemptKey{h.JobID, h.Attempt}) })
}

// used is the memory in use but for that of processes that may always be there.
func (e *entry) used() uint64 {
	used := e.facts.MemoryUsedBytes
	for _, p := range e.users {
		if p.allowed {
			used -= min(used, p.MemoryUsedBytes)
		}
	}
	return used
}

// reason says for people what is on a device that should be free.
func (r remains) reason() string {
	switch {
	case len(r.others) > 0:
		return "in use by " + describe(r.others) + ", which gpuqd did not start on it: end it, and the device comes back by itself; what may always be there belongs into device.allow_processes"
	case len(r.strays) > 0:
		return "in use by " + describe(r.strays) + ", which was given another device or none: kill the job, or end it; the device comes back by itself"
	case len(r.ours) > 0:
		return "not clean: " + describe(r.ours) + " is left of an attempt and does not end: look at the kernel log, reset the device or reboot the host"
	case len(r.hang) > 0:
		return "not clean: " + describe(r.hang) + " hangs in the kernel, so that nobody can tell whose it is: look at the kernel log, reset the device or reboot the host"
	case len(r.gone) > 0:
		return "not clean: the driver shows " + describe(r.gone) + " on it, which has ended: reset the device or reboot the host if that stays"
	}
	return fmt.Sprintf("not clean: %s of its memory are in use, and no process that could be named uses it: reset the device or reboot the host; "+
		"where the idle device does use that much, gpuqctl resume of the device accepts it", amount(r.memory))
}

// describe names processes: each with program, user and memory.
func describe(list []left) string {
	parts := make([]string, 0, len(list))
	for _, p := range list {
		text := fmt.Sprintf("process %d", p.PID)
		if p.known && p.owner.Name != "" {
			text += fmt.Sprintf(" (%s of user %s)", p.owner.Name, p.owner.User)
		}
		if p.MemoryUsedBytes > 0 {
			text += " with " + amount(p.MemoryUsedBytes)
		}
		switch {
		case p.owner.JobID == "":
		case p.owner.Attempt == 0:
			text += fmt.Sprintf(" of job %s", p.owner.JobID)
		default:
			text += fmt.Sprintf(" of attempt %d of job %s", p.owner.Attempt, p.owner.JobID)
		}
		parts = append(parts, text)
	}
	slices.Sort(parts)
	if more := len(parts) - 3; more > 0 {
		parts = append(parts[:3], fmt.Sprintf("%d more", more))
	}
	return strings.Join(parts, ", ")
}

// amount is memory for people.
func amount(bytes uint64) string {
	if bytes < 1<<30 {
		return fmt.Sprintf("%d MiB", (bytes+1<<20-1)>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
}

// judge looks at what an inventory shows of a device that is being checked, or that
// nobody holds. It returns the processes to end, and whether to look again soon. It
// does not settle the entry. m.mu is held.
func (m *Manager) judge(e *entry, look uint64, now time.Time) (kill []ProcessOwner, again bool) {
	c := e.check
	if c != nil && m.looker != nil && look < c.look {
		return nil, false // sampled too early
	}
	if e.facts.Sick != "" {
		// Whoever could not tell of the device may have seen nothing on it, either.
		if c != nil {
			m.unlooked(e, e.facts.Sick)
		}
		return nil, false
	}
	r := e.remaining()
	if c == nil && len(e.holders) == 0 && r.processes() > 0 {
		c = &check{since: now}
		e.check = c
	}
	if c == nil {
		return nil, false
	}
	for _, who := range c.attempts {
		m.looked(who, e.facts.UUID, "")
	}
	if r.none() {
		if !c.dirty && len(c.attempts) > 0 {
			m.tally.clean++
		}
		e.check = nil
		return nil, false
	}
	waited := now.Sub(c.since) >= cleanMost
	if len(r.strays) == r.processes() && len(r.strays) > 0 && len(c.attempts) == 0 && !waited {
		return nil, false // it is about to be adopted, or the next inventory is early enough
	}
	if !c.dirty {
		c.dirty = true
		m.tally.dirty++
		m.log.Warn("device is not clean", "device_uuid", e.facts.UUID, "reason", r.reason())
	}
	for _, p := range r.ours {
		kill = append(kill, p.owner)
	}
	c.failed = ""
	if len(r.others) > 0 || waited {
		c.failed = r.reason()
	}
	return kill, !waited && len(r.others) == 0
}

// end ends leftovers, and looks again after a pause where that is asked for. m.mu
// is not held.
func (m *Manager) end(kill []ProcessOwner, again bool) {
	for _, owner := range kill {
		m.log.Warn("process that an attempt left on its device is ended", "job_id", owner.JobID, "attempt", owner.Attempt,
			"reason", fmt.Sprintf("process %d (%s of user %s)", owner.PID, owner.Name, owner.User))
		if err := m.processes.Kill(owner); err != nil {
			m.log.Warn("process could not be ended", "job_id", owner.JobID, "attempt", owner.Attempt, "err", err)
		}
	}
	if again && m.looker != nil && m.pausing.CompareAndSwap(false, true) {
		time.AfterFunc(cleanPause, func() {
			m.pausing.Store(false)
			m.look(func() bool { return true })
		})
	}
}

// unlooked closes the windows of those who have left a device at which nobody can
// look. The check itself goes on. m.mu is held.
func (m *Manager) unlooked(e *entry, why string) {
	if e.check == nil {
		return
	}
	for _, who := range e.check.attempts {
		m.looked(who, e.facts.UUID, why)
	}
}

// look asks the source for an inventory that is sampled after change, which is
// called under m.mu, with the number of the look in m.asked, and reports whether
// there is anything to look at.
func (m *Manager) look(change func() bool) {
	m.mu.Lock()
	m.asked++
	n := m.asked
	needed := change()
	m.mu.Unlock()
	if needed && m.looker != nil {
		m.looker.Look(n) // a simulated source answers before this returns
	}
}
