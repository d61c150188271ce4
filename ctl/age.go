package main

import (
	"fmt"
	"math"
	"time"

	"gpuqd/daemon/job"
)

// age returns how long ago a time was, such as 12s, 3m, 5h or 9d; "" for the
// zero time. A time ahead of this machine's clock is "now".
func age(now time.Time, t job.Time) string {
	if t.IsZero() {
		return ""
	}
	return span(now.Sub(t.Time))
}

// span returns a duration in its largest unit of which there are at least two.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return "now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// length returns how long something took, to the second or, below ten seconds,
// to the tenth.
func length(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// clock returns a time in the person's zone, with the zone.
func clock(t job.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05 MST")
}

// size returns bytes in binary units, such as 79.6 GiB.
func size(bytes uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	value, unit := float64(bytes), 0
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	if value == math.Trunc(value) {
		return fmt.Sprintf("%.0f %s", value, units[unit])
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
