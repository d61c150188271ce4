package job

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Spec is what a submitter asks for. It never changes once it is in the ledger.
type Spec struct {
	Command     []string          `json:"command" toml:"command"`                 // argv; run without a shell
	Name        string            `json:"name,omitempty" toml:"name"`             // for people
	Pool        string            `json:"pool" toml:"pool"`                       // named set of hosts
	Priority    Priority          `json:"priority" toml:"priority"`               // which queue of the pool
	GPUs        int               `json:"gpus" toml:"gpus"`                       // devices on one host; 0 takes a slot without one
	Workdir     string            `json:"workdir,omitempty" toml:"workdir"`       // absolute; "" is a directory of the job's own
	Env         map[string]string `json:"env,omitempty" toml:"env"`               // added to a minimal environment
	TimeLimit   Duration          `json:"time_limit,omitempty" toml:"time_limit"` // of one attempt; 0 is none
	Grace       Duration          `json:"grace" toml:"grace"`                     // between SIGTERM and SIGKILL
	MaxAttempts int               `json:"max_attempts" toml:"max_attempts"`       // failures paid by the job before it is failed
	RetryOn     []int             `json:"retry_on,omitempty" toml:"retry_on"`     // exit codes worth a retry; empty: every code
	Backoff     []Duration        `json:"backoff" toml:"backoff"`                 // before the 2nd, 3rd, … attempt; the last repeats
	Key         string            `json:"key,omitempty" toml:"key"`               // same submitter and key: same job
	Expires     Duration          `json:"expires,omitempty" toml:"expires"`       // dead if not started so long after the submit; 0 is never
	Labels      map[string]string `json:"labels,omitempty" toml:"labels"`         // for people and lists
	// What the command and all it forks may use together on its host. 0 is no
	// bound, or the usual weight; a host whose starter is "process" holds to none.
	MemoryMax int64 `json:"memory_max,omitempty" toml:"memory_max"` // bytes of host memory
	TasksMax  int   `json:"tasks_max,omitempty" toml:"tasks_max"`   // processes and threads
	CPUWeight int   `json:"cpu_weight,omitempty" toml:"cpu_weight"` // share of busy processors; others have 100
	// GPUMemory is how many bytes of one device's memory the job needs and may use,
	// beside others that share the device; 0 is whole devices.
	GPUMemory int64 `json:"gpu_memory,omitempty" toml:"gpu_memory"`
	// What each of its devices must be; "" and 0 are anything. See Constraints.
	GPUModel             string `json:"gpu_model,omitempty" toml:"gpu_model"`                           // words of its model's name, such as "h100"
	MinGPUMemory         int64  `json:"min_gpu_memory,omitempty" toml:"min_gpu_memory"`                 // bytes in all
	MinComputeCapability string `json:"min_compute_capability,omitempty" toml:"min_compute_capability"` // such as "8.0"
}

// DefaultSpec returns the spec that a submission is decoded over: a field that
// it does not name keeps the value here.
func DefaultSpec() Spec {
	return Spec{
		Pool:        "default",
		Priority:    Normal,
		GPUs:        1,
		Grace:       Duration(10 * time.Second),
		MaxAttempts: 1,
		Backoff:     []Duration{Duration(time.Second), Duration(10 * time.Second), Duration(time.Minute)},
	}
}

// Bounds of a spec. SpecBytesMax holds for its JSON form.
const (
	SpecBytesMax   = 256 << 10
	argsMax        = 4096
	nameBytesMax   = 128
	keyBytesMax    = 256
	labelsMax      = 32
	labelBytesMax  = 256
	gpusMax        = 64
	attemptsMax    = 100
	backoffMax     = 16
	backoffStepMax = 24 * time.Hour
	timeLimitMax   = 365 * 24 * time.Hour
	graceMax       = time.Hour
	memoryLeast    = 16 << 20 // less, and the shim could not look after its command
	memoryMax      = 1 << 44
	tasksMax       = 4 << 20 // the kernel's largest pid_max
	cpuWeightMax   = 10000   // the kernel's
	gpuMemoryLeast = 64 << 20
	gpuMemoryMax   = 4 << 40
	// modelBytesMax keeps the longest class within classPattern.
	modelBytesMax = 32
)

var (
	envPattern   = pattern(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	labelPattern = pattern(`^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$`)
)

// reservedEnv are the variables that gpuqd itself sets for a command.
var reservedEnv = []string{"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"}

// Validate reports everything that is wrong with the spec at once, each line
// naming the field and what it takes.
func (s Spec) Validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
	}
	s.validateCommand(bad)
	if !poolPattern().MatchString(s.Pool) {
		bad("pool", "%q is no pool name: want 1 to 32 of a-z, 0-9, _ and -, with a letter or digit at both ends", s.Pool)
	}
	if s.Priority.Rank() == len(Priorities) {
		bad("priority", "%q is none of high, normal and low", s.Priority)
	}
	between(bad, "gpus", s.GPUs, 0, gpusMax)
	between(bad, "max_attempts", s.MaxAttempts, 1, attemptsMax)
	within(bad, "time_limit", s.TimeLimit, timeLimitMax)
	within(bad, "grace", s.Grace, graceMax)
	within(bad, "expires", s.Expires, timeLimitMax)
	s.validateLimits(bad)
	s.validateDevices(bad)
	s.validateRetry(bad)
	s.validateMaps(bad)
	if len(s.Name) > nameBytesMax || !printable(s.Name) {
		bad("name", "want at most %d bytes of printable text", nameBytesMax)
	}
	if len(s.Key) > keyBytesMax || !printable(s.Key) {
		bad("key", "want at most %d bytes of printable text", keyBytesMax)
	}
	if s.Workdir != "" && (!filepath.IsAbs(s.Workdir) || strings.ContainsRune(s.Workdir, 0)) {
		bad("workdir", "%q is not absolute: the command runs on another host", s.Workdir)
	}
	if n := len(s.canonical()); n > SpecBytesMax {
		bad("spec", "%d bytes are more than the %d it may have: put large inputs in a file", n, SpecBytesMax)
	}
	return errors.Join(errs...)
}

type complain func(field, format string, args ...any)

func (s Spec) validateCommand(bad complain) {
	if len(s.Command) == 0 || s.Command[0] == "" {
		bad("command", "it is empty: give the program and its arguments")
	}
	if len(s.Command) > argsMax {
		bad("command", "%d arguments are more than %d", len(s.Command), argsMax)
	}
	for i, arg := range s.Command {
		if strings.ContainsRune(arg, 0) || !utf8.ValidString(arg) {
			bad("command", "argument %d has a zero byte or is not UTF-8", i)
		}
	}
}

func (s Spec) validateLimits(bad complain) {
	if s.MemoryMax != 0 && (s.MemoryMax < memoryLeast || s.MemoryMax > memoryMax) {
		bad("memory_max", "%d bytes are not between %d (16 MiB) and %d (16 TiB); 0 is no limit", s.MemoryMax, memoryLeast, memoryMax)
	}
	between(bad, "tasks_max", s.TasksMax, 0, tasksMax)
	between(bad, "cpu_weight", s.CPUWeight, 0, cpuWeightMax)
}

// validateDevices checks what is asked of the devices.
func (s Spec) validateDevices(bad complain) {
	memory := func(field string, n int64) {
		if n != 0 && (n < gpuMemoryLeast || n > gpuMemoryMax) {
			bad(field, "%d bytes are not between %d (64 MiB) and %d (4 TiB); 0 asks nothing", n, gpuMemoryLeast, int64(gpuMemoryMax))
		}
	}
	memory("gpu_memory", s.GPUMemory)
	memory("min_gpu_memory", s.MinGPUMemory)
	if s.GPUMemory != 0 && s.GPUs != 1 {
		bad("gpu_memory", "it is a part of one device, and gpus is %d: want gpus = 1, or leave gpu_memory out for whole devices", s.GPUs)
	}
	words := strings.Join(Words(s.GPUModel), " ")
	switch {
	case s.GPUModel == "":
	case words == "" || len(words) > modelBytesMax || !printable(s.GPUModel):
		bad("gpu_model", "%q is no model: want words of its name, together at most %d letters and digits, such as h100", s.GPUModel, modelBytesMax)
	}
	if _, err := ParseComputeCapability(s.MinComputeCapability); err != nil {
		bad("min_compute_capability", "%v", err)
	}
	if asked := s.Constraints(); s.GPUs == 0 && s.GPUMemory == 0 && asked != (Constraints{}) {
		bad("gpus", "0 devices cannot be of a kind: want at least 1, or leave gpu_model, min_gpu_memory and min_compute_capability out")
	}
}

func (s Spec) validateRetry(bad complain) {
	for _, code := range s.RetryOn {
		between(bad, "retry_on", code, 1, 255)
	}
	if len(s.Backoff) == 0 || len(s.Backoff) > backoffMax {
		bad("backoff", "want 1 to %d durations", backoffMax)
	}
	for _, d := range s.Backoff {
		within(bad, "backoff", d, backoffStepMax)
	}
}

func (s Spec) validateMaps(bad complain) {
	for _, name := range slices.Sorted(maps.Keys(s.Env)) {
		switch {
		case !envPattern().MatchString(name):
			bad("env", "%q is no variable name", name)
		case strings.HasPrefix(name, "GPUQ_") || slices.Contains(reservedEnv, name):
			bad("env", "%s is set by gpuqd: choose another name", name)
		case strings.ContainsRune(s.Env[name], 0) || !utf8.ValidString(s.Env[name]):
			bad("env", "%s has a zero byte or is not UTF-8", name)
		}
	}
	if len(s.Labels) > labelsMax {
		bad("labels", "%d are more than %d", len(s.Labels), labelsMax)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Labels)) {
		if !labelPattern().MatchString(name) {
			bad("labels", "%q is no label name: want 1 to 63 of letters, digits, _ and -, with a letter or digit at both ends", name)
		} else if len(s.Labels[name]) > labelBytesMax || !printable(s.Labels[name]) {
			bad("labels", "%s: want at most %d bytes of printable text", name, labelBytesMax)
		}
	}
}

func between(bad complain, field string, n, least, most int) {
	if n < least || n > most {
		bad(field, "%d is not between %d and %d", n, least, most)
	}
}

func within(bad complain, field string, d Duration, most time.Duration) {
	if d < 0 || d.Std() > most {
		bad(field, "%s is not between 0s and %s", d, most)
	}
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// canonical returns the JSON form that is hashed: fields in declaration order,
// map keys sorted.
func (s Spec) canonical() []byte {
	text, err := json.Marshal(s)
	if err != nil {
		panic("a spec is plain data: " + err.Error())
	}
	return text
}

// Hash returns the hex SHA-256 of the spec with its defaults filled in. Two
// submissions of one ID must agree in it.
func (s Spec) Hash() string {
	sum := sha256.Sum256(s.canonical())
	return hex.EncodeToString(sum[:])
}

// Shape returns the shape that the spec waits in.
func (s Spec) Shape() Shape {
	return Shape{Pool: s.Pool, Priority: s.Priority, GPUs: s.GPUs, Class: s.Constraints().Class()}
}
