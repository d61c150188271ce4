package agent

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/control"
	"gpuqd/daemon/dedup"
	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
)

// outbox is a broker that takes messages, or is out of reach; nobody takes them
// from it.
type outbox struct {
	Broker
	mu   sync.Mutex
	away bool
	sent []broker.Message
}

func (o *outbox) Publish(_ context.Context, m broker.Message) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away {
		return broker.ErrUnreachable
	}
	o.sent = append(o.sent, m)
	return nil
}

func (o *outbox) Request(context.Context, string, string, []byte, map[string]any) ([]byte, error) {
	return nil, broker.ErrUnreachable
}

func (o *outbox) Healthy() (bool, string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away {
		return false, "no node answers"
	}
	return true, ""
}

func (o *outbox) Ring(context.Context, string)               {}
func (o *outbox) DeclareShape(context.Context, string) error { return nil }
func (o *outbox) PauseSubmit()                               {}

func (o *outbox) messages() []broker.Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]broker.Message(nil), o.sent...)
}

// operateBench is host a with two devices and a session, over a real ledger; the
// broker is an outbox.
type operateBench struct {
	*leaseBench
	box *outbox
}

var (
	ada      = control.Caller{User: "ada", Via: control.ViaSocket}
	bob      = control.Caller{User: "bob", Via: control.ViaSocket}
	operator = control.Caller{User: "olga", Operator: true, Via: control.ViaSocket}
)

func newOperateBench(t *testing.T) operateBench {
	t.Helper()
	b := operateBench{newLeaseBench(t), &outbox{}}
	cache := dedup.New(dedup.Config{})
	t.Cleanup(cache.Close)
	b.broker, b.done = b.box, cache
	b.useDevices(t)
	close(b.opened)
	b.ready.Store(true)
	if err := b.openSession(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	return b
}

// useDevices gives the host its inventory, as at the start of a daemon.
func (b operateBench) useDevices(t *testing.T) {
	t.Helper()
	b.devices = device.New("a", &device.Simulated{Host: "a", Count: 2}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	devices := b.devices
	go func() { defer close(over); _ = devices.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-over })
	<-devices.Ready()
}

// addHost puts another host with devices into the ledger.
func (b operateBench) addHost(t *testing.T, name string, devices int) {
	t.Helper()
	h := &ledger.Host{
		Name: name, InstallID: name, BootID: "b", Pools: []string{"default"},
		Session: ledger.Session{ID: "session-" + name, State: ledger.Live, RenewSeq: 1, TTL: b.cfg.Lease.TTL, RenewedAt: b.now()},
	}
	for i := range devices {
		h.Devices = append(h.Devices, ledger.HostDevice{UUID: device.SimulatedUUID(name, i), Index: i, State: "free"})
	}
	if _, err := b.ledger.OpenSession(t.Context(), h, false); err != nil {
		t.Fatal(err)
	}
}

// submitAs puts a queued job of a user into the ledger.
func (b operateBench) submitAs(t *testing.T, user string) *job.Job {
	t.Helper()
	spec := job.DefaultSpec()
	spec.Command = []string{"true"}
	j, _, err := b.ledger.Submit(t.Context(), job.New(job.NewID(), user, spec, b.now()))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// claimAs puts a job into the ledger that this host has claimed on devices, and
// its run into memory.
func (b operateBench) claimAs(t *testing.T, user string, devices ...string) *run {
	t.Helper()
	j := b.submitAs(t, user)
	j, err := b.ledger.Claim(t.Context(), ledger.Claim{
		JobID: j.ID, Host: "a", Session: b.lease.current(), ClaimID: "claim-" + string(j.ID), Devices: devices, Now: b.now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.devices.Acquire(j.ID, j.Attempt, devices, 0); err != nil {
		t.Fatal(err)
	}
	r := newRun(b.Agent, j, devices)
	b.runs.add(r)
	return r
}

func (b operateBench) stored(t *testing.T, id job.ID) *job.Job {
	t.Helper()
	j, err := b.ledger.Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// events returns what was recorded, the newest first, as "what target who: why".
func (b operateBench) events(t *testing.T) []string {
	t.Helper()
	list, err := b.ledger.EventList(t.Context(), ledger.EventFilter{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, e := range list {
		lines = append(lines, e.What+" "+e.Target+" "+e.Who+": "+e.Why)
	}
	return lines
}

// wantRefusal fails unless err is of that kind and says so.
func wantRefusal(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("got %v, want it to be %q", err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want %q in it", err, w)
		}
	}
}
