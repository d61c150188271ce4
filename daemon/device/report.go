package device

import (
	"encoding/json"
	"errors"
	"fmt"
)

// WireVersion is the version of the lines that gpuqd-device writes. It grows
// when an old reader would misread a new line; new fields alone leave it.
const WireVersion = 1

// LineBytesMax bounds one line of gpuqd-device. 16 devices with a hundred
// processes each stay below a tenth of it.
const LineBytesMax = 1 << 20

// ExitNoDriver is the exit code of gpuqd-device when NVML did not initialise.
const ExitNoDriver = 3

// Report is one message of a source, and one line of gpuqd-device. It is an
// error, a heartbeat or a full inventory, which may be empty.
type Report struct {
	Version   int  `json:"version"`
	Heartbeat bool `json:"heartbeat,omitempty"` // the source made progress; nothing else is said
	// Devices is the full inventory: what it does not name is not there. Empty is
	// a host without devices, nil (and absent in JSON) says nothing of them.
	Devices []Facts `json:"devices,omitzero"`
	// Problems are troubles that belong to no device that could be named.
	Problems []string `json:"problems,omitempty"`
	// Error says that the source knows nothing of its devices; they are all sick.
	Error *ReportError `json:"error,omitempty"`
}

// Facts is what a source says of one device.
type Facts struct {
	Device
	MemoryUsedBytes uint64    `json:"memory_used_bytes"`
	Processes       []Process `json:"processes,omitempty"`
	// Sick is why the device must take no work; "" when it is well.
	Sick string `json:"sick,omitempty"`
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
	if !r.Heartbeat && r.Error == nil && r.Devices == nil {
		return Report{}, errors.New("read a line of gpuqd-device: it is no heartbeat, no inventory and no error")
	}
	for _, f := range r.Devices {
		if f.UUID == "" {
			return Report{}, errors.New("read a line of gpuqd-device: a device has no uuid")
		}
	}
	return r, nil
}
