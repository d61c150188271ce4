package runner

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"gpuqd/daemon/job"
)

// Schema is the newest version of the files in an attempt directory. A shim runs
// intents from SchemaLeast to its own version; a daemon reads every older one.
//
// Version 2 has Account: a shim that does not know it would run the command as
// root. Version 3 has GPUMemoryBytes: a command that is not told its share may take
// the whole device. An intent is written as the oldest version that says all.
const (
	Schema        = 3
	schemaAccount = 2
	SchemaLeast   = 1
)

// What a shim does with its attempt when its session's lease is not renewed.
const (
	LeaseFreeze   = "freeze"   // freeze until renewed; the default
	LeaseStop     = "stop"     // kill at the deadline
	LeaseContinue = "continue" // go on; another host may run the job meanwhile
)

// DefaultGrace lies between SIGTERM and SIGKILL where nobody said otherwise.
const DefaultGrace = 30 * time.Second

// DefaultLogBytesMax bounds output.log where the intent does not.
const DefaultLogBytesMax = 256 << 20

// Intent is what an attempt is to run, written before anything is started.
type Intent struct {
	Schema    int    `json:"schema"` // set by Begin to the oldest that says all
	JobID     job.ID `json:"job_id"`
	Attempt   int    `json:"attempt"`
	Fence     int64  `json:"fence"`
	ClaimID   string `json:"claim_id"`
	Session   string `json:"session"`
	Host      string `json:"host"`
	Submitter string `json:"submitter"`
	Queue     string `json:"queue"`

	Command []string          `json:"command"` // looked up in the PATH of Env
	Env     map[string]string `json:"env"`     // the user's; see Environ for what is added
	Dir     string            `json:"dir"`     // working directory; "" is Workdir, then /
	Workdir string            `json:"workdir"` // GPUQ_WORKDIR; made at the start if missing
	Devices []string          `json:"devices"` // UUIDs
	// GPUMemoryBytes is the command's share of its one device's memory; 0 is whole
	// devices.
	GPUMemoryBytes uint64 `json:"gpu_memory_bytes,omitempty"`
	// DeviceNodes are the device files that the command may open beside the
	// harmless ones, such as /dev/nvidia0. A starter that cannot hold it to them
	// says so in its documentation.
	DeviceNodes []string `json:"device_nodes,omitempty"`
	// Account is whom the command runs as; nil is the user of the shim.
	Account *Account `json:"account,omitempty"`
	Limits  Limits   `json:"limits,omitzero"`
	// NUMA is where on the host the command belongs; nil is anywhere.
	NUMA *NUMA `json:"numa,omitempty"`

	TimeLimit   time.Duration `json:"time_limit_ns"` // of running, not frozen, time; 0 is none
	Grace       time.Duration `json:"grace_ns"`      // from SIGTERM to SIGKILL; 0 is DefaultGrace, negative none
	LeaseLoss   string        `json:"lease_loss"`    // LeaseFreeze ("" too), LeaseStop or LeaseContinue
	FreezeMax   time.Duration `json:"freeze_max_ns"` // longest single freeze; 0 is no bound
	LogBytesMax int64         `json:"log_bytes_max"` // of output.log; 0 is DefaultLogBytesMax
	// DeadlineFile is the session's deadline file (see WriteDeadline). "" means
	// that no lease guards the attempt.
	DeadlineFile string `json:"deadline_file"`

	ClaimedAt time.Time       `json:"claimed_at"`
	Spec      json.RawMessage `json:"spec,omitempty"` // opaque: for the daemon's own use

	// JournalSocket is journald's, to which the shim also sends the output and its
	// own notes, where the host has it. "" is no such thing.
	JournalSocket string `json:"journal_socket,omitempty"`
}

// Limits bound what the command and all it forks use together; 0 is no bound, or
// the kernel's usual weight. They hold where the starter has a cgroup for them.
type Limits struct {
	MemoryBytesMax int64 `json:"memory_bytes_max,omitempty"`
	TasksMax       int   `json:"tasks_max,omitempty"`  // processes and threads
	CPUWeight      int   `json:"cpu_weight,omitempty"` // 1 to 10000; 100 is usual
}

// schema returns the version that says all that the intent holds.
func (in *Intent) schema() int {
	switch {
	case in.GPUMemoryBytes > 0:
		return Schema
	case in.Account != nil:
		return schemaAccount
	}
	return SchemaLeast
}

// Key returns the name of the attempt.
func (in *Intent) Key() Key { return Key{in.JobID, in.Attempt} }

// GraceOrDefault returns the time from SIGTERM to SIGKILL, 0 for none.
func (in *Intent) GraceOrDefault() time.Duration {
	switch {
	case in.Grace == 0:
		return DefaultGrace
	case in.Grace < 0:
		return 0
	}
	return in.Grace
}

// validate refuses an intent that no shim could run.
func (in *Intent) validate() error {
	if _, err := ParseKey(in.Key().String()); err != nil {
		return err
	}
	if len(in.Command) == 0 || in.Command[0] == "" {
		return fmt.Errorf("the command is empty")
	}
	for _, arg := range append([]string{in.Dir, in.Workdir}, in.Command...) {
		if strings.ContainsRune(arg, 0) {
			return fmt.Errorf("%q has a zero byte, which no argument or path can hold", arg)
		}
	}
	for name, value := range in.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
			return fmt.Errorf("environment variable %q cannot be set: a name has no = and neither part has a zero byte", name)
		}
	}
	switch in.LeaseLoss {
	case "", LeaseFreeze, LeaseStop, LeaseContinue:
	default:
		return fmt.Errorf("on_lease_loss is %q: want freeze, stop or continue", in.LeaseLoss)
	}
	for _, path := range append([]string{in.Dir, in.Workdir, in.DeadlineFile}, in.DeviceNodes...) {
		if path != "" && !filepath.IsAbs(path) {
			return fmt.Errorf("path %q is not absolute", path)
		}
	}
	return in.NUMA.validate()
}
