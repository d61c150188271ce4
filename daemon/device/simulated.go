package device

import (
	"context"
	"fmt"

	"github.com/google/uuid"
)

// SimulatedPrefix starts the UUID of every simulated device, so that nobody
// takes it for a real one.
const SimulatedPrefix = "GPU-sim-"

// simulatedNamespace is the UUID namespace of simulated devices. It must not
// change: a host's simulated devices keep their UUIDs over restarts.
var simulatedNamespace = uuid.MustParse("0c7b1c5e-3d0a-5a39-9a57-6b1f2f1d9e42")

// Simulated is a Source of devices that do not exist. They stand in where there
// is no GPU: on developers' machines and in tests.
type Simulated struct {
	Host        string // the host's name; with the index it makes the UUID
	Count       int    // 0 is a host without devices, such as a login node
	Model       string
	MemoryBytes uint64   // of each device
	Nodes       []string // device files that stand for the first devices
}

var _ Source = Simulated{}

// SimulatedUUID returns the UUID of the index-th simulated device of a host. It
// is the same at every start.
func SimulatedUUID(host string, index int) string {
	name := fmt.Sprintf("%s/%d", host, index)
	return SimulatedPrefix + uuid.NewSHA1(simulatedNamespace, []byte(name)).String()
}

// Run delivers the inventory once: simulated devices do not change.
func (s Simulated) Run(ctx context.Context, deliver func(Report)) error {
	r := Report{Version: WireVersion, Devices: []Facts{}}
	for i := range s.Count {
		node := ""
		if i < len(s.Nodes) {
			node = s.Nodes[i]
		}
		r.Devices = append(r.Devices, Facts{Device: Device{
			UUID:        SimulatedUUID(s.Host, i),
			Index:       i,
			Model:       s.Model,
			MemoryBytes: s.MemoryBytes,
			Simulated:   true,
			MinorNumber: UnknownIndex,
			NUMANode:    UnknownIndex,
			Node:        node,
		}})
	}
	deliver(r)
	<-ctx.Done()
	return nil
}
