package device

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestLineReadsBackAsWritten(t *testing.T) {
	full := inventory("GPU-a")
	full.Devices[0].PCIAddress = "0000:18:00.0"
	full.Devices[0].MemoryBytes = 80 << 30
	full.Devices[0].Processes = []Process{{PID: 1, MemoryUsedBytes: 2}}
	full.Problems = []string{"one"}
	for name, want := range map[string]Report{
		"Inventory": full,
		"Empty":     inventory(),
		"Heartbeat": {Version: WireVersion, Heartbeat: true},
		"Error":     {Version: WireVersion, Error: &ReportError{Kind: NoDriver, Message: "none"}},
	} {
		t.Run(name, func(t *testing.T) {
			line, err := json.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseLine(line)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s reads as %+v (%v), want %+v", line, got, err, want)
			}
		})
	}
}

func TestLineIsRefused(t *testing.T) {
	for name, line := range map[string]string{
		"Garbage":          "NVRM: warning",
		"Empty":            "",
		"Cut":              `{"version":2,"devices":[{"uu`,
		"SaysNothing":      `{"version":2}`,
		"NoVersion":        `{"devices":[]}`,
		"NamelessDevice":   `{"version":2,"devices":[{"index":0}]}`,
		"WrongType":        `{"version":2,"devices":7}`,
		"OtherVersion":     `{"version":99,"devices":"of another kind"}`,
		"AnotherWayOfJSON": `[1]`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseLine([]byte(line))
			if err == nil {
				t.Fatal("it was taken")
			}
			if other := strings.HasPrefix(name, "OtherV") || name == "NoVersion"; errors.Is(err, ErrWireVersion) != other {
				t.Errorf("%v: is ErrWireVersion %v, want %v", err, !other, other)
			}
		})
	}
}

func TestSimulated(t *testing.T) {
	t.Run("KeepsItsUUIDsOverReleases", func(t *testing.T) {
		const want = "GPU-sim-0e1c781e-6355-5459-91b0-8fc867e99848"
		if got := SimulatedUUID("host-1", 3); got != want {
			t.Errorf("got %s, want %s: a running job's device would be another after the update", got, want)
		}
	})
	t.Run("DiffersByHostAndIndex", func(t *testing.T) {
		seen := map[string]bool{}
		for _, host := range []string{"host-1", "host-11", "host-2"} {
			for i := range 12 {
				seen[SimulatedUUID(host, i)] = true
			}
		}
		if len(seen) != 36 {
			t.Errorf("%d different UUIDs, want 36", len(seen))
		}
	})
	t.Run("FeedsAManager", func(t *testing.T) {
		m := New("host-1", &Simulated{Host: "host-1", Count: 2, Model: "SIM", MemoryBytes: 1 << 30}, nil)
		stop := runManager(t, m)
		within(t, "ready", m.Ready())
		for i, s := range m.Snapshot() {
			if s.State != Free || !s.Simulated || s.Index != i || s.UUID != SimulatedUUID("host-1", i) || s.MemoryBytes != 1<<30 {
				t.Errorf("device %d is %+v", i, s)
			}
		}
		if len(m.Free()) != 2 {
			t.Errorf("%d free, want 2", len(m.Free()))
		}
		stop()
	})
}
