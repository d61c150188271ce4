package gpucheck

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gpuqd/daemon/device"
)

// inventory compares the manager's picture with nvidia-smi's.
func (b *bench) inventory(ctx context.Context) (string, error) {
	want, err := b.gpus(ctx)
	if err != nil {
		return "", err
	}
	got := b.manager.Snapshot()
	if err := errors.Join(compare(got, want)...); err != nil {
		return "", err
	}
	texts := make([]string, len(got))
	for i, s := range got {
		texts[i] = fmt.Sprintf("%d %s %s, %d MiB, PCI %s, /dev/nvidia%d, NUMA node %d", s.Index, s.UUID, s.Model, s.MemoryBytes>>20,
			s.PCIAddress, s.MinorNumber, s.NUMANode)
		if s.State == device.Sick {
			texts[i] += ", left alone: " + s.Reason
		}
	}
	return strings.Join(texts, "; "), nil
}

// compare says in what the devices differ from what nvidia-smi tells. Of a GPU in
// MIG mode the instances are the devices, and the GPU itself must not be one that
// takes work.
func compare(got []device.Status, want []smiGPU) (differences []error) {
	differ := func(format string, args ...any) {
		differences = append(differences, fmt.Errorf(format, args...))
	}
	left := slices.Clone(got)
	take := func(uuid string) (device.Status, bool) {
		i := slices.IndexFunc(left, func(s device.Status) bool { return s.UUID == uuid })
		if i < 0 {
			return device.Status{}, false
		}
		s := left[i]
		left = slices.Delete(left, i, i+1)
		return s, true
	}
	for _, w := range want {
		s, ok := take(w.uuid)
		switch {
		case w.migEnabled && ok && s.State != device.Sick:
			differ("%s is in MIG mode, and is a device that is %s", w.uuid, s.State)
		case w.migEnabled:
		case !ok:
			differ("nvidia-smi has %s (%s), gpuqd-device has not", w.uuid, w.name)
		default:
			differences = append(differences, compareGPU(s, w)...)
		}
		for _, instance := range w.instances {
			s, ok := take(instance.uuid)
			switch {
			case !ok:
				differ("nvidia-smi has the instance %s (%s of %s), gpuqd-device has not", instance.uuid, instance.profile, w.uuid)
			case s.ParentUUID != w.uuid || s.MIGProfile != instance.profile:
				differ("%s: profile %q of GPU %q, nvidia-smi says %q of %q", s.UUID, s.MIGProfile, s.ParentUUID, instance.profile, w.uuid)
			}
		}
	}
	for _, s := range left {
		differ("gpuqd-device has %s (%s), nvidia-smi has not", s.UUID, s.Model)
	}
	return differences
}

// compareGPU compares one GPU. One that is sick is a difference, but for one with
// somebody's processes on it: that is how it should be.
func compareGPU(s device.Status, w smiGPU) (differences []error) {
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"index", s.Index, w.index},
		{"name", s.Model, w.name},
		{"memory in MiB", s.MemoryBytes >> 20, w.memoryMiB},
		{"PCI address", normalPCI(s.PCIAddress), w.pci},
		{"compute capability", s.ComputeCapability, w.computeCapability},
	} {
		if f.got != f.want && f.want != "" {
			differences = append(differences, fmt.Errorf("%s: the %s is %v, nvidia-smi says %v", s.UUID, f.name, f.got, f.want))
		}
	}
	if s.State == device.Sick && len(s.Processes) == 0 {
		differences = append(differences, fmt.Errorf("%s is sick: %s", s.UUID, s.Reason))
	}
	return differences
}
