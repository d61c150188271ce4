package gpucheck

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"gpuqd/daemon/device"
	"gpuqd/daemon/runner/proctree"
)

// A driver that is made up: the file "devices" in a directory has the UUIDs of its
// GPUs, testdata/libcuda.c is its CUDA library, and notes in "use" which process has
// taken memory. This binary is its nvidia-smi and, under that name, gpuqd-device.
// Files "fault-…" in the directory make it lie.

const (
	fakeMemory = 8 << 30
	fakeIdle   = 500 << 20 // in use while nobody uses it
)

type fakeDriver string // the directory

func (f fakeDriver) path(name string) string { return filepath.Join(string(f), name) }

func (f fakeDriver) faulty(name string) bool {
	_, err := os.Stat(f.path("fault-" + name))
	return err == nil
}

func (f fakeDriver) uuids() []string {
	text, err := os.ReadFile(f.path("devices"))
	if err != nil {
		panic(err)
	}
	return strings.Fields(string(text))
}

// use returns who has taken memory of a device, and still lives.
func (f fakeDriver) use(uuid string) []device.Process {
	entries, err := os.ReadDir(f.path("use"))
	if err != nil {
		panic(err)
	}
	var all []device.Process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue // being made
		}
		text, err := os.ReadFile(f.path("use/" + entry.Name()))
		if err != nil {
			panic(err)
		}
		var of string
		var bytes uint64
		if _, err := fmt.Sscan(string(text), &of, &bytes); err != nil {
			panic(err)
		}
		if stat, err := proctree.ReadStat(pid); of == uuid && err == nil && stat.Alive() {
			all = append(all, device.Process{PID: pid, MemoryUsedBytes: bytes})
		}
	}
	return all
}

func (f fakeDriver) inventory() []device.Facts {
	all := []device.Facts{}
	for i, uuid := range f.uuids() {
		facts := device.Facts{Device: device.Device{
			UUID: uuid, Index: i, Model: "Fake GPU", MemoryBytes: fakeMemory, PCIAddress: fmt.Sprintf("0000:%02x:00.0", 0xa0+i),
			MinorNumber: i, NUMANode: device.UnknownIndex, ComputeCapability: "9.0",
		}, MemoryUsedBytes: fakeIdle}
		for _, p := range f.use(uuid) {
			facts.MemoryUsedBytes += p.MemoryUsedBytes
			if f.faulty("wrong-pid") {
				p.PID++
			}
			if f.faulty("no-memory") {
				p.MemoryUsedBytes = 0
			}
			facts.Processes = append(facts.Processes, p)
		}
		if f.faulty("keeps-memory") && len(facts.Processes) == 0 {
			if entries, err := os.ReadDir(f.path("use")); err == nil && len(entries) > 0 {
				facts.MemoryUsedBytes += 1 << 30
			}
		}
		all = append(all, facts)
	}
	return all
}

// helper is gpuqd-device: an inventory at short intervals, and at once when it is
// asked to look, until its input ends.
func (f fakeDriver) helper() {
	var look atomic.Uint64
	asked, over := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(over)
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			if n, err := strconv.ParseUint(strings.TrimPrefix(lines.Text(), "look "), 10, 64); err == nil {
				look.Store(max(n, look.Load()))
				select {
				case asked <- struct{}{}:
				default: // the next inventory is after this, too
				}
			}
		}
	}()
	for {
		n := look.Load() // before the sampling
		line, err := json.Marshal(device.Report{Version: device.WireVersion, Devices: f.inventory(), Look: n})
		if err != nil {
			panic(err)
		}
		if _, err := os.Stdout.Write(append(line, '\n')); err != nil {
			return // nobody listens any more
		}
		select {
		case <-over:
			return
		case <-asked:
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// smi is nvidia-smi.
func (f fakeDriver) smi(args []string) {
	for i, d := range f.inventory() {
		switch args[0] {
		case "-L":
			fmt.Printf("GPU %d: %s (UUID: %s)\n", i, d.Model, d.UUID)
		case "--query-gpu=compute_cap":
			fmt.Println(d.ComputeCapability)
		case "--query-gpu=" + queried:
			mib := d.MemoryBytes >> 20
			if f.faulty("smi-memory") {
				mib /= 2
			}
			fmt.Printf("%d, %s, %s, %d, 0000%s, Disabled, 999.1\n", i, d.UUID, d.Model, mib, strings.ToUpper(d.PCIAddress))
		default:
			fmt.Println("not a valid query:", args)
			os.Exit(2)
		}
	}
}
