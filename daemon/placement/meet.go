package placement

import (
	"fmt"
	"slices"
	"strings"

	"gpuqd/daemon/job"
)

// meeting returns those of the devices that meet the constraints, in a list of its
// own.
func meeting(c job.Constraints, devices []Device) []Device {
	return slices.DeleteFunc(slices.Clone(devices), func(d Device) bool { return lacks(c, d) != "" })
}

// lacks says why a device can never serve the constraints, as what it has instead;
// "" where it can.
func lacks(c job.Constraints, d Device) string {
	have, err := job.ParseComputeCapability(d.ComputeCapability)
	switch {
	case c.Model != "" && d.Model == "":
		return "model not known"
	case c.Model != "" && !job.ModelMatches(c.Model, d.Model):
		return Flat(d.Model)
	case job.WholeGiB(d.MemoryBytes) < c.MemoryGiB:
		return gibs(d.MemoryBytes) + " of memory"
	case c.Capability != (job.ComputeCapability{}) && (err != nil || d.ComputeCapability == ""):
		return "compute capability not known"
	case have.Less(c.Capability):
		return "compute capability " + d.ComputeCapability
	case d.MemoryBytes < c.ShareBytes():
		return gibs(d.MemoryBytes) + " of memory"
	}
	return ""
}

// kind says what the constraints ask of a device, to go on after "device".
func kind(c job.Constraints) string {
	text := ""
	if c.Model != "" {
		text = " of model " + c.Model
	}
	var least []string
	if c.MemoryGiB > 0 {
		least = append(least, fmt.Sprintf("%d GiB", c.MemoryGiB))
	}
	if c.Capability != (job.ComputeCapability{}) {
		least = append(least, "compute capability "+c.Capability.String())
	}
	if c.ShareGiB > 0 {
		least = append(least, fmt.Sprintf("%d GiB to share", c.ShareGiB))
	}
	if least == nil {
		return text
	}
	return text + " with at least " + strings.Join(least, " and ")
}

// gibs is memory for people, to the tenth that decides.
func gibs(bytes uint64) string {
	tenths := bytes / (1 << 30 / 10)
	if tenths%10 == 0 {
		return fmt.Sprintf("%d GiB", tenths/10)
	}
	return fmt.Sprintf("%d.%d GiB", tenths/10, tenths%10)
}

// groupsMax bounds what a sentence says of the devices of one host.
const groupsMax = 4

// grouped says of devices what say does of each, once for those of which it says
// the same: "0, 1: 40 GiB of memory; 2: sick". It passes over those of which say
// says nothing.
func grouped(devices []HostDevice, say func(HostDevice) string) string {
	var order []string
	names := map[string][]string{}
	for _, d := range devices {
		text := say(d)
		if text == "" {
			continue
		}
		if names[text] == nil {
			order = append(order, text)
		}
		names[text] = append(names[text], d.Name)
	}
	var parts []string
	for _, text := range order[:min(len(order), groupsMax)] {
		parts = append(parts, strings.Join(names[text], ", ")+": "+text)
	}
	if len(order) > groupsMax {
		parts = append(parts, "and others")
	}
	return strings.Join(parts, "; ")
}
