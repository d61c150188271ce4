package placement

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gpuqd/daemon/job"
)

func shape(pool string, p job.Priority, gpus int) job.Shape {
	return job.Shape{Pool: pool, Priority: p, GPUs: gpus, Class: job.ClassAny}
}

func devices(uuids ...string) []Device {
	list := make([]Device, len(uuids))
	for i, uuid := range uuids {
		list[i] = Device{UUID: uuid, Index: i}
	}
	return list
}

// queuesOf lists the queues of a plan in its order.
func queuesOf(takes []Take) []string {
	names := make([]string, len(takes))
	for i, t := range takes {
		names[i] = t.Queue
	}
	return names
}

func TestPlanTriesThemInOrder(t *testing.T) {
	for _, c := range []struct {
		name string
		view View
		want []string
	}{
		{"nothing in use", View{Pools: []string{"a"}, Free: devices("x"), FreeSlots: 1}, []string{}},
		{"again before plain", View{
			Pools: []string{"a"}, Free: devices("x"),
			Queues: []job.Shape{shape("a", job.Normal, 1)},
		}, []string{"gpuq.job.a.normal.g1.any.again", "gpuq.job.a.normal.g1.any"}},
		{"higher priority first, though smaller", View{
			Pools: []string{"a"}, Free: devices("x", "y"), FreeSlots: 1,
			Queues: []job.Shape{shape("a", job.Low, 2), shape("a", job.High, 0), shape("a", job.Normal, 1)},
		}, []string{
			"gpuq.job.a.high.g0.any.again", "gpuq.job.a.high.g0.any",
			"gpuq.job.a.normal.g1.any.again", "gpuq.job.a.normal.g1.any",
			"gpuq.job.a.low.g2.any.again", "gpuq.job.a.low.g2.any",
		}},
		{"larger first within a priority, across pools", View{
			Pools: []string{"a", "b"}, Free: devices("x", "y", "z"), FreeSlots: 1,
			Queues: []job.Shape{shape("a", job.Normal, 0), shape("a", job.Normal, 1), shape("b", job.Normal, 3), shape("a", job.Normal, 2)},
		}, []string{
			"gpuq.job.b.normal.g3.any.again", "gpuq.job.b.normal.g3.any",
			"gpuq.job.a.normal.g2.any.again", "gpuq.job.a.normal.g2.any",
			"gpuq.job.a.normal.g1.any.again", "gpuq.job.a.normal.g1.any",
			"gpuq.job.a.normal.g0.any.again", "gpuq.job.a.normal.g0.any",
		}},
		{"what does not fit is passed over, not waited for", View{
			Pools: []string{"a"}, Free: devices("x"),
			Queues: []job.Shape{shape("a", job.High, 2), shape("a", job.High, 0), shape("a", job.Low, 1)},
		}, []string{"gpuq.job.a.low.g1.any.again", "gpuq.job.a.low.g1.any"}},
		{"other pools are not served", View{
			Pools: []string{"b"}, Free: devices("x"), FreeSlots: 1,
			Queues: []job.Shape{shape("a", job.High, 1), shape("a", job.High, 0), shape("b", job.Low, 1)},
		}, []string{"gpuq.job.b.low.g1.any.again", "gpuq.job.b.low.g1.any"}},
		{"a login node takes nothing", View{
			Free: devices("x"), FreeSlots: 9, Queues: []job.Shape{shape("a", job.High, 1)},
		}, []string{}},
		{"of a rehearsal elsewhere only what was published again", View{
			Pools: []string{"a"}, AgainPools: []string{"b"}, Free: devices("x"),
			Queues: []job.Shape{shape("b", job.Normal, 1), shape("a", job.Normal, 1), shape("b", job.Normal, 2), shape("c", job.Normal, 1)},
		}, []string{"gpuq.job.a.normal.g1.any.again", "gpuq.job.a.normal.g1.any", "gpuq.job.b.normal.g1.any.again"}},
		{"slots are not for devices", View{
			Pools: []string{"a"}, FreeSlots: 9, Queues: []job.Shape{shape("a", job.High, 1)},
		}, []string{}},
		{"more slots in use than there are", View{
			Pools: []string{"a"}, Free: devices("x"), FreeSlots: -1, Queues: []job.Shape{shape("a", job.High, 0)},
		}, []string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := queuesOf(Plan(c.view)); !slices.Equal(got, c.want) {
				t.Errorf("\n got %q\nwant %q", got, c.want)
			}
		})
	}
}

// TestLowestIndexIsGrantedFirst: whatever the order of the list; UUIDs settle
// ties, which come up where an index is unknown.
func TestLowestIndexIsGrantedFirst(t *testing.T) {
	v := View{
		Pools: []string{"a"}, Queues: []job.Shape{shape("a", job.Normal, 3)},
		Free: []Device{{UUID: "d", Index: 7}, {UUID: "c", Index: 1}, {UUID: "b", Index: 3}, {UUID: "a", Index: 3}, {UUID: "e", Index: 12}},
	}
	for _, take := range Plan(v) {
		if want := []string{"c", "a", "b"}; !slices.Equal(take.Devices, want) {
			t.Errorf("%s gets %q, want %q", take.Queue, take.Devices, want)
		}
	}
}

// anyClass draws from few enough values that devices meet some of them.
var anyClass = rapid.Custom(func(t *rapid.T) string {
	if rapid.Bool().Draw(t, "any") {
		return job.ClassAny
	}
	return job.Constraints{
		Model:      rapid.SampledFrom([]string{"", "a100", "h100"}).Draw(t, "model"),
		MemoryGiB:  rapid.SampledFrom([]int{0, 40, 80}).Draw(t, "memory"),
		Capability: rapid.SampledFrom([]job.ComputeCapability{{}, {Major: 9}}).Draw(t, "capability"),
		ShareGiB:   rapid.SampledFrom([]int{0, 0, 10, 40, 80}).Draw(t, "share"),
	}.Class()
})

// anyDevice is one of a few kinds, or of none that is known.
var anyDevice = rapid.Custom(func(t *rapid.T) Device {
	return rapid.SampledFrom([]Device{
		{},
		{Model: "NVIDIA A100-SXM4-40GB", MemoryBytes: 42_314_694_656, ComputeCapability: "8.0"},
		{Model: "NVIDIA A100-SXM4-80GB", MemoryBytes: 85_520_809_984, ComputeCapability: "8.0"},
		{Model: "NVIDIA H100 80GB HBM3", MemoryBytes: 85_520_809_984, ComputeCapability: "9.0"},
		{Model: "H100", MemoryBytes: 80 << 30},
	}).Draw(t, "kind")
})

var anyView = rapid.Custom(func(t *rapid.T) View {
	pool := rapid.SampledFrom([]string{"a", "b", "c"})
	anyShape := rapid.Custom(func(t *rapid.T) job.Shape {
		s := shape(pool.Draw(t, "pool"), rapid.SampledFrom(job.Priorities).Draw(t, "priority"), rapid.IntRange(0, 9).Draw(t, "gpus"))
		s.Class = anyClass.Draw(t, "class")
		return s
	})
	v := View{
		Pools:     rapid.SliceOfNDistinct(pool, 0, 3, rapid.ID).Draw(t, "pools"),
		Queues:    rapid.SliceOfNDistinct(anyShape, 0, 20, rapid.ID).Draw(t, "queues"),
		FreeSlots: rapid.IntRange(-2, 3).Draw(t, "slots"),
	}
	uuids := rapid.SliceOfNDistinct(rapid.StringMatching(`GPU-[0-9a-f]{1,2}`), 0, 8, rapid.ID).Draw(t, "free")
	for _, uuid := range uuids {
		d := anyDevice.Draw(t, "device")
		d.UUID, d.Index = uuid, rapid.IntRange(-1, 8).Draw(t, "index")
		if rapid.Bool().Draw(t, "shared") && d.MemoryBytes > 0 {
			d.RoomBytes = rapid.Uint64Range(0, d.MemoryBytes-1).Draw(t, "room")
			v.Shared = append(v.Shared, d)
			continue
		}
		v.Free = append(v.Free, d)
	}
	return v
})

func cloneView(v View) View {
	v.Pools, v.Queues = slices.Clone(v.Pools), slices.Clone(v.Queues)
	v.Free, v.Shared = slices.Clone(v.Free), slices.Clone(v.Shared)
	return v
}

func classOf(t *rapid.T, s job.Shape) job.Constraints {
	c, err := job.ParseClass(s.Class)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// canServe judges apart from Plan whether one device of a view can be granted.
func canServe(c job.Constraints, v View, uuid string) bool {
	is := func(d Device) bool { return d.UUID == uuid }
	free := slices.ContainsFunc(v.Free, is)
	all := slices.Concat(v.Free, v.Shared)
	i := slices.IndexFunc(all, is)
	if i < 0 {
		return false
	}
	d := all[i]
	have, _ := job.ParseComputeCapability(d.ComputeCapability)
	room := d.RoomBytes
	if free {
		room = d.MemoryBytes
	}
	return (c.Model == "" || strings.Contains(strings.ToLower(d.Model), c.Model)) &&
		(c.MemoryGiB == 0 || d.MemoryBytes > uint64(c.MemoryGiB-1)<<30) &&
		(c.Capability == job.ComputeCapability{} || d.ComputeCapability != "" && !have.Less(c.Capability)) &&
		(c.ShareGiB == 0 && free || c.ShareGiB > 0 && room >= uint64(c.ShareGiB)<<30)
}

// TestPlanGrantsOnlyWhatIsFree: each take can be started by itself, on as many
// free devices as its shape needs, none of them twice.
func TestPlanGrantsOnlyWhatIsFree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := anyView.Draw(t, "view")
		for _, take := range Plan(v) {
			if len(take.Devices) != take.Shape.GPUs {
				t.Fatalf("%s gets %d devices", take.Queue, len(take.Devices))
			}
			if take.Shape.GPUs == 0 && v.FreeSlots <= 0 {
				t.Fatalf("%s is taken without a slot", take.Queue)
			}
			granted := slices.Clone(take.Devices)
			slices.Sort(granted)
			if len(slices.Compact(granted)) != take.Shape.GPUs {
				t.Fatalf("%s gets a device twice: %q", take.Queue, take.Devices)
			}
			c := classOf(t, take.Shape)
			for _, uuid := range take.Devices {
				if !canServe(c, v, uuid) {
					t.Fatalf("%s gets %s of %+v", take.Queue, uuid, v)
				}
			}
			if take.Shape.GPUs > 0 && take.Share != c.ShareBytes() {
				t.Fatalf("%s gets %d bytes", take.Queue, take.Share)
			}
		}
	})
}

// TestPlanHasExactlyWhatFits: nothing idles that a queue could use, and nothing
// of another pool is touched.
func TestPlanHasExactlyWhatFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := anyView.Draw(t, "view")
		var want []string
		for _, s := range v.Queues {
			able := 0
			for _, d := range slices.Concat(v.Free, v.Shared) {
				if canServe(classOf(t, s), v, d.UUID) {
					able++
				}
			}
			room := able >= s.GPUs
			switch {
			case s.GPUs == 0:
				room = v.FreeSlots > 0
			case classOf(t, s).ShareGiB > 0:
				room = room && s.GPUs == 1
			}
			if room && slices.Contains(v.Pools, s.Pool) {
				want = append(want, s.Queue(), s.AgainQueue())
			}
		}
		got := queuesOf(Plan(v))
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("\n got %q\nwant %q", got, want)
		}
	})
}

func TestPlanIsInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		takes := Plan(anyView.Draw(t, "view"))
		for i, take := range takes {
			if want := []string{take.Shape.AgainQueue(), take.Shape.Queue()}[i%2]; take.Queue != want {
				t.Fatalf("take %d is of %s, want %s", i, take.Queue, want)
			}
			if i == 0 {
				continue
			}
			before, now := takes[i-1].Shape, take.Shape
			if before.Priority.Rank() > now.Priority.Rank() ||
				before.Priority == now.Priority && before.GPUs < now.GPUs {
				t.Fatalf("%s comes before %s", before, now)
			}
		}
	})
}

// TestPlanIsPure: the same view gives the same plan, in whatever order its parts
// come, and is left as it was.
func TestPlanIsPure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := anyView.Draw(t, "view")
		before := cloneView(v)
		plan := Plan(v)
		if !reflect.DeepEqual(v, before) {
			t.Fatalf("the view was changed to %+v", v)
		}
		if again := Plan(v); !reflect.DeepEqual(plan, again) {
			t.Fatalf("first %+v, then %+v", plan, again)
		}
		shuffled := View{
			Pools: rapid.Permutation(v.Pools).Draw(t, "pools again"), Queues: rapid.Permutation(v.Queues).Draw(t, "queues again"),
			Free: rapid.Permutation(v.Free).Draw(t, "free again"), FreeSlots: v.FreeSlots,
			Shared: rapid.Permutation(v.Shared).Draw(t, "shared again"),
		}
		if other := Plan(shuffled); !reflect.DeepEqual(plan, other) {
			t.Fatalf("the order of the view changes the plan from %+v to %+v", plan, other)
		}
	})
}
