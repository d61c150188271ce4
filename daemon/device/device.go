package device

import (
	"time"

	"gpuqd/daemon/job"
)

// Device is one GPU as its source describes it.
type Device struct {
	UUID        string `json:"uuid"`  // "GPU-…" as the driver prints it; "GPU-sim-…" when simulated
	Index       int    `json:"index"` // position on the host, for display; UnknownIndex where nobody knows
	Model       string `json:"model,omitempty"`
	MemoryBytes uint64 `json:"memory_bytes"`
	Simulated   bool   `json:"simulated,omitempty"`
	PCIAddress  string `json:"pci_address,omitempty"` // domain:bus:device.function; "" when simulated
	MinorNumber int    `json:"minor_number"`          // N of /dev/nvidiaN; UnknownIndex where there is none
	Node        string `json:"node,omitempty"`        // device file of a simulated device; "" for none

	ComputeCapability string `json:"compute_capability,omitempty"` // such as "9.0"; "" where nobody knows
	NUMANode          int    `json:"numa_node"`                    // of the host; UnknownIndex where there is none
	ParentUUID        string `json:"parent_uuid,omitempty"`        // of the GPU that a MIG instance is part of
	MIGProfile        string `json:"mig_profile,omitempty"`        // such as "1g.10gb"; "" for a whole GPU
	// CapabilityNodes are the device files that a process needs to use a MIG
	// instance, beside its GPU's.
	CapabilityNodes []string `json:"capability_nodes,omitempty"`
}

// UnknownIndex stands for an index or minor number that nobody knows.
const UnknownIndex = -1

// Process is one process that uses a device's memory.
type Process struct {
	PID             int    `json:"pid"`               // as the host sees it
	MemoryUsedBytes uint64 `json:"memory_used_bytes"` // 0 where the driver does not say
}

// State is what a device is good for.
type State string

// The states of a device. Where several apply, the one named first counts.
const (
	Sick     State = "sick"     // its source says, or its silence means, that it cannot be trusted
	Draining State = "draining" // cordoned, and an attempt still holds it
	Cordoned State = "cordoned" // an operator keeps it from new attempts
	Busy     State = "busy"     // an attempt holds it, or it is shared and several do
	Checking State = "checking" // its last attempt has left it, and it is being looked at before the next
	Free     State = "free"     // it can be acquired
)

// States lists every state of a device.
var States = []State{Free, Busy, Checking, Draining, Cordoned, Sick}

// Status is a device with what became of it.
type Status struct {
	Device
	State   State     `json:"state"`
	JobID   job.ID    `json:"job_id,omitempty"`  // the first holder; set in every state in which an attempt holds the device
	Attempt int       `json:"attempt,omitempty"` // the first holder's attempt, from 1
	Holders []Holder  `json:"holders,omitempty"` // all of them, in the order in which they came
	Reason  string    `json:"reason,omitempty"`  // why it is sick, draining or cordoned
	Who     string    `json:"who,omitempty"`     // the operator who cordoned it
	Since   time.Time `json:"since"`             // when it came into State

	MemoryUsedBytes uint64    `json:"memory_used_bytes"`
	Processes       []Process `json:"processes,omitempty"`
	Condition
}

// Holder is an attempt that holds a device.
type Holder struct {
	JobID   job.ID `json:"job_id"`
	Attempt int    `json:"attempt"` // from 1
	// MemoryBytes is its share of the device's memory; 0 is the whole device.
	MemoryBytes uint64 `json:"memory_bytes,omitempty"`
}
