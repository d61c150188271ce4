package device

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gpuqd/daemon/job"
)

// bench is a manager over devices whose driver the test plays. Run is not needed:
// looks are answered when the test says so.
type bench struct {
	*Manager
	t         *testing.T
	facts     map[string]Facts
	processes *people
	asked     []uint64 // looks
}

// people are the processes of a host.
type people struct {
	mu       sync.Mutex
	there    map[int]ProcessOwner
	immortal bool
	killed   []int
}

func (p *people) Describe(pid int) (ProcessOwner, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	owner, ok := p.there[pid]
	return owner, ok
}

func (p *people) Kill(owner ProcessOwner) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed = append(p.killed, owner.PID)
	if !p.immortal {
		delete(p.there, owner.PID)
	}
	return nil
}

// askedOnly is a Looker that notes what it is asked.
type askedOnly struct {
	mute
	b *bench
}

func (a askedOnly) Look(n uint64) { a.b.asked = append(a.b.asked, n) }

func newBench(t *testing.T, o Options, uuids ...string) *bench {
	b := &bench{t: t, facts: map[string]Facts{}, processes: &people{there: map[int]ProcessOwner{}}}
	o.Processes = b.processes
	b.Manager = NewWith("gpu7", askedOnly{b: b}, o)
	b.isDevice = func(string) bool { return false } // whatever GPUs this machine has
	for i, uuid := range uuids {
		b.facts[uuid] = Facts{Device: Device{UUID: uuid, Index: i, MemoryBytes: 80 << 30}, MemoryUsedBytes: 4 << 20}
	}
	b.report()
	return b
}

// report delivers an inventory that answers every look so far.
func (b *bench) report(events ...Event) {
	r := Report{Version: WireVersion, Devices: []Facts{}, Look: uint64(1 << 30), Events: events}
	for _, uuid := range slices.Sorted(maps.Keys(b.facts)) {
		f := b.facts[uuid]
		f.Processes = slices.Clone(f.Processes)
		r.Devices = append(r.Devices, f)
	}
	b.take(r)
}

// set changes what the driver says of a device.
func (b *bench) set(uuid string, change func(*Facts)) {
	f := b.facts[uuid]
	change(&f)
	b.facts[uuid] = f
}

func (b *bench) grant(id job.ID, number int, uuids ...string) {
	b.t.Helper()
	if err := b.Acquire(id, number, uuids, 0); err != nil {
		b.t.Fatal(err)
	}
}

// want checks a device's state, what its reason says, and that Acquire and Free
// agree with it.
func (b *bench) want(uuid string, state State, says ...string) {
	b.t.Helper()
	s := b.find(uuid)
	if s.State != state {
		b.t.Fatalf("%s is %s (%s), want %s", uuid, s.State, s.Reason, state)
	}
	for _, text := range says {
		if !strings.Contains(s.Reason, text) {
			b.t.Errorf("%s: %q does not say %q", uuid, s.Reason, text)
		}
	}
	free := slices.ContainsFunc(b.Free(), func(d Device) bool { return d.UUID == uuid })
	if free != (state == Free) {
		b.t.Errorf("%s is %s, and among the free: %t", uuid, state, free)
	}
	if state == Free {
		return
	}
	if err := b.Acquire("other", 1, []string{uuid}, 0); !errors.Is(err, ErrNotFree) {
		b.t.Errorf("%s is %s and was granted (%v)", uuid, state, err)
	}
}

func (b *bench) alarmed() (list []Alarm) {
	for {
		select {
		case a := <-b.Alarms():
			list = append(list, a)
		default:
			return list
		}
	}
}

func xid(uuid string, code int) Event {
	return Event{UUID: uuid, Kind: EventXID, XID: code, Count: 1, At: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)}
}
