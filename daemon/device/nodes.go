package device

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// controlNodes are the device files that a process needs beside its GPU's own, if
// the driver has made them.
//
// Source: README of the NVIDIA driver for Linux, "Configuring ... device files".
var controlNodes = []string{"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"}

// Nodes returns the device files of the devices, sorted: what a process must be
// able to open to use them, and what the patterns (of filepath.Match) name beside
// them. Those of simulated devices are theirs by configuration. A MIG instance's is
// its GPU's, and the files that tell instances apart are for the patterns.
func (m *Manager) Nodes(uuids, patterns []string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var nodes []string
	real := false
	for _, uuid := range uuids {
		e := m.entries[uuid]
		switch {
		case e == nil:
		case e.facts.Simulated && e.facts.Node != "":
			nodes = append(nodes, e.facts.Node)
		case !e.facts.Simulated && e.facts.MinorNumber != UnknownIndex:
			nodes = append(nodes, fmt.Sprintf("/dev/nvidia%d", e.facts.MinorNumber))
			real = true
		}
	}
	if real {
		nodes = append(nodes, controlNodes...)
	}
	for _, pattern := range patterns {
		found, _ := filepath.Glob(pattern) // the settings were checked
		nodes = append(nodes, found...)
	}
	nodes = slices.DeleteFunc(nodes, func(path string) bool { return !isDevice(path) })
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// isDevice reports whether a path is a device file now.
func isDevice(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&os.ModeDevice != 0
}
