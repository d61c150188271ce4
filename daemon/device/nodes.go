package device

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// controlNode is the driver's own device file, without which it serves nobody.
const controlNode = "/dev/nvidiactl"

// memoryNode is that of unified memory, without which no CUDA program starts. The
// driver makes it when the first such program runs, where that may make it.
const memoryNode = "/dev/nvidia-uvm"

// controlNodes are the device files that a process needs beside its GPU's own, if
// the driver has made them.
//
// Source: README of the NVIDIA driver for Linux, "Configuring ... device files".
var controlNodes = []string{controlNode, memoryNode, "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"}

// Nodes returns the device files of the devices, sorted: what a process must be
// able to open to use them, and what the patterns (of filepath.Match) name beside
// them. Those of simulated devices are theirs by configuration. A MIG instance's
// are its GPU's and its own capability files. It returns an error, which says what
// to do, where a file is missing without which a device cannot be used.
func (m *Manager) Nodes(uuids, patterns []string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var nodes []string
	var problems []error
	real := false
	for _, uuid := range uuids {
		e := m.entries[uuid]
		switch {
		case e == nil:
		case e.facts.Simulated:
			nodes = append(nodes, e.facts.Node) // "" is no file
		default:
			if reason := m.missingNodes(e.facts.Device); reason != "" {
				problems = append(problems, fmt.Errorf("device %s cannot be used: %s", uuid, reason))
			}
			nodes = append(nodes, ownNodes(e.facts.Device)...)
			real = true
		}
	}
	if problems != nil {
		return nil, errors.Join(problems...)
	}
	if real {
		nodes = append(nodes, controlNodes...)
	}
	for _, pattern := range patterns {
		found, _ := filepath.Glob(pattern) // the settings were checked
		nodes = append(nodes, found...)
	}
	nodes = slices.DeleteFunc(nodes, func(path string) bool { return !m.isDevice(path) })
	slices.Sort(nodes)
	return slices.Compact(nodes), nil
}

// ownNodes returns the device files that are a real device's alone, or, of a MIG
// instance, its GPU's and its own. Whether they are there is another question.
func ownNodes(d Device) []string {
	var nodes []string
	if d.MinorNumber != UnknownIndex {
		nodes = append(nodes, fmt.Sprintf("/dev/nvidia%d", d.MinorNumber))
	}
	return append(nodes, d.CapabilityNodes...)
}

// missingNodes says which file of a device is missing, and what to do; "" for none.
// A driver without a control file, which yet reports devices, is reached in another
// way (under WSL by /dev/dxg): there no file is missed.
func (m *Manager) missingNodes(d Device) string {
	if d.Simulated || !m.isDevice(controlNode) {
		return ""
	}
	if d.MinorNumber == UnknownIndex {
		return "the driver does not tell its minor number, so that nobody knows its file /dev/nvidiaN, which a job must be let open; see Minor Number in nvidia-smi -q, and the kernel log"
	}
	nodes := slices.DeleteFunc(ownNodes(d), m.isDevice)
	// Source: nvidia-modprobe(1).
	if len(nodes) == 0 && m.closed && !m.isDevice(memoryNode) {
		return fmt.Sprintf("the device file %s is missing, without which no CUDA program starts, and a job may not make it: nvidia-modprobe -c 0 -u does; see to it that it runs at every boot", memoryNode)
	}
	if len(nodes) == 0 {
		return ""
	}
	how := fmt.Sprintf("nvidia-modprobe -c %d makes it, and nvidia-persistenced at every boot", d.MinorNumber)
	if !strings.HasPrefix(nodes[0], "/dev/nvidia-caps/") {
		return fmt.Sprintf("its device file %s is missing: %s", nodes[0], how)
	}
	return fmt.Sprintf("its device file %s is missing: nvidia-modprobe -f with the instance's access files below /proc/driver/nvidia/capabilities makes it; nvidia-persistenced does at every boot", strings.Join(nodes, ", "))
}

// isDevice reports whether a path is a device file now.
func isDevice(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&os.ModeDevice != 0
}
