package device

import (
	"context"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gpuqd/daemon/job"
)

const deviceMiB = 80 << 10

// sized is an inventory of devices of deviceMiB.
func sized(uuids ...string) Report {
	r := inventory(uuids...)
	for i := range r.Devices {
		r.Devices[i].MemoryBytes = deviceMiB << 20
	}
	return r
}

// TestSharesNeverExceedTheirDevice: attempts that come, share, have devices whole,
// are adopted and go never have more of a device than there is, nor a part of one
// that is held whole; and the candidates are exactly what can be acquired.
func TestSharesNeverExceedTheirDevice(t *testing.T) {
	uuids := []string{"a", "b"}
	jobs := []job.ID{job.NewID(), job.NewID(), job.NewID(), job.NewID()}
	rapid.Check(t, func(t *rapid.T) {
		m := newObliging(Options{})
		m.take(sized(uuids...))
		want := map[string]map[job.ID]uint64{"a": {}, "b": {}} // shares; 0 is the whole device
		granted := func(uuid string) (sum uint64, whole bool) {
			for _, share := range want[uuid] {
				sum, whole = sum+share, whole || share == 0
			}
			return sum, whole
		}
		t.Repeat(map[string]func(*rapid.T){
			"acquire": func(t *rapid.T) {
				id, uuid := rapid.SampledFrom(jobs).Draw(t, "job"), rapid.SampledFrom(uuids).Draw(t, "uuid")
				share := rapid.SampledFrom([]uint64{0, 1, 20 << 30, 40 << 30, 80 << 30, 80<<30 + 1}).Draw(t, "share")
				for _, held := range want {
					if _, twice := held[id]; twice {
						return // one attempt acquires once
					}
				}
				sum, whole := granted(uuid)
				ok := share == 0 && len(want[uuid]) == 0 || share > 0 && !whole && sum+share <= 80<<30
				err := m.Acquire(id, 1, []string{uuid}, share)
				if (err == nil) != ok || err != nil && !errors.Is(err, ErrNotFree) {
					t.Fatalf("%d bytes of %s: %v, want success %t", share, uuid, err, ok)
				}
				if ok {
					want[uuid][id] = share
				}
			},
			"release": func(t *rapid.T) {
				id := rapid.SampledFrom(jobs).Draw(t, "job")
				m.Release(id, 1)
				for _, held := range want {
					delete(held, id)
				}
				m.take(sized(uuids...)) // a look at what was left
			},
			"": func(t *rapid.T) {
				for _, uuid := range uuids {
					sum, whole := granted(uuid)
					c, ok := m.Room(uuid)
					if wantRoom := !whole && sum < 80<<30; ok != wantRoom {
						t.Fatalf("%s is a candidate: %t, want %t", uuid, ok, wantRoom)
					}
					if ok && (c.RoomBytes != 80<<30-sum || c.Shared != (sum > 0)) {
						t.Fatalf("%s: %+v, and %d bytes are granted", uuid, c, sum)
					}
					if got := m.find(uuid).SharedBytes(); !whole && got != sum {
						t.Fatalf("%s shows %d bytes shared, want %d", uuid, got, sum)
					}
				}
			},
		})
	})
}

func TestCandidatesAreWell(t *testing.T) {
	m, id := New("host-1", mute{}, nil), job.NewID()
	m.take(sized("free", "whole", "shared", "sick", "cordoned", "draining"))
	for uuid, share := range map[string]uint64{"whole": 0, "shared": 1 << 30, "draining": 1 << 30} {
		if err := m.Acquire(job.NewID(), 1, []string{uuid}, share); err != nil {
			t.Fatal(err)
		}
	}
	for _, uuid := range []string{"cordoned", "draining"} {
		if err := m.Cordon(uuid, "fan", "ada"); err != nil {
			t.Fatal(err)
		}
	}
	r := sized("free", "whole", "shared", "sick", "cordoned", "draining")
	r.Devices[3].Sick = "ecc"
	m.take(r)
	var got []string
	for _, c := range m.Candidates() {
		got = append(got, c.UUID)
		if err := m.Acquire(id, len(got), []string{c.UUID}, c.RoomBytes); err != nil {
			t.Error(err)
		}
	}
	if strings.Join(got, " ") != "free shared" {
		t.Errorf("candidates are %q", got)
	}
}

// mute is a source that cannot be asked to look: the tests deliver its reports.
type mute struct{}

func (mute) Run(ctx context.Context, _ func(Report)) error {
	<-ctx.Done()
	return nil
}

// fakeProcesses says whose processes are by their PID.
type fakeProcesses map[int]ProcessOwner

func (f fakeProcesses) Describe(pid int) (ProcessOwner, bool) {
	o, ok := f[pid]
	return o, ok
}

func (fakeProcesses) Kill(ProcessOwner) error { return nil }

// askable is a source that can be asked to look; it answers from the script.
type askable struct {
	asked  []uint64
	answer func(n uint64)
}

func (*askable) Run(ctx context.Context, _ func(Report)) error {
	<-ctx.Done()
	return nil
}

func (a *askable) Look(n uint64) {
	a.asked = append(a.asked, n)
	if a.answer != nil {
		a.answer(n)
	}
}

// overuseBench is a device that two attempts share, each with 12 GiB.
func overuseBench(t *testing.T, source Source) (m *Manager, one, two job.ID, look func(mib ...uint64)) {
	m, one, two = New("host-1", source, nil), job.NewID(), job.NewID()
	m.processes = fakeProcesses{
		10: {PID: 10, JobID: one, Attempt: 1}, 11: {PID: 11, JobID: one, Attempt: 1},
		20: {PID: 20, JobID: two, Attempt: 3}, 30: {PID: 30, Name: "foreign"},
	}
	m.take(sized("a"))
	for id, number := range map[job.ID]int{one: 1, two: 3} {
		if err := m.Acquire(id, number, []string{"a"}, 12<<30); err != nil {
			t.Fatal(err)
		}
	}
	pids := []int{10, 11, 20, 30}
	return m, one, two, func(mib ...uint64) {
		r := sized("a")
		for i, n := range mib {
			r.Devices[0].Processes = append(r.Devices[0].Processes, Process{PID: pids[i], MemoryUsedBytes: n << 20})
		}
		m.take(r)
	}
}

func alarm(m *Manager) *Alarm {
	select {
	case a := <-m.Alarms():
		return &a
	default:
		return nil
	}
}

// TestOverUserIsEnded: two looks in a row, the sum over its processes, and only the
// one who does it.
func TestOverUserIsEnded(t *testing.T) {
	m, one, _, look := overuseBench(t, mute{})
	look(6<<10, 6<<10, 12<<10, 70<<10)
	look(6<<10, 6<<10, 12<<10, 70<<10)
	if a := alarm(m); a != nil {
		t.Fatalf("%+v, and both keep to their shares", a)
	}
	look(6<<10, 7<<10, 12<<10)
	look(6<<10, 1, 12<<10)
	look(6<<10, 7<<10, 12<<10)
	if a := alarm(m); a != nil {
		t.Fatalf("%+v after looks that were not in a row", a)
	}
	look(6<<10, 7<<10, 12<<10)
	a := alarm(m)
	if a == nil || a.JobID != one || a.Attempt != 1 || a.Kind != AlarmMemory {
		t.Fatalf("alarm %+v", a)
	}
	for _, want := range []string{"13312 MiB", "12288 MiB", "gpu_memory", "device a"} {
		if !strings.Contains(a.Detail, want) {
			t.Errorf("%q does not say %q", a.Detail, want)
		}
	}
	if a := alarm(m); a != nil {
		t.Errorf("a second alarm of one look: %+v", a)
	}
	m.take(Report{Heartbeat: true})
	m.take(Report{Events: []Event{{Kind: EventXID, XID: 1, Count: 1}}, Devices: sized("a").Devices})
	look(6<<10, 7<<10, 12<<10)
	if a := alarm(m); a != nil {
		t.Errorf("%+v after a look without the process", a)
	}
}

// TestSecondLookIsAskedForAtOnce, once per run over the share.
func TestSecondLookIsAskedForAtOnce(t *testing.T) {
	source := &askable{}
	m, one, _, look := overuseBench(t, source)
	source.answer = func(uint64) { look(13 << 10) }
	look(13 << 10)
	if a := alarm(m); a == nil || a.JobID != one {
		t.Fatalf("alarm %+v", a)
	}
	look(13 << 10)
	if len(source.asked) != 1 {
		t.Errorf("looks asked for: %v", source.asked)
	}
	if a := alarm(m); a == nil {
		t.Error("an alarm is not raised again while its reason lasts")
	}
	m.Release(one, 1)
	look(13 << 10)
	if a := alarm(m); a != nil {
		t.Errorf("%+v for an attempt that is gone", a)
	}
}

// TestRoomThatIsFreedIsSignalled: of a shared device, once a look has found that
// nothing of the attempt is left.
func TestRoomThatIsFreedIsSignalled(t *testing.T) {
	source := &askable{}
	m, one, _, look := overuseBench(t, source)
	for signalled(m) {
	}
	m.Release(one, 1)
	if c, ok := m.Room("a"); ok || signalled(m) {
		t.Fatalf("before the look there is %+v", c)
	}
	r := sized("a")
	r.Look = source.asked[len(source.asked)-1]
	m.take(r)
	if c, ok := m.Room("a"); !ok || c.RoomBytes != 68<<30 || !signalled(m) {
		t.Errorf("after the look there is %+v, %t, or it was not signalled", c, ok)
	}
	look()
	if signalled(m) {
		t.Error("a look that changes nothing is signalled")
	}
}

// TestWholeDeviceHasNoShare: who has it alone may use all of it.
func TestWholeDeviceHasNoShare(t *testing.T) {
	m, one, two, look := overuseBench(t, mute{})
	m.Release(one, 1)
	m.Release(two, 3)
	m.take(sized("a"))
	if err := m.Acquire(one, 1, []string{"a"}, 0); err != nil {
		t.Fatal(err)
	}
	look(79 << 10)
	look(79 << 10)
	if a := alarm(m); a != nil {
		t.Errorf("alarm %+v", a)
	}
}

// TestOverUserIsFoundByItsJobAlone: a unit names the job, and not the attempt.
func TestOverUserIsFoundByItsJobAlone(t *testing.T) {
	m, one, _, look := overuseBench(t, mute{})
	m.processes = fakeProcesses{10: {PID: 10, JobID: one}, 11: {PID: 11, JobID: one, Attempt: 1}}
	for range 2 {
		look(6<<10, 7<<10)
	}
	if a := alarm(m); a == nil || a.JobID != one || a.Attempt != 1 {
		t.Errorf("alarm %+v", a)
	}
}
