package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"gpuqd/daemon/durable"
)

// stateFile is where quarantines and breakers outlive the daemon.
type stateFile struct {
	path, boot string
	dirty      bool                  // the file does not say what is so
	saved      map[string]savedEntry // of devices that no report has named yet

	orders      int64 // the last Order that was carried out
	knowsOrders bool  // orders says so: it was read, or the ledger was

	writing sync.Mutex // held by the one who writes; before Manager.mu
}

// stateVersion is the version of the file. A file of another one is damaged.
const stateVersion = 1

// saved is the file.
type saved struct {
	Version int                   `json:"version"`
	BootID  string                `json:"boot_id"`
	Devices map[string]savedEntry `json:"devices"` // by UUID
	Host    hostBreaker           `json:"host"`
	Orders  int64                 `json:"orders"` // the last Order that was carried out
}

type savedEntry struct {
	Quarantines []quarantine `json:"quarantines,omitempty"`
	Breaker     breaker      `json:"breaker,omitzero"`
	Uncorrected *uint64      `json:"uncorrected,omitempty"`
}

// openFile reads the file, where there is to be one. Of an earlier boot nothing
// counts: the devices have been reset since. A damaged one is put aside.
func (m *Manager) openFile(path, boot string) {
	m.file.path, m.file.boot = path, boot
	if path == "" {
		return
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var old saved
	if err == nil {
		err = json.Unmarshal(data, &old)
	}
	if err == nil && old.Version != stateVersion {
		err = fmt.Errorf("it is of version %d, and this gpuqd writes %d", old.Version, stateVersion)
	}
	if err != nil {
		aside := path + ".damaged"
		m.log.Warn("quarantines of devices could not be read and begin anew; the file is kept with .damaged behind its name",
			"err", errors.Join(err, os.Rename(path, aside)))
		return
	}
	if old.BootID != boot {
		m.log.Info("quarantines of devices ended with the boot that they were of", "devices", len(old.Devices))
		return
	}
	m.file.saved, m.breaker = old.Devices, old.Host
	m.file.orders, m.file.knowsOrders = old.Orders, true
}

// remember gives a device that is new what the file says of it. m.mu is held.
func (m *Manager) remember(e *entry) {
	old, ok := m.file.saved[e.facts.UUID]
	if !ok {
		return
	}
	delete(m.file.saved, e.facts.UUID)
	e.quarantines, e.breaker, e.uncorrected = old.Quarantines, old.Breaker, old.Uncorrected
}

// keep is the reverse of remember, for a device that is known no longer. m.mu is held.
func (m *Manager) keep(e *entry) {
	if len(e.quarantines) == 0 && len(e.breaker.Row) == 0 && e.uncorrected == nil {
		return
	}
	if m.file.saved == nil {
		m.file.saved = map[string]savedEntry{}
	}
	m.file.saved[e.facts.UUID] = savedEntry{e.quarantines, e.breaker, e.uncorrected}
}

// save writes the file where it does not say what is so. One that cannot be written
// is tried again with the next report.
func (m *Manager) save() {
	m.file.writing.Lock()
	defer m.file.writing.Unlock()
	m.mu.Lock()
	if !m.file.dirty || m.file.path == "" {
		m.mu.Unlock()
		return
	}
	now := saved{Version: stateVersion, BootID: m.file.boot, Devices: map[string]savedEntry{}, Host: m.breaker, Orders: m.file.orders}
	for uuid, old := range m.file.saved {
		now.Devices[uuid] = old
	}
	for uuid, e := range m.entries {
		now.Devices[uuid] = savedEntry{e.quarantines, e.breaker, e.uncorrected}
	}
	data, err := json.Marshal(now) // under mu: it reads what the entries share
	m.file.dirty = false
	m.mu.Unlock()
	if err == nil {
		err = durable.Replace(m.file.path, data)
	}
	if err == nil {
		return
	}
	m.log.Error("quarantines of devices could not be written; they are tried again, and a restart of gpuqd would forget them", "err", err)
	m.mu.Lock()
	m.file.dirty = true
	m.mu.Unlock()
}
