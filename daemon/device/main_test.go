package device

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

// within fails the test when c is not closed or written to in time.
func within(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("waited %s in vain: %s", patience, what)
	}
}

// inventory returns a report of healthy devices with the given UUIDs.
func inventory(uuids ...string) Report {
	r := Report{Version: WireVersion, Devices: []Facts{}}
	for i, uuid := range uuids {
		r.Devices = append(r.Devices, Facts{Device: Device{UUID: uuid, Index: i, Model: "test"}})
	}
	return r
}

// obliging is a source that answers every look at once with the devices as its
// manager knows them, as long as it knows anything of them.
type obliging struct {
	m  *Manager
	mu sync.Mutex // held while it reports: a source reports one at a time
}

// newObliging returns a manager with such a source.
func newObliging(o Options) *Manager {
	source := &obliging{}
	source.m = NewWith("host-1", source, o)
	return source.m
}

func (o *obliging) Run(ctx context.Context, _ func(Report)) error {
	<-ctx.Done()
	return nil
}

// report delivers an inventory of its own accord; it answers every look asked for
// before, as any does.
func (o *obliging) report(uuids ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.m.mu.Lock()
	r := inventory(uuids...)
	r.Look = o.m.asked
	o.m.mu.Unlock()
	o.m.take(r)
}

func (o *obliging) Look(n uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := Report{Version: WireVersion, Devices: []Facts{}, Look: n}
	o.m.mu.Lock()
	for _, e := range o.m.sorted() {
		if e.unheard != "" {
			o.m.mu.Unlock()
			return
		}
		if e.seen && !e.lost {
			r.Devices = append(r.Devices, e.facts)
		}
	}
	o.m.mu.Unlock()
	o.m.take(r)
}
