package placement

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gpuqd/daemon/job"
)

// hostOf is a live host of pool a, with devices in these states.
func hostOf(name string, states ...string) Host {
	h := Host{Name: name, Pools: []string{"a"}}
	for i, state := range states {
		d := HostDevice{Name: string(rune('0' + i)), State: state}
		if state == "sick" || state == "cordoned" {
			d.Reason = "its reason.\n"
		}
		h.Devices = append(h.Devices, d)
	}
	return h
}

func with(h Host, change func(*Host)) Host {
	change(&h)
	return h
}

func TestExplainNamesWhatIsMissing(t *testing.T) {
	expired := func(h *Host) { h.Session = "expired" }
	for _, c := range []struct {
		name   string
		gpus   int
		hosts  []Host
		clause string
		ready  []string
	}{
		{"no host", 1, nil, "waits for a host: none serves pool a", nil},
		{"another pool", 1, []Host{with(hostOf("x", "free"), func(h *Host) { h.Pools = []string{"b"} })}, "waits for a host: none serves pool a", nil},
		{"none live", 1, []Host{with(hostOf("x", "free"), expired)}, "waits for a live host in pool a: x is not live (its session is expired)", nil},
		{
			"too large", 4,
			[]Host{hostOf("x", "free", "busy"), hostOf("y", "free"), hostOf("z"), with(hostOf("big", "free", "free", "free", "free"), expired)},
			"waits for a host with 4 devices: no live host of pool a has that many; x has 2 devices in all, y has 1 device in all, z has no devices, 1 more host", nil,
		},
		{
			"all busy", 2,
			[]Host{hostOf("x", "free", "busy"), hostOf("y", "busy", "sick"), with(hostOf("z", "free", "free"), func(h *Host) { h.Refuses = "is drained by olga: new driver" })},
			"waits for 2 free devices of one host in pool a: z is drained by olga: new driver, x has 1 of 2 devices free (1 busy), " +
				"y has 0 of 2 devices free (1 busy; 1 sick: device 1, its reason)", nil,
		},
		{
			"as reported", 1,
			[]Host{with(hostOf("x", "busy"), func(h *Host) { h.Age = 1400 * time.Millisecond }), with(hostOf("y", "cordoned"), func(h *Host) { h.Age = time.Millisecond })},
			"waits for 1 free device of one host in pool a: x has 0 of 1 device free (1 busy) as of 1s ago, " +
				"y has 0 of 1 device free (1 cordoned: device 0, its reason) as of less than 1s ago", nil,
		},
		{
			"its turn", 1,
			[]Host{hostOf("x", "busy"), hostOf("y", "free", "draining")},
			"waits for its turn: y has 1 of 2 devices free (1 draining)",
			[]string{"y"},
		},
		{"a slot", 0, []Host{with(hostOf("x"), func(h *Host) { h.Slots = 1 })}, "waits for its turn: x has a slot free", []string{"x"}},
		{
			"no slot", 0,
			[]Host{with(hostOf("x", "free"), func(h *Host) { h.Slots = 0 }), with(hostOf("y"), func(h *Host) { h.Slots = SlotsUnknown })},
			"waits for a slot without a device in pool a: x has no slot free, y may have a slot: only its own daemon knows", nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := Explain(shape("a", job.Normal, c.gpus), c.hosts)
			if e.Clause != c.clause {
				t.Errorf("it %s\nwant: %s", e.Clause, c.clause)
			}
			if !reflect.DeepEqual(e.Ready, c.ready) {
				t.Errorf("ready: %v, want %v", e.Ready, c.ready)
			}
		})
	}
}

// TestExplainAgreesWithPlan: a host that takes work is said to have room for a
// job exactly where Plan would take one, and never to be unable where it is.
func TestExplainAgreesWithPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		states := rapid.SliceOfN(rapid.SampledFrom([]string{"free", "busy", "shared", "checking", "draining", "cordoned", "sick"}), 0, 6).Draw(t, "devices")
		h := hostOf("x", states...)
		h.Slots = rapid.IntRange(0, 2).Draw(t, "slots")
		s := shape(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "pool"), job.Normal, rapid.IntRange(0, 6).Draw(t, "gpus"))
		s.Class = anyClass.Draw(t, "class")
		if c, _ := job.ParseClass(s.Class); c.ShareGiB > 0 {
			s.GPUs = 1
		}
		if rapid.IntRange(0, 9).Draw(t, "newer") == 0 {
			s.Class = "time3600"
		}
		v := View{Pools: h.Pools, Queues: []job.Shape{s}, FreeSlots: h.Slots}
		for i := range h.Devices {
			d := &h.Devices[i]
			d.Device = anyDevice.Draw(t, "device")
			d.UUID, d.Index = d.Name, i
			switch d.State {
			case "free":
				v.Free = append(v.Free, d.Device)
			case "shared":
				d.State, d.Shared = "busy", true
				d.RoomBytes = rapid.Uint64Range(0, d.MemoryBytes).Draw(t, "room")
				v.Shared = append(v.Shared, d.Device)
			}
		}
		e := Explain(s, []Host{h})
		planned := len(Plan(v)) > 0
		if ready := len(e.Ready) > 0; ready != planned {
			t.Fatalf("it is ready: %t, Plan takes it: %t (%s)", ready, planned, e.Clause)
		}
		if planned && !Able(s, []Host{h}) || s.GPUs > 0 && s.Pool == "a" && Serves(s, h.Devices) != planned {
			t.Fatalf("Plan takes it: %t, able: %t, serves: %t", planned, Able(s, []Host{h}), Serves(s, h.Devices))
		}
		if e.Clause == "" || strings.ContainsAny(e.Clause, "\n") || strings.HasSuffix(e.Clause, ".") {
			t.Fatalf("clause %q", e.Clause)
		}
	})
}

func TestBeforeIsTheOrderOfPlan(t *testing.T) {
	shapes := []job.Shape{shape("a", job.High, 1), shape("a", job.Normal, 2), shape("a", job.Normal, 1), shape("a", job.Low, 8)}
	for i, a := range shapes {
		for k, b := range shapes {
			if Before(a, b) != (i < k) {
				t.Errorf("%s before %s: %t", a, b, Before(a, b))
			}
		}
	}
}
