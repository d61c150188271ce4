package device

import (
	"context"
	"fmt"
	"sync"
	"time"

	"gpuqd/daemon/fault"

	"github.com/google/uuid"
)

// SimulatedPrefix starts the UUID of every simulated device, so that nobody
// takes it for a real one. That of a simulated MIG instance starts with
// SimulatedMIGPrefix.
const (
	SimulatedPrefix    = "GPU-sim-"
	SimulatedMIGPrefix = "MIG-sim-"
)

// SimulatedMIGMax is the most instances that one GPU can be cut into.
//
// Source: NVIDIA's MIG User Guide, supported profiles.
const SimulatedMIGMax = 7

// simulatedNamespace is the UUID namespace of simulated devices. It must not
// change: a host's simulated devices keep their UUIDs over restarts.
var simulatedNamespace = uuid.MustParse("0c7b1c5e-3d0a-5a39-9a57-6b1f2f1d9e42")

// Simulated is a Source of devices that do not exist. They stand in where there
// is no GPU: on developers' machines and in tests. Faults can be made to strike
// them; without any, Run says what there is once, and again when it is asked to
// look.
//
// The fields in the open are not to change once Run has begun.
type Simulated struct {
	Host              string // the host's name; with the index it makes the UUID
	Count             int    // 0 is a host without devices, such as a login node
	Model             string
	MemoryBytes       uint64   // of each device
	Nodes             []string // device files that stand for the first devices
	ComputeCapability string   // "" is that of no known device
	MIG               int      // instances that each device is cut into; 0 leaves it whole
	// Silence is after what time without a word all devices are sick; 0 is
	// DefaultSilence.
	Silence time.Duration
	Script  []ScriptedFault // what strikes by itself

	interval time.Duration // between two looks while something lasts; 0 is simulatedInterval

	mu      sync.Mutex   // guards what follows
	deliver func(Report) // of Run; nil before and after
	telling bool         // a goroutine delivers
	again   bool         // and is to deliver once more
	wake    chan struct{}
	look    uint64 // the highest asked for
	ailing
}

// ScriptedFault strikes when Run has gone on for After.
type ScriptedFault struct {
	After time.Duration
	fault.Fault
}

var (
	_ Source = (*Simulated)(nil)
	_ Looker = (*Simulated)(nil)
	_ Faulty = (*Simulated)(nil)
)

// simulatedInterval is how often simulated devices are looked at while a fault
// lasts: a process of the host can end at any time.
const simulatedInterval = time.Second

// SimulatedUUID returns the UUID of the index-th simulated device of a host. It
// is the same at every start.
func SimulatedUUID(host string, index int) string {
	return SimulatedPrefix + simulatedID(fmt.Sprintf("%s/%d", host, index))
}

// SimulatedMIGUUID returns the UUID of an instance of a simulated device.
func SimulatedMIGUUID(host string, index, instance int) string {
	return SimulatedMIGPrefix + simulatedID(fmt.Sprintf("%s/%d/%d", host, index, instance))
}

func simulatedID(name string) string {
	return uuid.NewSHA1(simulatedNamespace, []byte(name)).String()
}

// Run delivers the inventory, and again whatever a fault or a look makes of it. It
// never gives up.
func (s *Simulated) Run(ctx context.Context, deliver func(Report)) error {
	wake := s.begin(deliver)
	defer s.end()
	s.tell()
	for s.wait(ctx, wake) {
	}
	return nil
}

// wait waits until there is something to say by itself, if ever, and says it.
// False means that ctx has ended.
func (s *Simulated) wait(ctx context.Context, wake <-chan struct{}) bool {
	var due <-chan time.Time
	if left, any := s.next(time.Now()); any {
		timer := time.NewTimer(left)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-due:
		s.tell()
	case <-wake: // what to wait for is another question now
	case <-ctx.Done():
		return false
	}
	return true
}

func (s *Simulated) begin(deliver func(Report)) (wake <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deliver = deliver
	s.wake = make(chan struct{}, 1) // a signal that nobody has read yet covers the next
	now := time.Now()
	for _, f := range s.Script {
		s.script = append(s.script, dueFault{now.Add(f.After), f.Fault})
	}
	return s.wake
}

func (s *Simulated) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deliver = nil
}

// Look implements Looker: the inventory is delivered before it returns, unless
// another goroutine is delivering, which then does it. Devices of which nothing is
// known are not looked at before that is over.
func (s *Simulated) Look(n uint64) {
	s.mu.Lock()
	s.look = max(s.look, n)
	s.mu.Unlock()
	s.tell()
}

// tell delivers what there is to say. One goroutine at a time does; another, or a
// call from within deliver, makes it say it once more.
func (s *Simulated) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.again = true
	if s.telling {
		return
	}
	s.telling = true
	for s.again && s.deliver != nil {
		s.again = false
		report, any := s.report(time.Now())
		if deliver := s.deliver; any {
			s.mu.Unlock()
			deliver(report)
			s.mu.Lock()
		}
	}
	s.telling = false
}

// report returns what there is to say; any is false for silence. s.mu is held.
func (s *Simulated) report(now time.Time) (r Report, any bool) {
	s.advance(now)
	r.Version = WireVersion
	switch {
	case s.lasting(fault.Silent) != nil:
		r.Error = s.silence(now)
		return r, r.Error != nil
	case s.lasting(fault.DriverGone) != nil:
		r.Error = &ReportError{NoDriver, "the driver of the simulated devices is gone, by a fault: " +
			"gpuqctl simulate device " + s.Host + " all driver_back ends it"}
		return r, true
	}
	r.Devices, r.Look, r.Events = []Facts{}, s.look, s.events
	s.events = nil
	for _, d := range s.devices() {
		if facts, there := s.facts(d); there {
			r.Devices = append(r.Devices, facts)
		}
	}
	return r, true
}

// devices returns what is simulated, by index.
func (s *Simulated) devices() []Device {
	list := make([]Device, 0, s.Count*max(1, s.MIG))
	for i := range s.Count {
		gpu := Device{
			UUID:              SimulatedUUID(s.Host, i),
			Index:             i,
			Model:             s.Model,
			MemoryBytes:       s.MemoryBytes,
			Simulated:         true,
			MinorNumber:       UnknownIndex,
			NUMANode:          UnknownIndex,
			ComputeCapability: s.ComputeCapability,
		}
		if i < len(s.Nodes) {
			gpu.Node = s.Nodes[i]
		}
		if s.MIG == 0 {
			list = append(list, gpu)
		}
		for k := range s.MIG {
			list = append(list, s.instance(gpu, k))
		}
	}
	return list
}

// instance returns a MIG instance of a GPU: a fair share of it.
func (s *Simulated) instance(gpu Device, k int) Device {
	one := gpu
	one.UUID = SimulatedMIGUUID(s.Host, gpu.Index, k)
	one.ParentUUID = gpu.UUID
	one.Index = gpu.Index*s.MIG + k
	one.MemoryBytes /= uint64(s.MIG)
	one.MIGProfile = fmt.Sprintf("%dg.%dgb", SimulatedMIGMax/s.MIG, one.MemoryBytes>>30)
	return one
}
