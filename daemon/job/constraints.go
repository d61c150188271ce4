package job

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// gib is the unit in which memory is compared.
const gib = 1 << 30

// Constraints are what a job asks of each of its devices beside their number. The
// zero value asks nothing.
//
// Memory is in whole GiB, rounded up, as cards are named: one sold with 80 GB has
// 79.6 GiB, and what asks for 80GiB means it. Rounding also bounds the number of
// shapes.
type Constraints struct {
	Model      string            // words of the model's name, lower case, a space between; "" is any
	MemoryGiB  int               // that a device must have in all; 0 is any
	Capability ComputeCapability // at least; zero is any
	// ShareGiB of one device's memory are enough, beside other jobs that share it; 0
	// is whole devices. The grant itself is exact: Spec.GPUMemory.
	ShareGiB int
}

// WholeGiB returns bytes in GiB, rounded up.
func WholeGiB(bytes uint64) int { return int((bytes + gib - 1) / gib) }

// ShareBytes returns how much of a device's memory must be left for the job.
func (c Constraints) ShareBytes() uint64 { return uint64(c.ShareGiB) * gib }

// Constraints returns what the spec asks of each of its devices.
func (s Spec) Constraints() Constraints {
	c := Constraints{
		Model:     strings.Join(Words(s.GPUModel), " "),
		MemoryGiB: WholeGiB(uint64(max(s.MinGPUMemory, 0))),
		ShareGiB:  WholeGiB(uint64(max(s.GPUMemory, 0))),
	}
	c.Capability, _ = ParseComputeCapability(s.MinComputeCapability) // the spec was checked
	if c.MemoryGiB <= c.ShareGiB {
		c.MemoryGiB = 0 // a device with that much left has it in all
	}
	return c
}

// Share returns how much of its device's memory a job may use; 0 is all of it.
func (s Spec) Share() uint64 { return uint64(max(s.GPUMemory, 0)) }

// What the parts of a class begin with, in their order.
const (
	classModel      = "model-"
	classMemory     = "mem"
	classCapability = "cc"
	classShare      = "share"
)

// Class returns the canonical text of the constraints, which is part of a queue's
// name: ClassAny where there are none, else such as model-h100_mem80_cc8-0_share12.
func (c Constraints) Class() string {
	var parts []string
	if c.Model != "" {
		parts = append(parts, classModel+strings.ReplaceAll(c.Model, " ", "-"))
	}
	if c.MemoryGiB > 0 {
		parts = append(parts, classMemory+strconv.Itoa(c.MemoryGiB))
	}
	if c.Capability != (ComputeCapability{}) {
		parts = append(parts, fmt.Sprintf("%s%d-%d", classCapability, c.Capability.Major, c.Capability.Minor))
	}
	if c.ShareGiB > 0 {
		parts = append(parts, classShare+strconv.Itoa(c.ShareGiB))
	}
	if parts == nil {
		return ClassAny
	}
	return strings.Join(parts, "_")
}

// ErrClass means that a class asks for something that this release does not know.
// A job of it must not be started by this host.
var ErrClass = errors.New("this release cannot read the class")

// ParseClass is the reverse of Class. Every error is an ErrClass.
func ParseClass(class string) (Constraints, error) {
	var c Constraints
	if class == ClassAny {
		return c, nil
	}
	for part := range strings.SplitSeq(class, "_") {
		if words, ok := strings.CutPrefix(part, classModel); ok {
			c.Model = strings.ReplaceAll(words, "-", " ")
		} else if version, ok := strings.CutPrefix(part, classCapability); ok {
			c.Capability, _ = ParseComputeCapability(strings.ReplaceAll(version, "-", "."))
		} else if n, ok := strings.CutPrefix(part, classMemory); ok {
			c.MemoryGiB, _ = strconv.Atoi(n)
		} else if n, ok := strings.CutPrefix(part, classShare); ok {
			c.ShareGiB, _ = strconv.Atoi(n)
		}
	}
	// Whatever is unknown, malformed, twice or out of order shows here.
	if c.Class() != class || c.MemoryGiB < 0 || c.ShareGiB < 0 || strings.Join(Words(c.Model), " ") != c.Model {
		return Constraints{}, fmt.Errorf("%w %q: upgrade gpuqd here", ErrClass, class)
	}
	return c, nil
}

// Words returns the words of a model's name, in lower case: what is between its
// letters and digits separates them.
func Words(model string) []string {
	return strings.FieldsFunc(strings.ToLower(model), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
}

// ModelMatches reports whether the words asked for stand together in a model's
// name: "a100 80gb" is no run of words of "NVIDIA A100-SXM4-80GB", "a100" is.
func ModelMatches(asked, model string) bool {
	want := " " + strings.Join(Words(asked), " ") + " "
	return strings.Contains(" "+strings.Join(Words(model), " ")+" ", want)
}

// ComputeCapability is the version of what a device can compute, such as 9.0.
type ComputeCapability struct{ Major, Minor int }

// ParseComputeCapability reads such as "8.6"; "" is the zero value, which any
// device has.
func ParseComputeCapability(text string) (ComputeCapability, error) {
	if text == "" {
		return ComputeCapability{}, nil
	}
	major, minor, _ := strings.Cut(text, ".")
	var v ComputeCapability
	var errs [2]error
	v.Major, errs[0] = strconv.Atoi(major)
	v.Minor, errs[1] = strconv.Atoi(minor)
	if errors.Join(errs[:]...) != nil || v.Major < 1 || v.Major > 99 || v.Minor < 0 || v.Minor > 9 || v.String() != text {
		return ComputeCapability{}, fmt.Errorf("%q is no compute capability: want major and minor version, such as 8.0", text)
	}
	return v, nil
}

// String is the form that ParseComputeCapability reads.
func (v ComputeCapability) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Less orders by version.
func (v ComputeCapability) Less(other ComputeCapability) bool {
	return cmp.Or(cmp.Compare(v.Major, other.Major), cmp.Compare(v.Minor, other.Minor)) < 0
}
