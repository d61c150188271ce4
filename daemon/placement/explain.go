package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
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
	Device
	Name   string // for people
	State  string // free, busy, checking, draining, cordoned or sick
	Reason string // "" where the state says it all
	// Shared is set where attempts have parts of it, of which RoomBytes are left.
	Shared bool
}

func (h Host) live() bool { return h.Session == "" }

// able returns the devices that could ever serve the constraints.
func (h Host) able(c job.Constraints) []HostDevice {
	return slices.DeleteFunc(slices.Clone(h.Devices), func(d HostDevice) bool { return lacks(c, d.Device) != "" })
}

// fits reports whether the device, which meets the constraints, can serve them now.
func (d HostDevice) fits(c job.Constraints) bool {
	return d.State == "free" || c.ShareGiB > 0 && d.State == "busy" && d.Shared && d.RoomBytes >= c.ShareBytes()
}

func fitting(devices []HostDevice, c job.Constraints) (n int) {
	for _, d := range devices {
		if d.fits(c) {
			n++
		}
	}
	return n
}

// Serves reports whether a host's devices, as they are, serve a shape.
func Serves(s job.Shape, devices []HostDevice) bool {
	c, err := job.ParseClass(s.Class)
	return err == nil && s.GPUs > 0 && fitting(Host{Devices: devices}.able(c), c) >= s.GPUs
}

// Able reports whether the devices that a live host of the shape's pool has could
// ever serve it, whatever they do now.
func Able(s job.Shape, all []Host) bool {
	c, err := job.ParseClass(s.Class)
	return err == nil && slices.ContainsFunc(all, func(h Host) bool {
		return slices.Contains(h.Pools, s.Pool) && h.live() && len(h.able(c)) >= s.GPUs
	})
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
	c, err := job.ParseClass(s.Class)
	if err != nil {
		return unreadable(s, hosts)
	}
	e := Explanation{Clause: fmt.Sprintf("waits for a host: none serves pool %s", s.Pool)}
	live := false
	for _, h := range hosts {
		reason, ready := because(s, c, h)
		e.Hosts = append(e.Hosts, HostReason{h.Name, reason})
		if ready {
			e.Ready = append(e.Ready, h.Name)
		}
		live = live || h.live()
	}
	switch {
	case len(hosts) == 0:
	case len(e.Ready) > 0:
		e.Clause = "waits for its turn: " + e.list(hosts, e.Ready, c)
	case !live:
		e.Clause = fmt.Sprintf("waits for a live host in pool %s: %s", s.Pool, e.list(hosts, nil, c))
	case !Able(s, hosts) && s.GPUs == 1 && c != (job.Constraints{}):
		e.Clause = fmt.Sprintf("waits for a device%s: no live host of pool %s has one; %s", kind(c), s.Pool, e.list(hosts, nil, c))
	case !Able(s, hosts):
		e.Clause = fmt.Sprintf("waits for a host with %s%s: no live host of pool %s has that many; %s",
			countOf(s.GPUs, "device"), kind(c), s.Pool, e.list(hosts, nil, c))
	case s.GPUs == 0:
		e.Clause = fmt.Sprintf("waits for a slot without a device in pool %s: %s", s.Pool, e.list(hosts, nil, c))
	case c.ShareGiB > 0:
		e.Clause = fmt.Sprintf("waits for room on a device%s in pool %s: %s", kind(c), s.Pool, e.list(hosts, nil, c))
	default:
		e.Clause = fmt.Sprintf("waits for %s%s of one host in pool %s: %s", countOf(s.GPUs, "free device"), kind(c), s.Pool, e.list(hosts, nil, c))
	}
	return e
}

// unreadable explains a shape of a newer release: what it asks of a host is not
// known here.
func unreadable(s job.Shape, hosts []Host) Explanation {
	e := Explanation{Clause: fmt.Sprintf("waits for a host of the release that took it in: this daemon's cannot read what it asks for (class %s)", s.Class)}
	for _, h := range hosts {
		e.Hosts = append(e.Hosts, HostReason{h.Name, "may start it if it runs a newer release: upgrade the daemon that you asked"})
	}
	return e
}

// because says what keeps one host from starting a job of the shape; ready, that
// nothing does.
func because(s job.Shape, c job.Constraints, h Host) (reason string, ready bool) {
	able := h.able(c)
	switch {
	case !h.live():
		return fmt.Sprintf("is not live (its session is %s)", h.Session), false
	case len(h.Devices) == 0 && s.GPUs > 0:
		return "has no devices", false
	case len(h.Devices) < s.GPUs:
		return fmt.Sprintf("has %s in all", countOf(len(h.Devices), "device")), false
	case len(able) < s.GPUs:
		return fmt.Sprintf("has %s such device%s of %d (%s)", none(len(able)), plural(len(able)), len(h.Devices),
			grouped(h.Devices, func(d HostDevice) string { return lacks(c, d.Device) })), false
	case h.Refuses != "":
		return h.Refuses, false
	case s.GPUs == 0 && h.Slots == SlotsUnknown:
		return "may have a slot: only its own daemon knows", false
	case s.GPUs == 0 && h.Slots <= 0:
		return "has no slot free", false
	case s.GPUs == 0:
		return "has a slot free", true
	case c.ShareGiB > 0:
		reason, ready = becauseRoom(c, h, able)
	default:
		reason, ready = becauseFree(s, c, h, able)
	}
	if h.Age > 0 {
		reason += fmt.Sprintf(" as of %s ago", roughly(h.Age))
	}
	return reason, ready
}

// becauseFree is because for whole devices, of which the host has as many as the
// shape needs.
func becauseFree(s job.Shape, c job.Constraints, h Host, able []HostDevice) (reason string, ready bool) {
	free, such := fitting(able, c), ""
	if len(able) < len(h.Devices) {
		such = "such "
	}
	reason = fmt.Sprintf("has %d of %s free", free, countOf(len(able), such+"device"))
	if others := taken(able); others != "" {
		reason += " (" + others + ")"
	}
	return reason, free >= s.GPUs
}

// becauseRoom is because for a part of a device that meets the constraints.
func becauseRoom(c job.Constraints, h Host, able []HostDevice) (reason string, ready bool) {
	n := fitting(able, c)
	reason = fmt.Sprintf("has room for %d GiB on %d of %s", c.ShareGiB, n, countOf(len(h.Devices), "device"))
	others := grouped(h.Devices, func(d HostDevice) string {
		switch text := lacks(c, d.Device); {
		case text != "":
			return text
		case d.fits(c):
			return ""
		case d.State == "busy" && d.Shared:
			return gibs(d.RoomBytes) + " left"
		case d.State == "busy":
			return "held as a whole"
		case d.Reason != "":
			return d.State + ", " + Flat(d.Reason)
		}
		return d.State
	})
	if others != "" {
		reason += " (" + others + ")"
	}
	return reason, n > 0
}

func none(n int) string {
	if n == 0 {
		return "no"
	}
	return strconv.Itoa(n)
}

func plural(n int) string {
	if n > 1 {
		return "s"
	}
	return ""
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
// live ones first, those with most devices for it, and those that ever have any.
func (e Explanation) list(hosts []Host, only []string, c job.Constraints) string {
	order := slices.Clone(hosts)
	if only != nil {
		order = slices.DeleteFunc(order, func(h Host) bool { return !slices.Contains(only, h.Name) })
	}
	slices.SortStableFunc(order, func(a, b Host) int {
		if a.live() != b.live() {
			return map[bool]int{true: -1, false: 1}[a.live()]
		}
		x, y := a.able(c), b.able(c)
		return cmp.Or(cmp.Compare(fitting(y, c), fitting(x, c)), cmp.Compare(min(len(y), 1), min(len(x), 1)))
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
