package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuqd/daemon/device"
)

// paths are where the kernel and its NVIDIA module tell what NVML does not; tests
// have their own.
type paths struct {
	pciDevices string // directory with one of each PCI device's address
	migMinors  string // file that numbers the capabilities of MIG instances
}

var systemPaths = paths{
	pciDevices: "/sys/bus/pci/devices",
	migMinors:  "/proc/driver/nvidia-caps/mig-minors",
}

// sampler asks NVML for the inventory. One goroutine owns it; each GPU is asked about
// by another, so that one that hangs does not keep the rest.
type sampler struct {
	lib      nvml.Interface
	paths    paths
	patience time.Duration // how long the others wait for a GPU
	// beat is called by the owner when the driver let a call go: it may tell of
	// progress.
	beat func()
	// saw is told of each GPU and its MIG instances, for the watch of events. It may be
	// called from any goroutine.
	saw func(gpu)

	desks   []*desk       // by index of the GPU
	stepped chan struct{} // capacity 1: the driver let a call go

	mu      sync.Mutex                       // guards what follows
	symbols map[string]bool                  // those looked for, and whether the library has them
	caps    func(minor, gi, ci int) []string // of this inventory; nil until a MIG instance asks
}

// gpu is a GPU that the driver has told of.
type gpu struct {
	handle    nvml.Device
	uuid      string
	instances []instance // none unless MIG mode is on
}

func newSampler(lib nvml.Interface, patience time.Duration, beat func(), saw func(gpu)) *sampler {
	return &sampler{
		lib: lib, paths: systemPaths, patience: patience, beat: beat, saw: saw,
		stepped: make(chan struct{}, 1), symbols: map[string]bool{},
	}
}

// step notes that the driver let a call go.
func (s *sampler) step() { poke(s.stepped) }

// gpu asks for everything about one GPU: it is one device, or each of its MIG
// instances is. An error means that not even identities could be had this time.
func (s *sampler) gpu(index int) ([]device.Facts, error) {
	handle, ret := s.lib.DeviceGetHandleByIndex(index)
	if err := s.check("open", ret); err != nil {
		return nil, err
	}
	whole := device.Facts{}
	var err error
	if whole.Device, whole.MemoryUsedBytes, err = s.identity(handle, index); err != nil {
		return nil, err
	}
	whole.Condition, err = s.condition(handle)
	whole.Sick, whole.Lost = sick(err)
	if s.hasMIG(handle) {
		facts, instances, err := s.instances(handle, whole)
		if err == nil {
			s.saw(gpu{handle, whole.UUID, instances})
		}
		return facts, err
	}
	s.saw(gpu{handle: handle, uuid: whole.UUID})
	if whole.Processes, err = s.processes(handle); whole.Sick == "" {
		whole.Sick, whole.Lost = sick(err)
	}
	return []device.Facts{whole}, nil
}

// identity asks for what does not change while the device is there, and for the
// memory in use, which comes with the memory that there is.
func (s *sampler) identity(handle nvml.Device, index int) (d device.Device, used uint64, err error) {
	uuid, uuidRet := handle.GetUUID()
	name, nameRet := handle.GetName()
	total, used, memoryRet := s.memory(handle)
	pci, pciRet := handle.GetPciInfo()
	minor, minorRet := handle.GetMinorNumber()
	if minorRet == nvml.ERROR_NOT_SUPPORTED { // as on WSL
		minor, minorRet = device.UnknownIndex, nvml.SUCCESS
	}
	err = cmp.Or(
		s.check("read the UUID", uuidRet),
		s.check("read the name", nameRet),
		s.check("read the memory", memoryRet),
		s.check("read the PCI address", pciRet),
		s.check("read the minor number", minorRet),
	)
	if err != nil {
		return device.Device{}, 0, err
	}
	d = device.Device{
		UUID:        uuid,
		Index:       index,
		Model:       name,
		MemoryBytes: total,
		PCIAddress:  fmt.Sprintf("%04x:%02x:%02x.0", pci.Domain, pci.Bus, pci.Device), // as lspci and sysfs write it
		MinorNumber: minor,
	}
	d.NUMANode = s.numaNode(d.PCIAddress)
	if major, minor, ret := handle.GetCudaComputeCapability(); ret == nvml.SUCCESS {
		d.ComputeCapability = fmt.Sprintf("%d.%d", major, minor)
	}
	return d, used, nil
}

// memory returns how much memory there is and how much of it processes have. The
// older call counts what the driver keeps for itself as used.
//
// Source: nvmlMemory_v2_t and nvmlMemory_t in nvml.h. They do not agree with the
// calls' description on whether used has the reserved part; what is neither free
// nor reserved is right either way.
func (s *sampler) memory(handle nvml.Device) (total, used uint64, ret nvml.Return) {
	if s.has("nvmlDeviceGetMemoryInfo_v2") {
		m, ret := handle.GetMemoryInfo_v2()
		if ret == nvml.SUCCESS && m.Free+m.Reserved <= m.Total {
			return m.Total, m.Total - m.Free - m.Reserved, ret
		}
		if isLost(ret) {
			return 0, 0, ret
		}
	}
	m, ret := handle.GetMemoryInfo()
	return m.Total, m.Used, ret
}

// numaNode returns the node whose processors are next to a PCI device. NVML's
// nvmlDeviceGetNumaNodeId is no answer: it names the node that the memory of a GPU
// is, on hosts where it is one, and that has no processors (nvml.h).
//
// Source: Documentation/ABI/testing/sysfs-bus-pci of the kernel: -1 is unknown.
func (s *sampler) numaNode(address string) int {
	text, err := os.ReadFile(filepath.Join(s.paths.pciDevices, address, "numa_node"))
	if err != nil {
		return device.UnknownIndex
	}
	node, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || node < 0 {
		return device.UnknownIndex
	}
	return node
}

// processes lists who uses a device, by PID. One process can be in several of the
// driver's lists.
func (s *sampler) processes(handle nvml.Device) ([]device.Process, error) {
	byPID := map[int]uint64{}
	for _, list := range []struct {
		symbol string
		ask    func() ([]nvml.ProcessInfo, nvml.Return)
	}{
		{"nvmlDeviceGetComputeRunningProcesses", handle.GetComputeRunningProcesses},
		{"nvmlDeviceGetGraphicsRunningProcesses", handle.GetGraphicsRunningProcesses},
		{"nvmlDeviceGetMPSComputeRunningProcesses", handle.GetMPSComputeRunningProcesses},
	} {
		if !s.has(list.symbol+"_v3", list.symbol+"_v2", list.symbol) {
			continue
		}
		processes, ret := list.ask()
		if ret == nvml.ERROR_NOT_SUPPORTED {
			continue
		}
		if err := s.check("list the processes", ret); err != nil {
			return nil, err
		}
		for _, p := range processes {
			byPID[int(p.Pid)] = max(byPID[int(p.Pid)], usedBytes(p))
		}
	}
	var all []device.Process
	for pid, used := range byPID {
		all = append(all, device.Process{PID: pid, MemoryUsedBytes: used})
	}
	slices.SortFunc(all, func(a, b device.Process) int { return cmp.Compare(a.PID, b.PID) })
	return all, nil
}

// usedBytes returns 0 where the driver does not say (NVML_VALUE_NOT_AVAILABLE,
// all bits set).
func usedBytes(p nvml.ProcessInfo) uint64 {
	if p.UsedGpuMemory == math.MaxUint64 {
		return 0
	}
	return p.UsedGpuMemory
}

// has reports whether the library has one of the symbols. One that it lacks must
// not be called: go-nvml leaves symbols to be found at their first call, and the
// dynamic linker ends a process that calls one in vain.
func (s *sampler) has(symbols ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(symbols, func(symbol string) bool {
		found, known := s.symbols[symbol]
		if !known {
			found = s.lib.Extensions().LookupSymbol(symbol) == nil
			s.symbols[symbol] = found
		}
		return found
	})
}

// remedies says what to do where the code alone does. A reset needs every client
// of the driver gone, gpuqd-device among them. Source: nvmlReturn_t in nvml.h.
var remedies = map[nvml.Return]string{
	nvml.ERROR_GPU_IS_LOST:        "it has fallen off the bus; restart the host",
	nvml.ERROR_RESET_REQUIRED:     "stop gpuqd, reset it with nvidia-smi --gpu-reset and start gpuqd again, or restart the host",
	nvml.ERROR_INSUFFICIENT_POWER: "its power cables are not properly attached",
	nvml.ERROR_IRQ_ISSUE:          "its interrupts do not arrive; look at the kernel log and restart the host",
	nvml.ERROR_OPERATING_SYSTEM:   "gpuqd-device may not use it; look at DeviceAllow= of gpuqd.service",
}

// isLost reports whether a code says that the device itself is of no use any more.
func isLost(ret nvml.Return) bool {
	return ret == nvml.ERROR_GPU_IS_LOST || ret == nvml.ERROR_RESET_REQUIRED
}

// check converts a return code of NVML; none goes further than this.
func (s *sampler) check(what string, ret nvml.Return) error {
	if ret == nvml.SUCCESS {
		return nil
	}
	remedy, ok := remedies[ret]
	if !ok {
		remedy = "run nvidia-smi and look at the kernel log"
	}
	return &refusal{fmt.Sprintf("%s: %s; %s", what, s.lib.ErrorString(ret), remedy), ret}
}

// refusal is an answer that the driver refused.
type refusal struct {
	text string
	ret  nvml.Return
}

// Error implements error.
func (r *refusal) Error() string { return r.text }

// sick is what an error says of a device, and whether the device is lost by it.
func sick(err error) (why string, lost bool) {
	if err == nil {
		return "", false
	}
	r, ok := errors.AsType[*refusal](err)
	return err.Error(), ok && isLost(r.ret)
}
