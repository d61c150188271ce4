package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"gpuqd/daemon/job"
)

// Host is one host as an explanation sees it: what it last reported of itself.
type Host struct {
	Name    string
	Pools   []string
	Session string // state of its session where that is not live; "" for a live host
	// Refuses is why the host takes nothing at all now, as what is said of it: "is
	// drained by ada: new driver"; "" when it takes work, as far as is known.
	Refuses string
	Devices []HostDevice
	Slots   int           // free for jobs without a device; SlotsUnknown
	Age     time.Duration // of what it reported; 0 is now
}

// SlotsUnknown: only a host itself knows how many it has.
const SlotsUnknown = -1

// HostDevice is one device of a host.
type HostDevice struct {
	Name   string // for people
	State  string // free, busy, draining, cordoned or sick
	Reason string // "" where the state says it all
}

func (h Host) live() bool { return h.Session == "" }

func (h Host) free() (n int) {
	for _, d := range h.Devices {
		if d.State == "free" {
			n++
		}
	}
	return n
}

// Explanation is why a job of a shape has not been started by now.
type Explanation struct {
	// Clause says what the job waits for; it goes on after "it ".
	Clause string
	// Ready names hosts that could start it now, as far as is known.
	Ready []string
	// Hosts are those of its pool, by name.
	Hosts []HostReason
}

// HostReason is why one host does not start the job; it goes on after the name.
type HostReason struct{ Name, Reason string }

// Explain says why a job of the shape waits, by what is known of all hosts. It
// says nothing of the jobs before it.
func Explain(s job.Shape, all []Host) Explanation {
	var hosts []Host
	for _, h := range all {
		if slices.Contains(h.Pools, s.Pool) {
			hosts = append(hosts, h)
		}
	}
	slices.SortFunc(hosts, func(a, b Host) int { return cmp.Compare(a.Name, b.Name) })
	e := Explanation{Clause: fmt.Sprintf("waits for a host: none serves pool %s", s.Pool)}
	able, live := false, false
	for _, h := range hosts {
		reason, ready := because(s, h)
		e.Hosts = append(e.Hosts, HostReason{h.Name, reason})
		if ready {
			e.Ready = append(e.Ready, h.Name)
		}
		live = live || h.live()
		able = able || h.live() && len(h.Devices) >= s.GPUs
	}
	switch {
	case len(hosts) == 0:
	case len(e.Ready) > 0:
		e.Clause = "waits for its turn: " + e.list(hosts, e.Ready)
	case !live:
		e.Clause = fmt.Sprintf("waits for a live host in pool %s: %s", s.Pool, e.list(hosts, nil))
	case !able:
		e.Clause = fmt.Sprintf("waits for a host with %s: no live host of pool %s has that many; %s",
			countOf(s.GPUs, "device"), s.Pool, e.list(hosts, nil))
	case s.GPUs == 0:
		e.Clause = fmt.Sprintf("waits for a slot without a device in pool %s: %s", s.Pool, e.list(hosts, nil))
	default:
		e.Clause = fmt.Sprintf("waits for %s of one host in pool %s: %s", countOf(s.GPUs, "free device"), s.Pool, e.list(hosts, nil))
	}
	return e
}

// because says what keeps one host from starting a job of the shape; ready, that
// nothing does.
func because(s job.Shape, h Host) (reason string, ready bool) {
	switch {
	case !h.live():
		return fmt.Sprintf("is not live (its session is %s)", h.Session), false
	case len(h.Devices) == 0 && s.GPUs > 0:
		return "has no devices", false
	case len(h.Devices) < s.GPUs:
		return fmt.Sprintf("has %s in all", countOf(len(h.Devices), "device")), false
	case h.Refuses != "":
		return h.Refuses, false
	case s.GPUs == 0 && h.Slots == SlotsUnknown:
		return "may have a slot: only its own daemon knows", false
	case s.GPUs == 0 && h.Slots <= 0:
		return "has no slot free", false
	case s.GPUs == 0:
		return "has a slot free", true
	}
	free := h.free()
	reason = fmt.Sprintf("has %d of %s free", free, countOf(len(h.Devices), "device"))
	if others := taken(h.Devices); others != "" {
		reason += " (" + others + ")"
	}
	if h.Age > 0 {
		reason += fmt.Sprintf(" as of %s ago", roughly(h.Age))
	}
	return reason, free >= s.GPUs
}

// taken says what the devices that are not free are, the first reason of each
// kind with it.
func taken(devices []HostDevice) string {
	var parts []string
	for _, state := range []string{"busy", "checking", "draining", "cordoned", "sick"} {
		n, why := 0, ""
		for _, d := range devices {
			if d.State != state {
				continue
			}
			n++
			if why == "" && d.Reason != "" {
				why = fmt.Sprintf(": device %s, %s", d.Name, Flat(d.Reason))
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s%s", n, state, why))
		}
	}
	return strings.Join(parts, "; ")
}

// listMax bounds the hosts that a sentence names.
const listMax = 3

// list says of some hosts, or of those named, what keeps each from the job: the
// live ones and those with most free devices first.
func (e Explanation) list(hosts []Host, only []string) string {
	order := slices.Clone(hosts)
	if only != nil {
		order = slices.DeleteFunc(order, func(h Host) bool { return !slices.Contains(only, h.Name) })
	}
	slices.SortStableFunc(order, func(a, b Host) int {
		if a.live() != b.live() {
			return map[bool]int{true: -1, false: 1}[a.live()]
		}
		return cmp.Compare(b.free(), a.free())
	})
	var parts []string
	for _, h := range order[:min(len(order), listMax)] {
		i := slices.IndexFunc(e.Hosts, func(r HostReason) bool { return r.Name == h.Name })
		parts = append(parts, h.Name+" "+Flat(e.Hosts[i].Reason))
	}
	if more := len(order) - listMax; more > 0 {
		parts = append(parts, countOf(more, "more host"))
	}
	return strings.Join(parts, ", ")
}

// Flat makes what a person or a program said fit into a sentence: one line,
// without a full stop.
func Flat(text string) string {
	return strings.TrimRight(strings.Join(strings.Fields(text), " "), ". ")
}

func countOf(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func roughly(d time.Duration) string {
	if d < time.Second {
		return "less than 1s"
	}
	return d.Round(time.Second).String()
}

// Before reports whether hosts look at the queues of one shape before those of
// another, where both fit: the order of Plan.
func Before(a, b job.Shape) bool { return order(a, b) < 0 }

func order(a, b job.Shape) int {
	return cmp.Or(
		cmp.Compare(a.Priority.Rank(), b.Priority.Rank()),
		cmp.Compare(b.GPUs, a.GPUs),
		cmp.Compare(a.Queue(), b.Queue()))
}
