package device

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gpuqd/daemon/job"
)

// ErrNotFree means that a device asked for cannot be had; NotFreeError says
// which and why.
var ErrNotFree = errors.New("device is not free")

// ErrUnknown means that the host has no such device.
var ErrUnknown = errors.New("this host has no such device; gpuqctl devices lists those it has")

// NotFreeError names the devices that stood in the way. It matches ErrNotFree.
type NotFreeError struct {
	Refused []Refusal // never empty, in the order asked for
}

// Refusal is one device and why it could not be had.
type Refusal struct {
	UUID, Reason string
}

// Error implements error.
func (e *NotFreeError) Error() string {
	parts := make([]string, len(e.Refused))
	for i, r := range e.Refused {
		parts[i] = fmt.Sprintf("device %s is not free: %s", r.UUID, r.Reason)
	}
	return strings.Join(parts, "; ")
}

// Is implements the match with ErrNotFree.
func (e *NotFreeError) Is(target error) bool { return target == ErrNotFree }

// Acquire grants all the devices to an attempt, or none: then it returns a
// NotFreeError. Of each it gets share bytes of memory, beside others that share it;
// 0 is the whole device. No devices at all is a grant too, for jobs that need none.
func (m *Manager) Acquire(id job.ID, number int, uuids []string, share uint64) error {
	defer m.save() // before anything runs that could be harmed by what the file says
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settleAll()
	var refused []Refusal
	for i, uuid := range uuids {
		if reason := m.refuse(uuid, uuids[:i], share); reason != "" {
			refused = append(refused, Refusal{uuid, reason})
		}
	}
	if refused != nil {
		return &NotFreeError{Refused: refused}
	}
	for _, uuid := range uuids {
		m.grant(m.entries[uuid], Holder{id, number, share})
	}
	return nil
}

// refuse says why a device cannot be acquired; "" when it can. m.mu is held.
func (m *Manager) refuse(uuid string, before []string, share uint64) string {
	e := m.entries[uuid]
	switch {
	case e == nil:
		return ErrUnknown.Error()
	case slices.Contains(before, uuid):
		return "it was asked for twice"
	case e.state == Free:
		return exceeds(share, 0, e.facts.MemoryBytes)
	case e.state != Busy:
		return fmt.Sprintf("it is %s: %s", e.state, e.reason)
	}
	if why := e.waits(m.weather()); why != "" {
		return why
	}
	granted, may := e.shared()
	if share == 0 || !may {
		return heldBy(e.first())
	}
	return exceeds(share, granted, e.facts.MemoryBytes)
}

func heldBy(h Holder) string {
	return fmt.Sprintf("attempt %d of job %s holds it", h.Attempt, h.JobID)
}

// exceeds says that a share does not fit beside what is granted; "" where it does.
func exceeds(share, granted, all uint64) string {
	if share <= all && granted <= all-share {
		return ""
	}
	return fmt.Sprintf("%s of its %s are granted, and %s more were asked for", amount(granted), amount(all), amount(share))
}

func (m *Manager) grant(e *entry, to Holder) {
	if len(e.holders) == 0 && !e.left.IsZero() && m.gap != nil {
		m.gap(m.now().Sub(e.left))
	}
	if e.holder(to.JobID, to.Attempt) < 0 {
		e.holders = append(e.holders, to)
	}
	who := attemptKey{to.JobID, to.Attempt}
	m.watch(who, e.facts.UUID)
	e.alarmed = false
	if m.fast > 0 {
		e.breaker.grant(who, m.now())
		m.breaker.grant(who, m.now())
	}
	m.settle(e)
}

// Adopt gives devices to an attempt that was found running after a restart, all
// or none, with the share that it was granted. They are held from now on even where
// they are sick, cordoned or not (yet) in the inventory. Only a holder that does
// not share is a reason to refuse: a NotFreeError, which means that two attempts
// were found on one device.
func (m *Manager) Adopt(id job.ID, number int, uuids []string, share uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var refused []Refusal
	for _, uuid := range uuids {
		e := m.entries[uuid]
		if e == nil || len(e.holders) == 0 || e.holder(id, number) >= 0 {
			continue
		}
		if _, may := e.shared(); share == 0 || !may {
			refused = append(refused, Refusal{uuid, heldBy(e.first())})
		}
	}
	if refused != nil {
		return &NotFreeError{Refused: refused}
	}
	for _, uuid := range uuids {
		e := m.entries[uuid]
		if e == nil {
			e = m.newEntry(unseen(uuid).facts)
		}
		if e.check != nil {
			e.check.failed = "" // it may have been this attempt's processes that nobody knew
			if len(e.check.attempts) == 0 {
				e.check = nil
			}
		}
		m.grant(e, Holder{id, number, share})
		m.recall(e, Holder{id, number, share})
		m.alarm(e) // a source may have nothing new to say for long
	}
	return nil
}

// recall brings what has happened under an attempt before a restart into its window.
// m.mu is held.
func (m *Manager) recall(e *entry, h Holder) {
	w := m.watch(attemptKey{h.JobID, h.Attempt}, e.facts.UUID)
	for _, q := range e.quarantines {
		under := slices.ContainsFunc(q.Holders, func(other Holder) bool { return other.JobID == h.JobID && other.Attempt == h.Attempt })
		if (under || q.Gap) && q.ends() {
			w.device = note(w.device, e, q.What)
		}
	}
	if why := e.failing(); why != "" { // it was not, when the attempt got it
		w.device = note(w.device, e, why)
	}
}

// Recall makes an attempt known that has ended while no daemon looked, and holds
// nothing any more: Faults then has what is known to have happened under it, and its
// devices are looked at as after a Release, which is to follow.
func (m *Manager) Recall(id job.ID, number int, uuids []string) {
	who := attemptKey{id, number}
	m.look(func() (needed bool) {
		for _, uuid := range uuids {
			e := m.entries[uuid]
			if e == nil { // nobody has seen it since the restart; the file may know of it
				e = unseen(uuid)
				e.quarantines = m.file.saved[uuid].Quarantines
				m.recall(e, Holder{JobID: id, Attempt: number})
				m.looked(who, uuid, "no inventory names "+uuid)
				continue
			}
			m.recall(e, Holder{JobID: id, Attempt: number})
			m.lookAfter(e, who)
			needed = true
		}
		return needed
	})
}

// unseen is a device that no inventory has named yet.
func unseen(uuid string) *entry {
	return &entry{facts: Facts{Device: Device{UUID: uuid, Index: UnknownIndex, MinorNumber: UnknownIndex, NUMANode: UnknownIndex}}}
}

// Release takes every device back from an attempt; one that holds none is fine. A
// device that nobody holds any more is looked at, and free once it is clean. A
// second call forgets the attempt's faults.
func (m *Manager) Release(id job.ID, number int) {
	m.look(func() (needed bool) { return m.release(attemptKey{id, number}) })
}

// release is Release; it reports whether there is something to look at. m.mu is
// held.
func (m *Manager) release(who attemptKey) (needed bool) {
	if w := m.windows[who]; w != nil && w.released {
		m.forget(who)
		return false
	}
	for _, e := range m.sorted() {
		i := e.holder(who.id, who.number)
		if i < 0 {
			continue
		}
		e.holders = slices.Delete(e.holders, i, i+1)
		if len(e.holders) == 0 {
			e.left = m.now()
		}
		if !e.seen && len(e.holders) == 0 {
			m.settle(e)
			m.spend(e.state, m.now().Sub(e.since))
			delete(m.entries, e.facts.UUID) // known by the attempt alone
			m.keep(e)
			m.looked(who, e.facts.UUID, "no inventory names "+e.facts.UUID)
			continue
		}
		m.lookAfter(e, who)
		needed = true
	}
	if w := m.windows[who]; w != nil {
		w.released = true
		w.finish()
	}
	return needed
}

// lookAfter has a device looked at that an attempt has left. m.mu is held.
func (m *Manager) lookAfter(e *entry, who attemptKey) {
	if e.check == nil {
		e.check = &check{}
	}
	e.check.attempts = append(e.check.attempts, who)
	e.check.look, e.check.since = m.asked, m.now()
	if e.unheard != "" {
		m.looked(who, e.facts.UUID, e.unheard)
	}
	m.settle(e)
}

// forget drops what is kept of an attempt that is over. m.mu is held.
func (m *Manager) forget(who attemptKey) {
	delete(m.windows, who)
	m.breaker.forget(who)
	for _, e := range m.sorted() {
		e.breaker.forget(who)
		m.settle(e)
	}
}

// Cordon keeps a device from new attempts; one that runs goes on. The reason and
// the operator are shown to whoever asks. A second cordon replaces the first. It
// returns ErrUnknown for a device that the host does not have.
func (m *Manager) Cordon(uuid, reason, who string) error {
	return m.setCordon(uuid, &cordon{reason: reason, who: who})
}

// Uncordon lets a device take attempts again, unless it is sick. One that is not
// cordoned is fine; an unknown one is ErrUnknown.
func (m *Manager) Uncordon(uuid string) error { return m.setCordon(uuid, nil) }

func (m *Manager) setCordon(uuid string, c *cordon) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[uuid]
	if e == nil {
		return fmt.Errorf("device %s: %w", uuid, ErrUnknown)
	}
	e.cordon = c
	m.settle(e)
	return nil
}
