package device

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// goodRuns is when jobs of a kind last ran well on a device, by kind and UUID.
type goodRuns map[string]map[string]time.Time

// kindsMax bounds the kinds that are remembered.
const kindsMax = 256

// note remembers a good run. Past the bound the oldest kind makes room.
func (g goodRuns) note(kind string, devices []string, now time.Time) {
	if g[kind] == nil {
		if len(g) >= kindsMax {
			delete(g, slices.MinFunc(slices.Collect(maps.Keys(g)), func(a, b string) int { return g.last(a).Compare(g.last(b)) }))
		}
		g[kind] = map[string]time.Time{}
	}
	for _, uuid := range devices {
		g[kind][uuid] = now
	}
}

func (g goodRuns) last(kind string) (at time.Time) {
	for _, one := range g[kind] {
		if one.After(at) {
			at = one
		}
	}
	return at
}

// elsewhere returns whether a kind ran well on another device since a time.
func (g goodRuns) elsewhere(uuid string) func(kind string, since time.Time) bool {
	return func(kind string, since time.Time) bool {
		for other, at := range g[kind] {
			if other != uuid && !at.Before(since) {
				return true
			}
		}
		return false
	}
}

// Ended tells how an attempt ended that had devices, for the breakers. Tell it after
// Release, and before the second.
func (m *Manager) Ended(end Ending) {
	if m.fast <= 0 || len(end.Devices) == 0 {
		return
	}
	defer m.save()
	m.mu.Lock()
	defer m.mu.Unlock()
	now, who, said := m.now(), attemptKey{end.JobID, end.Attempt}, end.says(m.fast)
	if said == ranWell {
		m.good.note(end.Kind, end.Devices, now)
	}
	for _, uuid := range end.Devices {
		e := m.entries[uuid]
		if e == nil {
			continue
		}
		m.file.dirty = m.file.dirty || e.breaker.changedBy(said)
		if e.breaker.end(who, end.Kind, said, now, m.good.elsewhere(uuid)) {
			m.tally.opens[0]++
			m.log.Warn("breaker of a device opened", "device_uuid", uuid, "reason", e.breaker.reason("it", m.fast))
		}
	}
	m.file.dirty = m.file.dirty || m.breaker.changedBy(said)
	if m.breaker.end(who, end.Kind, end.Devices, said, now) {
		m.tally.opens[1]++
		m.log.Warn("breaker of the host opened", "reason", m.breaker.reason("the devices of this host", m.fast))
	}
	m.settleAll()
}

// closeOutlived closes the breakers of a device and of the host whose probe has run
// for long enough. m.mu is held.
func (m *Manager) closeOutlived(e *entry, now time.Time) {
	if m.fast <= 0 {
		return
	}
	if e.breaker.outlived(now, m.fast) {
		e.breaker, m.file.dirty = breaker{}, true
		m.log.Info("breaker of a device closed: what was tried runs", "device_uuid", e.facts.UUID)
	}
	if m.breaker.outlived(now, m.fast) {
		m.breaker, m.file.dirty = hostBreaker{}, true
		m.log.Info("breaker of the host closed: what was tried runs")
	}
}

// Resume ends a device's quarantine and breaker; of "", the host: its breaker, those
// of its devices, and the quarantines that concern the whole host. What was in
// quarantine has to pass a clean look before its next attempt. The memory that keeps a
// named device from being clean is taken for what it uses when idle. It reports whether
// there was anything to end.
func (m *Manager) Resume(uuid, who string) (ended bool) {
	defer m.save()
	m.look(func() bool {
		if uuid == "" && !m.breaker.closed() {
			m.breaker, ended = hostBreaker{}, true
		}
		for _, e := range m.sorted() {
			if uuid == "" || uuid == e.facts.UUID {
				ended = m.resume(e, uuid == "", who) || ended
			}
		}
		for _, saved := range slices.Sorted(maps.Keys(m.file.saved)) {
			if uuid == "" || uuid == saved {
				ended = m.resumeSaved(saved, uuid == "", who) || ended
			}
		}
		m.settleAll()
		return ended
	})
	return ended
}

// Order is a Resume that was left for the host while it could not be told.
type Order struct {
	Seq       int64 // grows from order to order
	UUID, Who string
}

// TakeOrders carries out the orders that were not yet, each once, over restarts,
// too.
func (m *Manager) TakeOrders(orders []Order) {
	slices.SortFunc(orders, func(a, b Order) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, o := range orders {
		if m.isNew(o.Seq) {
			m.Resume(o.UUID, o.Who)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.file.knowsOrders = true
}

// isNew notes an order, and reports whether it is to be carried out. Where no file
// says which were, those that are there already are older than any quarantine.
func (m *Manager) isNew(seq int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if seq <= m.file.orders {
		return false
	}
	m.file.orders, m.file.dirty = seq, true
	return m.file.knowsOrders
}

// resume is Resume for one device. m.mu is held.
func (m *Manager) resume(e *entry, wholeHost bool, who string) (ended bool) {
	kept := slices.DeleteFunc(slices.Clone(e.quarantines), func(q quarantine) bool {
		return !wholeHost || q.Kind == QuarantineHost
	})
	if len(kept) < len(e.quarantines) {
		e.quarantines, ended = kept, true
		if e.check == nil && len(e.holders) == 0 {
			e.check = &check{since: m.now()}
		}
		if e.check != nil {
			e.check.look, e.check.since, e.check.failed = m.asked, m.now(), ""
		}
	}
	if c := e.check; !wholeHost && c != nil && c.failed != "" && e.remaining().memory > 0 {
		used := e.used()
		e.idle, ended = &used, true
		c.look, c.since, c.failed = m.asked, m.now(), ""
	}
	if !e.breaker.closed() {
		e.breaker, ended = breaker{}, true
	}
	if ended {
		m.file.dirty = true
		m.log.Info("device resumed", "device_uuid", e.facts.UUID, "who", who)
	}
	return ended
}

// resumeSaved is resume for a device that no inventory has named since the restart.
// m.mu is held.
func (m *Manager) resumeSaved(uuid string, wholeHost bool, who string) (ended bool) {
	e := unseen(uuid)
	m.remember(e)
	ended = m.resume(e, wholeHost, who)
	m.keep(e)
	return ended
}
