// Package scriptednvml makes NVML libraries that do what a test says: real shared
// objects, which gpuqd-device loads as it would NVIDIA's (--library, or
// device.library of gpuqd.toml). So a library that is not there, a driver that is
// gone, calls that fail, hang or crash, lost devices and storms of events are real
// to the helper.
//
// c/nvml.c is the library. It is compiled against the nvml.h of go-nvml.
package scriptednvml

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

//go:embed c/nvml.c
var source []byte

// What calls return. Source: nvmlReturn_t in nvml.h.
const (
	Uninitialized   = 1
	NotSupported    = 3
	DriverNotLoaded = 9
	GPUIsLost       = 15
	ResetRequired   = 16
	VersionMismatch = 18
	Unknown         = 999
)

// Script is what a library does.
type Script struct {
	Devices []Device
	Calls   []Call // what calls do instead of their work; the first that fits counts
	// Gone is a driver that was unloaded: nothing initialises, and what was
	// initialised before fails.
	Gone bool

	events []string // lines of all events so far
}

// Device is a GPU.
type Device struct {
	UUID, Model    string
	Minor, Bus     int
	Memory         uint64 // bytes, with Reserved
	Reserved, Used uint64 // what the driver keeps, and what is used beside the processes
	MIG            bool   // MIG mode is on
	Instances      []Instance
	Processes      []Process
	// Facts are what not every driver tells, by key: utilisation, temperature,
	// power_milliwatts, power_limit_milliwatts, throttle (bits), ecc_corrected,
	// ecc_uncorrected, ecc_aggregate, remap_pending and remap_failed (both or none),
	// retired_pending, recovery, and events (bits of types; XIDs and double-bit errors
	// where it is absent). What is absent is not supported.
	Facts map[string]uint64
}

// Instance is a MIG instance.
type Instance struct {
	UUID, Profile string // Profile is such as "1g.10gb"
	GI, CI        int
	Memory, Used  uint64
	Processes     []Process
}

// Process uses a device for as long as it lives.
type Process struct {
	PID    int
	Memory uint64 // bytes
}

// Call is what a call does instead of its work.
type Call struct {
	Name string // of the function, with its version: nvmlDeviceGetMemoryInfo_v2; "" is every one
	UUID string // of the device that it is about; "" is any
	// It returns Return, or hangs until the script says otherwise, or crashes.
	Return         int
	Hangs, Crashes bool
}

// Event is something that happens on a device. Listeners of that time hear it once.
type Event struct {
	UUID      string // of a GPU
	XID       int
	DoubleBit bool // it is a double-bit error and no XID
	Count     int  // how many of it come one after another; 0 is 1
	Instance  *Instance
}

// Library is a library of one test.
type Library struct {
	Path string // for gpuqd-device

	mu     sync.Mutex
	script Script
	next   int
}

// New makes a library, in a temporary directory of the test.
func New(t testing.TB, script Script) *Library { return create(t, script, compile) }

// NewOld makes a library of an old driver: it lacks what came later, as MIG.
func NewOld(t testing.TB, script Script) *Library { return create(t, script, compileOld) }

func create(t testing.TB, script Script, compile func() ([]byte, error)) *Library {
	t.Helper()
	object, err := compile()
	if err != nil {
		t.Fatalf("compile the scripted NVML: %v", err)
	}
	l := &Library{Path: filepath.Join(t.TempDir(), "libnvidia-ml.so.1"), script: script}
	if err := os.WriteFile(l.Path, object, 0o755); err != nil {
		t.Fatal(err)
	}
	l.Change(t, func(*Script) {})
	return l
}

// Each is compiled once for all tests of a program.
var (
	compile    = sync.OnceValues(func() ([]byte, error) { return compiled() })
	compileOld = sync.OnceValues(func() ([]byte, error) { return compiled("-DOLD_DRIVER") })
)

func compiled(flags ...string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "scriptednvml")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	header, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-nvml").Output()
	if err != nil {
		return nil, fmt.Errorf("find nvml.h: %w", err)
	}
	in, out := filepath.Join(dir, "nvml.c"), filepath.Join(dir, "nvml.so")
	if err := os.WriteFile(in, source, 0o644); err != nil {
		return nil, err
	}
	args := append([]string{
		"-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror",
		"-I", filepath.Join(strings.TrimSpace(string(header)), "pkg", "nvml"),
	}, flags...)
	said, err := exec.Command("cc", append(args, "-o", out, in, "-ldl", "-lpthread")...).CombinedOutput()
	if err != nil {
		return nil, errors.Join(err, errors.New(string(said)))
	}
	return os.ReadFile(out)
}

// BuildHelper returns the path of gpuqd-device, built from this tree, in a temporary
// directory of the test.
func BuildHelper(t testing.TB) string {
	t.Helper()
	content, err := helper()
	if err != nil {
		t.Fatalf("build gpuqd-device: %v", err)
	}
	path := filepath.Join(t.TempDir(), "gpuqd-device")
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// helper builds gpuqd-device once for all tests of a program.
var helper = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "gpuqd-device")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "gpuqd-device")
	build := exec.Command("go", "build", "-ldflags", "-extldflags=-Wl,-z,lazy", "-o", path, "gpuqd/daemon/nvml")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if said, err := build.CombinedOutput(); err != nil {
		return nil, errors.Join(err, errors.New(string(said)))
	}
	return os.ReadFile(path)
})

// Change changes the script. The library heeds it from its next call on, and within
// milliseconds where a call hangs or waits.
func (l *Library) Change(t testing.TB, change func(*Script)) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.script)
	next := filepath.Join(filepath.Dir(l.Path), "script.next")
	err := os.WriteFile(next, []byte(l.script.text()), 0o644)
	if err == nil {
		err = os.Rename(next, filepath.Join(filepath.Dir(l.Path), "script"))
	}
	if err != nil {
		t.Fatalf("write the script of the scripted NVML: %v", err)
	}
}

// Happen lets events happen, one after the other.
func (l *Library) Happen(t testing.TB, events ...Event) {
	t.Helper()
	l.Change(t, func(s *Script) {
		for _, e := range events {
			l.next++
			s.events = append(s.events, e.line(l.next))
		}
	})
}

// Hanging reports whether a call hangs in the library now.
func (l *Library) Hanging() bool {
	_, err := os.Stat(filepath.Join(filepath.Dir(l.Path), "hanging"))
	return err == nil
}

// The types of event. Source: nvmlEventType in nvml.h.
const (
	typeDoubleBit = 2
	typeXID       = 8
)

func (e Event) line(id int) string {
	kind := typeXID
	if e.DoubleBit {
		kind = typeDoubleBit
	}
	line := fmt.Sprintf("event\tid=%d\ton=%s\ttype=%d\txid=%d\tcount=%d", id, e.UUID, kind, e.XID, max(1, e.Count))
	if e.Instance != nil {
		line += fmt.Sprintf("\tgi=%d\tci=%d", e.Instance.GI, e.Instance.CI)
	}
	return line
}

// text writes a script as nvml.c reads it: lines of fields with tabs between them.
func (s Script) text() string {
	var b strings.Builder
	if s.Gone {
		fmt.Fprintf(&b, "call\tcall=nvmlInit_v2\treturn=%d\n", DriverNotLoaded)
		fmt.Fprintf(&b, "call\treturn=%d\n", Uninitialized)
	}
	for _, c := range s.Calls {
		b.WriteString(c.line())
	}
	for _, d := range s.Devices {
		d.write(&b)
	}
	for _, line := range s.events {
		b.WriteString(line + "\n")
	}
	return b.String()
}

func (c Call) line() string {
	line := "call"
	if c.Name != "" {
		line += "\tcall=" + c.Name
	}
	if c.UUID != "" {
		line += "\ton=" + c.UUID
	}
	switch {
	case c.Hangs:
		line += "\tdoes=hang"
	case c.Crashes:
		line += "\tdoes=crash"
	}
	return line + fmt.Sprintf("\treturn=%d\n", c.Return)
}

func (d Device) write(b *strings.Builder) {
	mig := 0
	if d.MIG {
		mig = 1
	}
	fmt.Fprintf(b, "device\tuuid=%s\tname=%s\tminor=%d\tbus=%d\tmemory=%d\treserved=%d\tused=%d\tmig=%d\tmajor=9\tcapability_minor=0",
		d.UUID, d.Model, d.Minor, d.Bus, d.Memory, d.Reserved, d.Used, mig)
	for key, value := range d.Facts {
		fmt.Fprintf(b, "\t%s=%d", key, value)
	}
	b.WriteString("\n")
	writeProcesses(b, d.UUID, d.Processes)
	for _, i := range d.Instances {
		fmt.Fprintf(b, "instance\tuuid=%s\tgpu=%s\tname=%s MIG %s\tgi=%d\tci=%d\tmemory=%d\tused=%d\n",
			i.UUID, d.UUID, d.Model, i.Profile, i.GI, i.CI, i.Memory, i.Used)
		writeProcesses(b, i.UUID, i.Processes)
	}
}

func writeProcesses(b *strings.Builder, uuid string, processes []Process) {
	for _, p := range processes {
		fmt.Fprintf(b, "process\ton=%s\tpid=%d\tmemory=%d\n", uuid, p.PID, p.Memory)
	}
}
