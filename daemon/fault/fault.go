// Package fault has the words for what can be made to go wrong with simulated
// devices: by the configuration, at a time, or by an operator, at once. What it
// does to them is package device's.
package fault

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"gpuqd/daemon/job"
)

// Kind is what goes wrong, or is well again.
type Kind string

// The kinds.
const (
	XID         Kind = "xid"             // the driver reports an XID error
	Uncorrected Kind = "ecc_uncorrected" // double-bit errors are counted and reported
	Lost        Kind = "lost"            // the driver does not name the device any more
	Back        Kind = "back"            // it names it again
	DriverGone  Kind = "driver_gone"     // nothing is known of any device
	DriverBack  Kind = "driver_back"
	Silent      Kind = "silent" // nothing is said any more, as by a helper that hangs in the driver
	Speak       Kind = "speak"
	Recovery    Kind = "recovery"    // the driver asks for an action before the device is used again
	Memory      Kind = "memory"      // memory is in use by no process that can be seen
	Process     Kind = "process"     // a process of the host uses memory, for as long as it lives
	Throttle    Kind = "throttle"    // clocks are held down
	Temperature Kind = "temperature" // what the sensor reads
	Sick        Kind = "sick"        // the driver says that it is of no use, and why
	Clear       Kind = "clear"       // all of the device's faults are over, and its counters are as after a reset
)

// AllDevices names every device of a host.
const AllDevices = "all"

// Recoveries are the actions that a driver may ask for.
var Recoveries = []string{"gpu_reset", "node_reboot", "drain_p2p", "drain_and_reset"}

// Fault is one thing that goes wrong. Which of its parameters have a meaning is
// its kind's to say; the others are zero.
type Fault struct {
	Kind Kind `json:"fault" toml:"fault"`
	// Device is an index, a UUID, the unique beginning of one, or AllDevices. The
	// UUID of a GPU with MIG instances is all of these.
	Device string `json:"device" toml:"device,omitempty"`

	XID         int          `json:"xid,omitempty" toml:"xid,omitzero"`
	Count       int          `json:"count,omitempty" toml:"count,omitzero"`  // how many errors; 0 is 1
	Quiet       bool         `json:"quiet,omitempty" toml:"quiet,omitempty"` // counted and not reported: seen with the next look only
	MemoryBytes uint64       `json:"memory_bytes,omitempty" toml:"memory_bytes,omitzero"`
	PID         int          `json:"pid,omitempty" toml:"pid,omitzero"`
	Action      string       `json:"action,omitempty" toml:"action,omitempty"` // of Recoveries
	Celsius     int          `json:"celsius,omitempty" toml:"celsius,omitzero"`
	Reason      string       `json:"reason,omitempty" toml:"reason,omitempty"`
	For         job.Duration `json:"for,omitempty" toml:"for,omitzero"` // when it ends by itself; 0 is never
}

// Parameters of a fault, by the names that they have in JSON and in gpuqd.toml.
const (
	ParamKind   = "fault"
	ParamDevice = "device"
	ParamXID    = "xid"
	ParamCount  = "count"
	ParamQuiet  = "quiet"
	ParamMemory = "memory_bytes"
	ParamPID    = "pid"
	ParamAction = "action"
	ParamDegree = "celsius"
	ParamReason = "reason"
	ParamFor    = "for"
)

// Bounds of the parameters.
const (
	XIDMax         = 999
	CountMax       = 1000
	MemoryBytesMax = 1 << 44
	PIDMax         = 1 << 22 // PID_MAX_LIMIT of Linux
	CelsiusMax     = 200
	ReasonBytesMax = 200
	ForMin         = 100 * time.Millisecond
	ForMax         = 24 * time.Hour
)

// form is what a kind of fault is made of.
type form struct {
	does  string   // in a line of help
	needs []string // parameters that must be there
	may   []string // parameters that can be
	whole bool     // it is of all devices together
	ends  Kind     // it ends those of this kind
}

// Kinds lists every kind, each failure before what ends it.
var Kinds = []Kind{
	XID, Uncorrected, Lost, Back, Recovery, Memory, Process, Throttle, Temperature, Sick, Clear,
	DriverGone, DriverBack, Silent, Speak,
}

var forms = map[Kind]form{
	XID:         {does: "the driver reports an XID error", needs: []string{ParamXID}, may: []string{ParamCount}},
	Uncorrected: {does: "uncorrected memory errors are counted and reported", may: []string{ParamCount, ParamQuiet}},
	Lost:        {does: "the driver does not report the device any more", may: []string{ParamFor}},
	Back:        {does: "ends lost", ends: Lost},
	Recovery:    {does: "the driver wants an action before it is used again", needs: []string{ParamAction}, may: []string{ParamFor}},
	Memory:      {does: "memory is in use, and no process shows", needs: []string{ParamMemory}, may: []string{ParamFor}},
	Process:     {does: "a process of the host is on it for as long as it lives", needs: []string{ParamPID, ParamMemory}, may: []string{ParamFor}},
	Throttle:    {does: "clocks are held down, for a reason", needs: []string{ParamReason}, may: []string{ParamFor}},
	Temperature: {does: "the sensor reads so many degrees", needs: []string{ParamDegree}, may: []string{ParamFor}},
	Sick:        {does: "the device is of no use, for a reason", needs: []string{ParamReason}, may: []string{ParamFor}},
	Clear:       {does: "ends all faults of the device; of all, the driver's too"},
	DriverGone:  {does: "nothing is known of any device", may: []string{ParamFor}, whole: true},
	DriverBack:  {does: "ends driver_gone", whole: true, ends: DriverGone},
	Silent:      {does: "nothing is said of any device, as by a helper that hangs", may: []string{ParamFor}, whole: true},
	Speak:       {does: "ends silent", whole: true, ends: Silent},
}

// Does says in a few words what the kind does.
func (k Kind) Does() string { return forms[k].does }

// Needs lists the parameters that a fault of the kind must have.
func (k Kind) Needs() []string { return slices.Clone(forms[k].needs) }

// Whole reports whether the kind is of all devices of a host together.
func (k Kind) Whole() bool { return forms[k].whole }

// Ends returns the kind that this one ends; "" for none. Clear ends all.
func (k Kind) Ends() Kind { return forms[k].ends }

// Lasts reports whether the kind goes on until something ends it.
func (k Kind) Lasts() bool { return slices.Contains(forms[k].may, ParamFor) }

// Problem is what is wrong with one parameter.
type Problem struct{ Param, Text string }

// Error implements error.
func (p *Problem) Error() string { return p.Param + ": " + p.Text }

// Check returns the first *Problem of a fault; nil where it can be carried out on
// a host that has the device.
func (f Fault) Check() error {
	how, ok := forms[f.Kind]
	if !ok {
		return &Problem{ParamKind, fmt.Sprintf("there is no fault %q: want %s", f.Kind, kindNames())}
	}
	switch {
	case how.whole && f.Device != "" && f.Device != AllDevices:
		return &Problem{ParamDevice, fmt.Sprintf("%s concerns all devices of the host: want %s", f.Kind, AllDevices)}
	case !how.whole && f.Device == "":
		return &Problem{ParamDevice, "want an index, a UUID or the beginning of one, or " + AllDevices}
	}
	for _, p := range f.params() {
		switch {
		case p.given && !slices.Contains(how.needs, p.name) && !slices.Contains(how.may, p.name):
			return &Problem{p.name, fmt.Sprintf("%s has none: leave it out", f.Kind)}
		case !p.given && slices.Contains(how.needs, p.name):
			return &Problem{p.name, fmt.Sprintf("%s needs it: want %s", f.Kind, p.want)}
		case p.given && !p.good:
			return &Problem{p.name, "want " + p.want}
		}
	}
	return nil
}

// param is how one parameter is set.
type param struct {
	name        string
	given, good bool
	want        string
}

func (f Fault) params() []param {
	within := func(n, most int) bool { return n >= 1 && n <= most }
	upTo := func(most int) string { return "1 to " + strconv.Itoa(most) }
	return []param{
		{ParamXID, f.XID != 0, within(f.XID, XIDMax), upTo(XIDMax)},
		{ParamCount, f.Count != 0, within(f.Count, CountMax), upTo(CountMax)},
		{ParamQuiet, f.Quiet, true, "true"},
		{ParamPID, f.PID != 0, within(f.PID, PIDMax), "the process ID of a process of that host"},
		{ParamMemory, f.MemoryBytes != 0, f.MemoryBytes <= MemoryBytesMax, "an amount up to the device's memory"},
		{ParamAction, f.Action != "", slices.Contains(Recoveries, f.Action), strings.Join(Recoveries, ", ")},
		{ParamDegree, f.Celsius != 0, within(f.Celsius, CelsiusMax), upTo(CelsiusMax)},
		{ParamReason, f.Reason != "", goodReason(f.Reason), fmt.Sprintf("1 to %d bytes of printable text", ReasonBytesMax)},
		{ParamFor, f.For != 0, f.For.Std() >= ForMin && f.For.Std() <= ForMax, "100ms to 24h"},
	}
}

func goodReason(text string) bool {
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	return len(text) <= ReasonBytesMax && strings.TrimSpace(text) != "" && !strings.ContainsFunc(text, unprintable)
}

func kindNames() string {
	names := make([]string, len(Kinds))
	for i, k := range Kinds {
		names[i] = string(k)
	}
	return strings.Join(names, ", ")
}

// Times returns how many errors it is.
func (f Fault) Times() int { return max(1, f.Count) }

// String says it for people, without the device: "xid 79, 3 times".
func (f Fault) String() string {
	text := string(f.Kind)
	if f.XID != 0 {
		text += " " + strconv.Itoa(f.XID)
	}
	if f.PID != 0 {
		text += " " + strconv.Itoa(f.PID)
	}
	if f.MemoryBytes != 0 {
		text += " " + amount(f.MemoryBytes)
	}
	if f.Action != "" {
		text += " " + f.Action
	}
	if f.Celsius != 0 {
		text += fmt.Sprintf(" %d C", f.Celsius)
	}
	if f.Reason != "" {
		text += " " + strconv.Quote(f.Reason)
	}
	if f.Count > 1 {
		text += fmt.Sprintf(", %d times", f.Count)
	}
	if f.Quiet {
		text += ", seen with the next look"
	}
	if f.For != 0 {
		text += ", for " + f.For.String()
	}
	return text
}

// amount writes bytes in the largest binary unit that they are whole in.
func amount(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	unit := 0
	for n%1024 == 0 && n > 0 && unit < len(units)-1 {
		n /= 1024
		unit++
	}
	return fmt.Sprintf("%d %s", n, units[unit])
}
