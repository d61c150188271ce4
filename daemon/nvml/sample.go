package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuqd/daemon/device"
)

// sampler asks NVML for the inventory.
type sampler struct {
	lib   nvml.Interface
	beat  func()                // called between two devices
	known map[int]device.Device // by index: a lost device cannot say any more who it is
}

func newSampler(lib nvml.Interface, beat func()) *sampler {
	return &sampler{lib: lib, beat: beat, known: map[int]device.Device{}}
}

// inventory returns all devices. One that fails is sick, the others are not.
func (s *sampler) inventory() device.Report {
	count, ret := s.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return device.Report{Error: &device.ReportError{
			Kind: device.DriverFailed,
			Message: fmt.Sprintf("the driver does not count its devices: %s; run nvidia-smi and look at the kernel log",
				s.lib.ErrorString(ret)),
		}}
	}
	r := device.Report{Devices: []device.Facts{}}
	for i := range count {
		facts, err := s.facts(i)
		known, ok := s.known[i]
		switch {
		case err == nil:
			s.known[i] = facts.Device
			r.Devices = append(r.Devices, facts)
		case ok:
			r.Devices = append(r.Devices, device.Facts{Device: known, Sick: err.Error()})
		default:
			r.Problems = append(r.Problems, fmt.Sprintf("device %d does not say its name: %v", i, err))
		}
		s.beat()
	}
	return r
}

// facts asks for everything about one device. An error means that not even its
// identity could be had this time.
func (s *sampler) facts(index int) (device.Facts, error) {
	handle, ret := s.lib.DeviceGetHandleByIndex(index)
	if err := s.check("open", ret); err != nil {
		return device.Facts{}, err
	}
	identity, err := s.identity(handle, index)
	if err != nil {
		return device.Facts{}, err
	}
	f := device.Facts{Device: identity}
	if err := s.use(handle, &f); err != nil {
		f.Sick = err.Error()
	}
	return f, nil
}

// identity asks for what does not change while the device is there.
func (s *sampler) identity(handle nvml.Device, index int) (device.Device, error) {
	uuid, uuidRet := handle.GetUUID()
	name, nameRet := handle.GetName()
	memory, memoryRet := handle.GetMemoryInfo()
	pci, pciRet := handle.GetPciInfo()
	minor, minorRet := handle.GetMinorNumber()
	if minorRet == nvml.ERROR_NOT_SUPPORTED { // as on WSL
		minor, minorRet = device.UnknownIndex, nvml.SUCCESS
	}
	err := cmp.Or(
		s.check("read the UUID", uuidRet),
		s.check("read the name", nameRet),
		s.check("read the memory", memoryRet),
		s.check("read the PCI address", pciRet),
		s.check("read the minor number", minorRet),
	)
	if err != nil {
		return device.Device{}, err
	}
	return device.Device{
		UUID:        uuid,
		Index:       index,
		Model:       name,
		MemoryBytes: memory.Total,
		PCIAddress:  fmt.Sprintf("%04x:%02x:%02x.0", pci.Domain, pci.Bus, pci.Device), // as lspci and sysfs write it
		MinorNumber: minor,
	}, nil
}

// use asks what the device is doing.
func (s *sampler) use(handle nvml.Device, f *device.Facts) error {
	// Memory that the driver reserves counts as used, so an idle device does not
	// read zero. Source: nvmlDeviceGetMemoryInfo (v1).
	memory, ret := handle.GetMemoryInfo()
	if err := s.check("read the memory in use", ret); err != nil {
		return err
	}
	f.MemoryUsedBytes = memory.Used
	if mig, _, ret := handle.GetMigMode(); ret == nvml.SUCCESS && mig == nvml.DEVICE_MIG_ENABLE {
		return errors.New("MIG mode is on, and only whole devices are handed out: nvidia-smi -mig 0 turns it off")
	}
	byPID := map[int]uint64{}
	for _, list := range []func() ([]nvml.ProcessInfo, nvml.Return){
		handle.GetComputeRunningProcesses,
		handle.GetGraphicsRunningProcesses,
		handle.GetMPSComputeRunningProcesses,
	} {
		processes, ret := list()
		if ret == nvml.ERROR_NOT_SUPPORTED {
			continue
		}
		if err := s.check("list the processes", ret); err != nil {
			return err
		}
		for _, p := range processes {
			byPID[int(p.Pid)] = max(byPID[int(p.Pid)], usedBytes(p)) // one process can be in several lists
		}
	}
	for pid, used := range byPID {
		f.Processes = append(f.Processes, device.Process{PID: pid, MemoryUsedBytes: used})
	}
	slices.SortFunc(f.Processes, func(a, b device.Process) int { return cmp.Compare(a.PID, b.PID) })
	return nil
}

// usedBytes returns 0 where the driver does not say (NVML_VALUE_NOT_AVAILABLE,
// all bits set).
func usedBytes(p nvml.ProcessInfo) uint64 {
	if p.UsedGpuMemory == math.MaxUint64 {
		return 0
	}
	return p.UsedGpuMemory
}

// remedies says what to do where the code alone does. Source: nvmlReturn_t in
// nvml.h.
var remedies = map[nvml.Return]string{
	nvml.ERROR_GPU_IS_LOST:    "it has fallen off the bus; restart the host",
	nvml.ERROR_RESET_REQUIRED: "reset it with nvidia-smi --gpu-reset, or restart the host",
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
	return fmt.Errorf("%s: %s; %s", what, s.lib.ErrorString(ret), remedy)
}
