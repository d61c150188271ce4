package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuqd/daemon/device"
)

// instance is one MIG instance, under the numbers by which events name it.
type instance struct {
	uuid   string
	gi, ci uint32 // of its GPU instance, and of its compute instance in there
}

// The index of a MIG instance on its host follows from its GPU's index and its own
// two numbers, which stay its own until it is destroyed: 1070 is GPU 0's GPU
// instance 7 with compute instance 0. So whole GPUs come first, then the instances
// by GPU, and none is renumbered because another one goes.
const (
	indexPerGPU      = 1000
	indexPerInstance = 10 // a GPU instance has at most 8 compute instances
)

func instanceIndex(gpu, gi, ci int) int {
	return (gpu+1)*indexPerGPU + gi*indexPerInstance + ci
}

// hasMIG reports whether MIG mode is on now; what a reset would change is not yet.
func (s *sampler) hasMIG(handle nvml.Device) bool {
	if !s.has("nvmlDeviceGetMigMode") {
		return false
	}
	mode, _, ret := handle.GetMigMode()
	return ret == nvml.SUCCESS && mode == nvml.DEVICE_MIG_ENABLE
}

// instances returns the MIG instances of a GPU: each is a device, and the GPU none.
// Without any it is the GPU that is shown, sick. An error means that their
// identities could not be had this time.
func (s *sampler) instances(handle nvml.Device, whole device.Facts) ([]device.Facts, []instance, error) {
	slots, ret := handle.GetMaxMigDeviceCount()
	if err := s.check("count the MIG instances", ret); err != nil {
		return nil, nil, err
	}
	var facts []device.Facts
	var found []instance
	for slot := range slots {
		mig, ret := handle.GetMigDeviceHandleByIndex(slot)
		if ret == nvml.ERROR_NOT_FOUND {
			continue // a slot that no instance takes
		}
		if err := s.check(fmt.Sprintf("open MIG instance %d", slot), ret); err != nil {
			return nil, nil, err
		}
		f, i, err := s.instance(mig, whole)
		if err != nil {
			return nil, nil, fmt.Errorf("MIG instance %d: %w", slot, err)
		}
		facts, found = append(facts, f), append(found, i)
		s.step()
	}
	if len(facts) == 0 {
		whole.Sick = cmp.Or(whole.Sick, "MIG mode is on, and it has no instance: make some with nvidia-smi mig -cgi PROFILE -C, "+
			"or turn it off with nvidia-smi -mig 0")
		return []device.Facts{whole}, nil, nil
	}
	slices.SortFunc(facts, func(a, b device.Facts) int { return cmp.Compare(a.Index, b.Index) })
	return facts, found, nil
}

// instance asks for one MIG instance. How it fares is how its GPU does, but for
// the utilisation, which nobody knows in MIG mode.
func (s *sampler) instance(mig nvml.Device, whole device.Facts) (device.Facts, instance, error) {
	uuid, uuidRet := mig.GetUUID()
	name, nameRet := mig.GetName()
	gi, giRet := mig.GetGpuInstanceId()
	ci, ciRet := mig.GetComputeInstanceId()
	total, used, memoryRet := s.memory(mig)
	err := cmp.Or(
		s.check("read the UUID", uuidRet),
		s.check("read the name", nameRet),
		s.check("read the GPU instance", giRet),
		s.check("read the compute instance", ciRet),
		s.check("read the memory", memoryRet),
	)
	if err != nil {
		return device.Facts{}, instance{}, err
	}
	f := whole
	f.UUID, f.ParentUUID = uuid, whole.UUID
	f.Index = instanceIndex(whole.Index, gi, ci)
	f.MIGProfile = migProfile(name)
	f.MemoryBytes, f.MemoryUsedBytes = total, used
	f.UtilisationPercent = nil
	f.CapabilityNodes = s.capabilityNodes(whole.MinorNumber, gi, ci)
	if f.Processes, err = s.processes(mig); f.Sick == "" {
		f.Sick, f.Lost = sick(err)
	}
	return f, instance{uuid: uuid, gi: uint32(gi), ci: uint32(ci)}, nil
}

// migProfile finds the profile in an instance's name, such as "NVIDIA A100-SXM4-40GB
// MIG 1g.5gb"; "" where it has none. Source: nvmlDeviceGetName in nvml.h, and "MIG
// Device Names" in NVIDIA's MIG user guide.
func migProfile(name string) string {
	_, profile, _ := strings.Cut(name, " MIG ")
	profile, _, _ = strings.Cut(profile, " ")
	return profile
}

// capabilityNodes returns the device files that a process needs to use an instance:
// that of its GPU instance and that of its compute instance. There are none where
// the driver keeps them as files of /proc instead (before 450.80, or by its option
// nv_cap_enable_devfs=0).
func (s *sampler) capabilityNodes(minor, gi, ci int) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.caps == nil {
		text, _ := os.ReadFile(s.paths.migMinors) // without it there are no nodes
		s.caps = parseMIGMinors(string(text))
	}
	return s.caps(minor, gi, ci)
}

// forgetCapabilities has the next instance read them anew.
func (s *sampler) forgetCapabilities() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.caps = nil
}

// parseMIGMinors reads lines such as "gpu0/gi7/ci0/access 66": the capability of
// the GPU with minor number 0, and the minor number of its device file.
//
// Source: "Device Nodes and Capabilities" in NVIDIA's MIG user guide.
func parseMIGMinors(text string) func(minor, gi, ci int) []string {
	nodes := map[string]string{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 2 {
			continue
		}
		if n, err := strconv.ParseUint(fields[1], 10, 20); err == nil { // the kernel's minor numbers have 20 bits
			nodes[fields[0]] = fmt.Sprintf("/dev/nvidia-caps/nvidia-cap%d", n)
		}
	}
	return func(minor, gi, ci int) []string {
		var needed []string
		for _, capability := range []string{
			fmt.Sprintf("gpu%d/gi%d/access", minor, gi),
			fmt.Sprintf("gpu%d/gi%d/ci%d/access", minor, gi, ci),
		} {
			if node, ok := nodes[capability]; ok {
				needed = append(needed, node)
			}
		}
		return needed
	}
}
