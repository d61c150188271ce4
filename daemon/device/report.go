package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// WireVersion is the version of the lines that gpuqd-device writes. It grows
// when an old reader would misread a new line; new fields alone leave it.
const WireVersion = 2

// LineBytesMax bounds one line of gpuqd-device. 16 devices with a hundred
// processes each stay below a tenth of it.
const LineBytesMax = 1 << 20

// ExitNoDriver is the exit code of gpuqd-device when NVML did not initialise.
const ExitNoDriver = 3

// Report is one message of a source, and one line of gpuqd-device. It is an
// error, a heartbeat, events, or a full inventory, which may be empty.
type Report struct {
	Version   int  `json:"version"`
	Heartbeat bool `json:"heartbeat,omitempty"` // the source made progress; nothing else is said
	// Devices is the full inventory: what it does not name is not there. Empty is
	// a host without devices, nil (and absent in JSON) says nothing of them.
	Devices []Facts `json:"devices,omitzero"`
	// Look is the highest look asked for (Looker) before the sampling of Devices
	// began; 0 for none.
	Look uint64 `json:"look,omitempty"`
	// Events have happened since the last report. One that also has Devices is
	// later than its events.
	Events []Event `json:"events,omitempty"`
	// Problems are troubles that belong to no device that could be named.
	Problems []string `json:"problems,omitempty"`
	// Error says that the source knows nothing of its devices; they are all sick.
	Error *ReportError `json:"error,omitempty"`
}

// Facts is what a source says of one device.
type Facts struct {
	Device
	// MemoryUsedBytes is without what the driver keeps for itself, where it tells.
	MemoryUsedBytes uint64    `json:"memory_used_bytes"`
	Processes       []Process `json:"processes,omitempty"`
	Condition
	// Sick is why the device must take no work; "" when it is well.
	Sick string `json:"sick,omitempty"`
	// Lost, with Sick: the device itself is lost, and nothing can go on on it.
	Lost bool `json:"lost,omitempty"`
}

// Condition is how a device fares. What a driver does not tell is nil or empty.
type Condition struct {
	UtilisationPercent *int     `json:"utilisation_percent,omitempty"` // time with a kernel running, over the driver's last sample period
	TemperatureCelsius *int     `json:"temperature_celsius,omitempty"`
	PowerWatts         *float64 `json:"power_watts,omitempty"`
	PowerLimitWatts    *float64 `json:"power_limit_watts,omitempty"`
	// Throttle has the reasons for which clocks are held down, idleness aside.
	Throttle []string `json:"throttle,omitempty"`
	ECC      *ECC     `json:"ecc,omitempty"` // nil where it is off or not there
	// Recovery is what the driver says must be done before the device can be
	// trusted again; "" for nothing.
	Recovery RecoveryAction `json:"recovery,omitempty"`
	// Faults are what was made to ail a simulated device, in words, and lasts.
	Faults []string `json:"faults,omitempty"`
}

// ECC has a device's memory errors.
type ECC struct {
	Corrected            uint64 `json:"corrected"`               // since the driver was loaded
	Uncorrected          uint64 `json:"uncorrected"`             // since the driver was loaded
	UncorrectedAggregate uint64 `json:"uncorrected_aggregate"`   // over the device's life
	RemapPending         bool   `json:"remap_pending,omitempty"` // rows or pages are retired at the next reset
	RemapFailed          bool   `json:"remap_failed,omitempty"`  // no spare row is left: the device is to be replaced
}

// RecoveryAction is what a device needs, in the driver's words.
type RecoveryAction string

// The recovery actions. Source: nvmlDeviceGpuRecoveryAction_t in nvml.h.
const (
	RecoveryReset      RecoveryAction = "gpu_reset"
	RecoveryReboot     RecoveryAction = "node_reboot"
	RecoveryDrainP2P   RecoveryAction = "drain_p2p"       // peers are to be drained, then it is to be reset
	RecoveryDrainReset RecoveryAction = "drain_and_reset" // it may work on what it has, but take nothing new
	// Those of newer drivers.
	RecoveryIMEX         RecoveryAction = "recover_imex_domain" // memory sharing between hosts over NVLink is broken
	RecoveryBusReset     RecoveryAction = "bus_reset"
	RecoverySystemReboot RecoveryAction = "system_reboot"
	RecoveryUnknown      RecoveryAction = "unknown" // the driver names one that this gpuqd-device does not know
)

// EventKind says what an event is.
type EventKind string

// The kinds of event.
const (
	EventXID         EventKind = "xid"
	EventUncorrected EventKind = "ecc_uncorrected" // a double-bit error
)

// Event is something that the driver has reported as it happened.
type Event struct {
	UUID  string    `json:"uuid"` // of the device or MIG instance, or of the GPU whose instances it may concern; "" where the driver does not say
	Kind  EventKind `json:"kind"`
	XID   int       `json:"xid,omitempty"`
	Count int       `json:"count"` // how many of the same were heard together, from 1
	At    time.Time `json:"at"`    // of the first, when it was heard
}

// ErrorKind says what kept a source from its devices.
type ErrorKind string

// The kinds of error.
const (
	NoDriver       ErrorKind = "no_driver"       // the NVIDIA library or kernel module is not there
	DriverMismatch ErrorKind = "driver_mismatch" // library and kernel module are of different versions
	DriverFailed   ErrorKind = "driver_failed"   // the driver refused an answer
	HelperSilent   ErrorKind = "helper_silent"   // gpuqd-device said nothing before the deadline
	HelperFailed   ErrorKind = "helper_failed"   // gpuqd-device cannot be started or understood
)

// ReportError is why a source knows nothing of its devices.
type ReportError struct {
	Kind    ErrorKind `json:"kind"`
	Message string    `json:"message"` // one line for a person, with what to do
}

// Error implements error.
func (e *ReportError) Error() string { return e.Message }

// ErrWireVersion means that gpuqd and gpuqd-device are of different releases.
var ErrWireVersion = errors.New("gpuqd-device speaks another version")

// ParseLine reads one line of gpuqd-device. It returns ErrWireVersion where the
// line is well-formed but of another version.
func ParseLine(line []byte) (Report, error) {
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(line, &version); err != nil {
		return Report{}, fmt.Errorf("read a line of gpuqd-device: %w", err)
	}
	if version.Version != WireVersion {
		return Report{}, fmt.Errorf("%w (%d, want %d): install gpuqd and gpuqd-device of the same release",
			ErrWireVersion, version.Version, WireVersion)
	}
	var r Report
	if err := json.Unmarshal(line, &r); err != nil {
		return Report{}, fmt.Errorf("read a line of gpuqd-device: %w", err)
	}
	if !r.Heartbeat && r.Error == nil && r.Devices == nil && r.Events == nil {
		return Report{}, errors.New("read a line of gpuqd-device: it is no heartbeat, no inventory, no event and no error")
	}
	for _, f := range r.Devices {
		if f.UUID == "" {
			return Report{}, errors.New("read a line of gpuqd-device: a device has no uuid")
		}
	}
	return r, nil
}
