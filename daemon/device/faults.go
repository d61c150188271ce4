package device

import (
	"fmt"
	"slices"

	"gpuqd/daemon/job"
)

// attemptKey names an attempt; the zero value is none.
type attemptKey struct {
	id     job.ID
	number int
}

// Faults is what has happened to an attempt's devices between its grant and the
// look after its release, each with the device, the time and figures.
type Faults struct {
	// Device: its result cannot be trusted. XIDs of the class device or host, growth
	// of the uncorrectable memory errors, a device that was lost.
	Device []string
	// Application: why it may have failed. XIDs of the class application, or unknown.
	Application []string
	// Unlooked is why the devices were not looked at since; "" when they were.
	Unlooked string
}

// window collects an attempt's faults.
type window struct {
	open                []string // devices whose look after the release has not come
	device, application []string
	released            bool
	unlooked            string
	done                chan struct{} // closed when it is released and none is open
}

// faultsMax bounds a window's lists: a storm of events says the same over and over.
const faultsMax = 8

// note adds one thing to a window's list.
func note(list []string, e *entry, what string) []string {
	text := fmt.Sprintf("device %s: %s", e.facts.name(), what)
	if len(list) >= faultsMax || slices.Contains(list, text) {
		return list
	}
	return append(list, text)
}

// watch opens an attempt's window, or that of another device of it. m.mu is held.
func (m *Manager) watch(who attemptKey, uuid string) *window {
	w := m.windows[who]
	if w == nil || w.released {
		w = &window{done: make(chan struct{})}
		m.windows[who] = w
	}
	if !slices.Contains(w.open, uuid) {
		w.open = append(w.open, uuid)
	}
	return w
}

// windowsOf calls note for every attempt whose window is open on the device: those
// that hold it, and those whose last look is still to come. m.mu is held.
func (m *Manager) windowsOf(e *entry, note func(*window)) {
	for _, w := range m.windows {
		if slices.Contains(w.open, e.facts.UUID) {
			note(w)
		}
	}
}

// looked closes an attempt's window on one device; why says that nobody looked, and
// is "" when somebody did. m.mu is held.
func (m *Manager) looked(who attemptKey, uuid, why string) {
	w := m.windows[who]
	if w == nil {
		return
	}
	w.open = slices.DeleteFunc(w.open, func(other string) bool { return other == uuid })
	if why != "" {
		w.unlooked = why
	}
	w.finish()
}

// finish tells who waits, once nothing is left to look at.
func (w *window) finish() {
	if !w.released || len(w.open) > 0 {
		return
	}
	select {
	case <-w.done:
	default:
		close(w.done)
	}
}

// closed is a channel that is closed.
var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// Settled is closed when every device that an attempt held has been looked at since
// its release, or nobody can look at it. It is closed where the attempt held none.
func (m *Manager) Settled(id job.ID, number int) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.windows[attemptKey{id, number}]; w != nil {
		return w.done
	}
	return closed
}

// Faults returns what has happened to the devices of an attempt since they were
// granted to it. A second Release of the attempt forgets it.
func (m *Manager) Faults(id job.ID, number int) Faults {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.windows[attemptKey{id, number}]
	if w == nil {
		return Faults{}
	}
	f := Faults{Device: slices.Clone(w.device), Application: slices.Clone(w.application), Unlooked: w.unlooked}
	if len(w.open) > 0 && f.Unlooked == "" {
		f.Unlooked = "gpuqd-device has not answered since"
	}
	return f
}
