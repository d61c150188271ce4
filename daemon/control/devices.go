package control

import "gpuqd/daemon/job"

// DeviceFacts is what is known of a device beside who holds it and why it takes no
// work. What nobody tells is nil or empty. Of another host than the one that was
// asked, unless it was asked for by name, there is what it wrote at its last
// renewal: nothing of processes, addresses, limits and faults.
type DeviceFacts struct {
	Since   job.Time       `json:"since,omitzero"`    // when it came into its state
	Holders []DeviceHolder `json:"holders,omitempty"` // all of them, where it is shared

	PCIAddress        string `json:"pci_address,omitempty"`
	ComputeCapability string `json:"compute_capability,omitempty"` // such as "9.0"
	NUMANode          *int   `json:"numa_node,omitempty"`
	ParentUUID        string `json:"parent_uuid,omitempty"` // of the GPU that a MIG instance is part of
	MIGProfile        string `json:"mig_profile,omitempty"` // such as "1g.10gb"

	MemoryUsedBytes    uint64          `json:"memory_used_bytes"`
	UtilisationPercent *int            `json:"utilisation_percent,omitempty"`
	TemperatureCelsius *int            `json:"temperature_celsius,omitempty"`
	PowerWatts         *float64        `json:"power_watts,omitempty"`
	PowerLimitWatts    *float64        `json:"power_limit_watts,omitempty"`
	Throttle           []string        `json:"throttle,omitempty"` // why its clocks are held down
	ECC                *DeviceECC      `json:"ecc,omitempty"`      // nil where it is off or not there
	Recovery           string          `json:"recovery,omitempty"` // what the driver says must be done
	Processes          []DeviceProcess `json:"processes,omitempty"`
	Faults             []string        `json:"faults,omitempty"` // what was made to ail it, where it is simulated
}

// DeviceHolder is an attempt that holds a device.
type DeviceHolder struct {
	JobID       job.ID `json:"job_id"`
	Attempt     int    `json:"attempt"`
	MemoryBytes uint64 `json:"memory_bytes,omitempty"` // its share; 0 is the whole device
}

// DeviceECC has a device's memory errors.
type DeviceECC struct {
	Corrected            uint64 `json:"corrected"`             // since the driver was loaded
	Uncorrected          uint64 `json:"uncorrected"`           // since the driver was loaded
	UncorrectedAggregate uint64 `json:"uncorrected_aggregate"` // over the device's life
	RemapPending         bool   `json:"remap_pending,omitempty"`
	RemapFailed          bool   `json:"remap_failed,omitempty"`
}

// DeviceProcess is a process that uses a device's memory.
type DeviceProcess struct {
	PID             int    `json:"pid"`
	MemoryUsedBytes uint64 `json:"memory_used_bytes"` // 0 where the driver does not say
}
