package job

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var anyConstraints = rapid.Custom(func(t *rapid.T) Constraints {
	var c Constraints
	if rapid.Bool().Draw(t, "has a model") {
		words := rapid.SliceOfN(rapid.StringMatching(`[a-z0-9]{1,6}`), 1, 4).Draw(t, "model")
		c.Model = strings.Join(words, " ")
	}
	c.MemoryGiB = rapid.IntRange(0, WholeGiB(gpuMemoryMax)).Draw(t, "memory")
	c.ShareGiB = rapid.IntRange(0, WholeGiB(gpuMemoryMax)).Draw(t, "share")
	if rapid.Bool().Draw(t, "has a capability") {
		c.Capability = ComputeCapability{rapid.IntRange(1, 99).Draw(t, "major"), rapid.IntRange(0, 9).Draw(t, "minor")}
	}
	return c
})

// TestClassRoundTrips: a class says exactly what its constraints do, and its queue
// is a job queue whose name is within AMQP's bounds.
func TestClassRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyConstraints.Draw(t, "constraints")
		class := c.Class()
		if got, err := ParseClass(class); err != nil || got != c {
			t.Fatalf("%+v is %q, which reads back as %+v, %v", c, class, got, err)
		}
		if (class == ClassAny) != (c == Constraints{}) {
			t.Fatalf("%+v is %q", c, class)
		}
		s := Shape{Pool: strings.Repeat("p", 32), Priority: Normal, GPUs: gpusMax, Class: class}
		if got, err := ParseQueue(s.AgainQueue()); err != nil || got != s || len(s.AgainQueue()) > 255 {
			t.Fatalf("%q: %+v, %v", s.AgainQueue(), got, err)
		}
	})
}

// TestParsedClassIsItsOwn: no two texts pass for one class.
func TestParsedClassIsItsOwn(t *testing.T) {
	word := rapid.SampledFrom([]string{
		"any", "model-", "model-h100", "model-a100-80gb", "mem80", "mem080", "mem0", "mem-1", "mem", "cc8-0", "cc8", "cc08-0", "cc9-10",
		"share12", "share+12", "shared", "nvlink", "", "-", "time3600",
	})
	rapid.Check(t, func(t *rapid.T) {
		class := strings.Join(rapid.SliceOfN(word, 1, 4).Draw(t, "parts"), "_")
		c, err := ParseClass(class)
		if err == nil && c.Class() != class {
			t.Fatalf("%q passes for %q", class, c.Class())
		}
		if err != nil && (!errors.Is(err, ErrClass) || c != Constraints{}) {
			t.Fatalf("%q: %+v, %v", class, c, err)
		}
	})
}

func TestClassOfANewerReleaseIsRefused(t *testing.T) {
	for _, class := range []string{"time3600", "model-h100_time3600", "mem80_model-h100", "cc8-0_cc9-0", "again", "any_mem80"} {
		if c, err := ParseClass(class); !errors.Is(err, ErrClass) {
			t.Errorf("%q reads as %+v, %v", class, c, err)
		}
	}
}

// TestSpecHasTheDocumentedClass holds the texts that stand in queue names: they
// must not change, since jobs wait in them across upgrades.
func TestSpecHasTheDocumentedClass(t *testing.T) {
	for _, c := range []struct {
		change func(*Spec)
		want   string
	}{
		{func(*Spec) {}, "any"},
		{func(s *Spec) { s.GPUModel = "H100" }, "model-h100"},
		{func(s *Spec) { s.GPUModel = " a100 (SXM4), 80GB " }, "model-a100-sxm4-80gb"},
		{func(s *Spec) { s.MinGPUMemory = 80 << 30 }, "mem80"},
		{func(s *Spec) { s.MinGPUMemory = 80e9 }, "mem75"},
		{func(s *Spec) { s.MinGPUMemory = 80<<30 + 1 }, "mem81"},
		{func(s *Spec) { s.MinComputeCapability = "12.0" }, "cc12-0"},
		{func(s *Spec) { s.GPUMemory = 12 << 30 }, "share12"},
		{func(s *Spec) { s.GPUMemory = 512 << 20 }, "share1"},
		{func(s *Spec) { s.GPUMemory, s.MinGPUMemory = 12<<30, 12<<30 }, "share12"},
		{func(s *Spec) {
			s.GPUModel, s.MinGPUMemory, s.MinComputeCapability, s.GPUMemory = "h100", 80<<30, "8.0", 12<<30
		}, "model-h100_mem80_cc8-0_share12"},
	} {
		s := DefaultSpec()
		s.Command = []string{"x"}
		c.change(&s)
		if err := s.Validate(); err != nil {
			t.Error(err)
		}
		if got := s.Shape().Class; got != c.want {
			t.Errorf("%+v waits in class %q, want %q", s, got, c.want)
		}
	}
}

// TestModelMatchesWords: what the driver calls cards, and what people ask for.
func TestModelMatchesWords(t *testing.T) {
	for _, c := range []struct {
		asked, model string
		want         bool
	}{
		{"h100", "NVIDIA H100 80GB HBM3", true},
		{"H100 80GB", "NVIDIA H100 80GB HBM3", true},
		{"h100", "NVIDIA H200", false},
		{"a100", "NVIDIA A100-SXM4-80GB", true},
		{"a100-sxm4-80gb", "NVIDIA A100-SXM4-80GB", true},
		{"a100 80gb", "NVIDIA A100-SXM4-80GB", false}, // not together
		{"a10", "NVIDIA A100-SXM4-80GB", false},       // no whole word
		{"100", "NVIDIA H100 80GB HBM3", false},
		{"rtx 6000 ada", "NVIDIA RTX 6000 Ada Generation", true},
		{"hbm3 nvidia", "NVIDIA H100 80GB HBM3", false},
		{"h100", "", false},
	} {
		if got := ModelMatches(c.asked, c.model); got != c.want {
			t.Errorf("%q matches %q: %t", c.asked, c.model, got)
		}
	}
}

// TestMemoryIsAsCardsAreNamed: the driver's figure of a card sold with 80 GB.
func TestMemoryIsAsCardsAreNamed(t *testing.T) {
	if got := WholeGiB(85_520_809_984); got != 80 {
		t.Errorf("%d GiB, want 80", got)
	}
	if got := WholeGiB(80 << 30); got != 80 {
		t.Errorf("%d GiB, want 80", got)
	}
}

func TestComputeCapabilitiesAreVersions(t *testing.T) {
	order := []string{"", "7.5", "8.0", "8.6", "9.0", "10.3", "12.0"}
	for i, a := range order {
		for k, b := range order {
			x, errX := ParseComputeCapability(a)
			y, errY := ParseComputeCapability(b)
			if errX != nil || errY != nil || x.Less(y) != (i < k) {
				t.Errorf("%q below %q: %t, %v %v", a, b, x.Less(y), errX, errY)
			}
		}
	}
}
