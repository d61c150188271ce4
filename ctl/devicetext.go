package main

import (
	"fmt"
	"strings"
	"time"

	"gpuqd/daemon/control"
)

// deviceText is all that is known of a device, for people.
func (a *app) deviceText(d control.DeviceRow, drains map[string]*control.Drain) string {
	unthrottled := d
	unthrottled.Throttle = nil // it has a line of its own
	why := a.whyIdle(unthrottled, drains)
	s := sheet{colours: a.colours()}
	name := d.Host
	if d.Index >= 0 {
		name = fmt.Sprintf("%s/%d", d.Host, d.Index)
	}
	s.line("Device", "%s, %s", name, modelText(d))
	s.line("UUID", "%s", d.UUID)
	if d.ParentUUID != "" {
		s.line("Part of", "%s", d.ParentUUID)
	}
	state := d.State
	if !d.Since.IsZero() {
		if length := age(a.now(), d.Since); length != "now" {
			state += " for " + length
		}
		state += ", since " + clock(d.Since)
	}
	s.mark("State", state, deviceStyle(d.State))
	s.line("Reason", "%s", why)
	if d.Drained != nil && why != a.drainText(d.Drained) {
		s.line("Drain", "%s", a.drainText(d.Drained))
	}
	a.holderLines(&s, d)
	s.line("Memory", "%s of %s in use", size(d.MemoryUsedBytes), size(d.MemoryBytes))
	s.line("Utilisation", "%s", cellOf("%d%%", d.UtilisationPercent))
	s.line("Temperature", "%s", cellOf("%d C", d.TemperatureCelsius))
	if d.PowerWatts != nil {
		s.line("Power", "%.0f W%s", *d.PowerWatts, cellOf(" of %.0f W", d.PowerLimitWatts))
	}
	if len(d.Throttle) > 0 {
		s.mark("Clocks", "held down: "+strings.Join(d.Throttle, ", "), middle)
	}
	if d.ECC != nil {
		s.mark("ECC", eccText(d.ECC), eccStyle(d.ECC))
	}
	if d.Recovery != "" {
		s.mark("Recovery", d.Recovery+": the driver wants this before the device is used again", bad)
	}
	s.line("PCI address", "%s", d.PCIAddress)
	s.line("Capability", "%s", d.ComputeCapability)
	s.line("NUMA node", "%s", cellOf("%d", d.NUMANode))
	for i, p := range d.Processes {
		used := ""
		if p.MemoryUsedBytes > 0 {
			used = ", " + size(p.MemoryUsedBytes)
		}
		s.line(firstOnly("Processes", i), "%d%s", p.PID, used)
	}
	for i, f := range d.Faults {
		s.line(firstOnly("Faults", i), "%s", f)
	}
	if d.AgeSeconds > 0 {
		s.line("As of", "%s ago", span(time.Duration(d.AgeSeconds*float64(time.Second))))
	}
	return s.String()
}

func (a *app) holderLines(s *sheet, d control.DeviceRow) {
	holders := d.Holders
	if len(holders) == 0 && d.JobID != "" {
		holders = []control.DeviceHolder{{JobID: d.JobID, Attempt: d.Attempt}}
	}
	for i, h := range holders {
		share := ""
		if h.MemoryBytes > 0 {
			share = ", " + size(h.MemoryBytes) + " of its memory"
		}
		s.line(firstOnly("Jobs", i), "%s, attempt %d%s", h.JobID, h.Attempt, share)
	}
}

// firstOnly is the label of the i-th of several lines that belong together.
func firstOnly(label string, i int) string {
	if i > 0 {
		return ""
	}
	return label
}

func eccText(e *control.DeviceECC) string {
	text := fmt.Sprintf("%d uncorrected, %d corrected since the driver was loaded", e.Uncorrected, e.Corrected)
	if e.UncorrectedAggregate > 0 {
		text += fmt.Sprintf("; %d uncorrected over its life", e.UncorrectedAggregate)
	}
	if e.RemapPending {
		text += "; rows are retired at the next reset"
	}
	if e.RemapFailed {
		text += "; no spare row is left: replace the device"
	}
	return text
}

func eccStyle(e *control.DeviceECC) style {
	switch {
	case e.Uncorrected > 0, e.RemapFailed:
		return bad
	case e.RemapPending:
		return middle
	}
	return plain
}
