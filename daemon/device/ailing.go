package device

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"gpuqd/daemon/fault"
)

// ailing is what ails simulated devices. Simulated.mu guards it.
type ailing struct {
	script      []dueFault
	lasts       []ailment         // in the order in which they struck
	uncorrected map[string]uint64 // errors by UUID
	uncounted   []quietErrors     // that no inventory has shown
	events      []Event           // that nobody has been told
	heard       time.Time         // when silence began
	toldSilence bool
}

// dueFault strikes at a time.
type dueFault struct {
	at time.Time
	fault.Fault
}

// quietErrors are counted from the first look that is asked for after them, as a
// driver's counters are sampled.
type quietErrors struct {
	uuid  string
	count uint64
	after uint64 // the look
}

// ailment is a fault that lasts.
type ailment struct {
	fault.Fault
	uuid  string    // of the device; "" is all of them together
	until time.Time // zero is no end of its own
	ticks uint64    // of Process: when it was started
}

// Targets implements Faulty.
func (s *Simulated) Targets(f fault.Fault) ([]string, error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	targets, err := s.targets(f)
	if err != nil {
		return nil, err
	}
	if f.Kind == fault.Process {
		if _, err := startTicks(f.PID); err != nil {
			return nil, err
		}
	}
	return targets, nil
}

// targets returns whom a fault strikes: UUIDs of devices, or of a GPU that has
// instances where it was named and reports for itself.
func (s *Simulated) targets(f fault.Fault) ([]string, error) {
	if f.Kind.Whole() {
		return []string{""}, nil
	}
	var found, instances []string
	gpu := ""
	index, err := strconv.Atoi(f.Device)
	for _, d := range s.devices() {
		switch {
		case f.Device == fault.AllDevices, d.UUID == f.Device, err == nil && d.Index == index:
			found = append(found, d.UUID)
		case err != nil && strings.HasPrefix(d.UUID, f.Device):
			found = append(found, d.UUID)
		case d.ParentUUID != "" && d.ParentUUID == f.Device:
			instances, gpu = append(instances, d.UUID), d.ParentUUID
		}
		if f.MemoryBytes > d.MemoryBytes {
			return nil, &fault.Problem{Param: fault.ParamMemory, Text: fmt.Sprintf("%d is more than the %d bytes of a device", f.MemoryBytes, d.MemoryBytes)}
		}
	}
	switch {
	case gpu != "" && f.Kind == fault.XID:
		return []string{gpu}, nil
	case gpu != "":
		return instances, nil
	case len(found) == 0:
		return nil, fmt.Errorf("device %s: %w", f.Device, ErrUnknown)
	case len(found) > 1 && f.Device != fault.AllDevices:
		return nil, &fault.Problem{Param: fault.ParamDevice, Text: fmt.Sprintf("%q begins the UUIDs of %d devices: give more of it", f.Device, len(found))}
	}
	return found, nil
}

// Inject implements Faulty. The manager has been told of it on return, where Run
// has begun.
func (s *Simulated) Inject(f fault.Fault) error {
	if _, err := s.Targets(f); err != nil {
		return err
	}
	s.mu.Lock()
	err := s.strike(f, time.Now())
	if s.wake != nil {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.tell()
	return nil
}

// strike brings a fault about. s.mu is held.
func (s *Simulated) strike(f fault.Fault, now time.Time) error {
	targets, err := s.targets(f)
	if err != nil {
		return err
	}
	for _, uuid := range targets {
		switch {
		case f.Kind == fault.Clear:
			s.lasts = slices.DeleteFunc(s.lasts, func(a ailment) bool { return a.uuid == uuid })
			delete(s.uncorrected, uuid)
			s.uncounted = slices.DeleteFunc(s.uncounted, func(q quietErrors) bool { return q.uuid == uuid })
		case f.Kind.Ends() != "":
			s.lasts = slices.DeleteFunc(s.lasts, func(a ailment) bool { return a.uuid == uuid && a.Kind == f.Kind.Ends() })
		case f.Kind == fault.XID:
			s.events = append(s.events, Event{UUID: uuid, Kind: EventXID, XID: f.XID, Count: f.Times(), At: now})
		case f.Kind == fault.Uncorrected && f.Quiet:
			s.uncounted = append(s.uncounted, quietErrors{uuid, uint64(f.Times()), s.look})
		case f.Kind == fault.Uncorrected:
			s.count(uuid, uint64(f.Times()))
			s.events = append(s.events, Event{UUID: uuid, Kind: EventUncorrected, Count: f.Times(), At: now})
		default:
			err = errors.Join(err, s.last(ailment{Fault: f, uuid: uuid}, now))
		}
	}
	if f.Kind == fault.Clear && f.Device == fault.AllDevices {
		s.lasts = nil
	}
	return err
}

// count counts memory errors. s.mu is held.
func (s *Simulated) count(uuid string, errors uint64) {
	if s.uncorrected == nil {
		s.uncorrected = map[string]uint64{}
	}
	s.uncorrected[uuid] += errors
}

// last adds what lasts, in the place of what it replaces. s.mu is held.
func (s *Simulated) last(a ailment, now time.Time) (err error) {
	if a.For > 0 {
		a.until = now.Add(a.For.Std())
	}
	switch a.Kind {
	case fault.Process:
		if a.ticks, err = startTicks(a.PID); err != nil {
			return err
		}
	case fault.Silent:
		if s.lasting(fault.Silent) == nil {
			s.heard, s.toldSilence = now, false
		}
	}
	s.lasts = slices.DeleteFunc(s.lasts, func(old ailment) bool {
		same := old.Kind == a.Kind && old.uuid == a.uuid
		switch a.Kind {
		case fault.Process:
			return same && old.PID == a.PID
		case fault.Throttle:
			return same && old.Reason == a.Reason
		}
		return same
	})
	s.lasts = append(s.lasts, a)
	return nil
}

// advance lets what is due strike, counts what a look finds, and ends what is over.
// s.mu is held.
func (s *Simulated) advance(now time.Time) {
	s.script = slices.DeleteFunc(s.script, func(f dueFault) bool {
		if f.at.After(now) {
			return false
		}
		_ = s.strike(f.Fault, now) // its device is there, or the configuration would have been refused
		return true
	})
	s.uncounted = slices.DeleteFunc(s.uncounted, func(q quietErrors) bool {
		if q.after == s.look {
			return false
		}
		s.count(q.uuid, q.count)
		return true
	})
	s.lasts = slices.DeleteFunc(s.lasts, func(a ailment) bool {
		if a.Kind == fault.Process {
			if ticks, err := startTicks(a.PID); err != nil || ticks != a.ticks {
				return true
			}
		}
		return !a.until.IsZero() && !a.until.After(now)
	})
}

// next returns when there will be something to say by itself; any is false where
// there will not.
func (s *Simulated) next(now time.Time) (wait time.Duration, any bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lasts) > 0 {
		wait, any = positive(s.interval, simulatedInterval), true
	}
	sooner := func(at time.Time) {
		if left := max(0, at.Sub(now)); !any || left < wait {
			wait, any = left, true
		}
	}
	for _, f := range s.script {
		sooner(f.at)
	}
	for _, a := range s.lasts {
		if !a.until.IsZero() {
			sooner(a.until)
		}
	}
	if s.lasting(fault.Silent) != nil && !s.toldSilence {
		sooner(s.heard.Add(positive(s.Silence, DefaultSilence)))
	}
	return wait, any
}

// lasting returns what lasts of all devices together; nil is nothing of the kind.
// s.mu is held.
func (s *Simulated) lasting(kind fault.Kind) *ailment {
	for i, a := range s.lasts {
		if a.Kind == kind && a.uuid == "" {
			return &s.lasts[i]
		}
	}
	return nil
}

// silence returns what a long one means, once. s.mu is held.
func (s *Simulated) silence(now time.Time) *ReportError {
	after := positive(s.Silence, DefaultSilence)
	if s.toldSilence || now.Before(s.heard.Add(after)) {
		return nil
	}
	s.toldSilence = true
	return &ReportError{HelperSilent, fmt.Sprintf("nothing has been said of the simulated devices for %s, by a fault: "+
		"gpuqctl simulate device %s all speak ends it", after, s.Host)}
}

// facts returns what is to be seen of a device; there is false where it is lost.
// s.mu is held.
func (s *Simulated) facts(d Device) (f Facts, there bool) {
	f.Device = d
	f.ECC = &ECC{Uncorrected: s.uncorrected[d.UUID], UncorrectedAggregate: s.uncorrected[d.UUID]}
	for _, a := range s.lasts {
		if a.uuid != d.UUID {
			continue
		}
		f.Faults = append(f.Faults, a.String())
		switch a.Kind {
		case fault.Lost:
			return f, false
		case fault.Recovery:
			f.Recovery = RecoveryAction(a.Action)
		case fault.Memory:
			f.MemoryUsedBytes += a.MemoryBytes
		case fault.Process:
			f.MemoryUsedBytes += a.MemoryBytes
			f.Processes = append(f.Processes, Process{PID: a.PID, MemoryUsedBytes: a.MemoryBytes})
		case fault.Throttle:
			f.Throttle = append(f.Throttle, a.Reason)
		case fault.Temperature:
			f.TemperatureCelsius = new(a.Celsius)
		case fault.Sick:
			f.Sick = a.Reason
		}
	}
	f.MemoryUsedBytes = min(f.MemoryUsedBytes, d.MemoryBytes)
	return f, true
}

// startTicks returns when a process was started, in the kernel's ticks since the
// boot. One that has ended and waits to be reaped is gone: it holds no memory.
//
// Source: proc_pid_stat(5), fields 3 and 22; the name in field 2 may contain
// anything, so they are counted from its closing parenthesis.
func startTicks(pid int) (uint64, error) {
	gone := &fault.Problem{Param: fault.ParamPID, Text: fmt.Sprintf("the host has no process %d", pid)}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, gone
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0, gone
	}
	ticks, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, gone
	}
	return ticks, nil
}
