package device

import (
	"errors"

	"gpuqd/daemon/fault"
)

// ErrNotSimulated means that the devices are real: nothing can be made to go
// wrong with them.
var ErrNotSimulated = errors.New("the devices are real, and faults are for simulated ones")

// Faulty is a Source whose devices can be made to fail.
type Faulty interface {
	// Targets returns the UUIDs of those whom a fault would strike, "" for all
	// together. Its errors are a *fault.Problem, or wrap ErrUnknown.
	Targets(f fault.Fault) ([]string, error)
	// Inject brings a fault about. Its errors are those of Targets.
	Inject(f fault.Fault) error
}

// Targets says whom a fault would strike; ErrNotSimulated, and else as Faulty.
func (m *Manager) Targets(f fault.Fault) ([]string, error) {
	source, ok := m.source.(Faulty)
	if !ok {
		return nil, ErrNotSimulated
	}
	return source.Targets(f)
}

// Inject brings a fault about; ErrNotSimulated, and else as Faulty.
func (m *Manager) Inject(f fault.Fault) error {
	source, ok := m.source.(Faulty)
	if !ok {
		return ErrNotSimulated
	}
	return source.Inject(f)
}
