package device

import (
	"context"
	"errors"
	"strings"
	"testing"

	"gpuqd/daemon/job"
)

func newManager(uuids ...string) *Manager {
	m := newObliging(Options{})
	m.take(inventory(uuids...))
	<-m.Changed() // the one of the first report
	return m
}

func (m *Manager) find(uuid string) Status {
	for _, s := range m.Snapshot() {
		if s.UUID == uuid {
			return s
		}
	}
	return Status{}
}

func signalled(m *Manager) bool {
	select {
	case <-m.Changed():
		return true
	default:
		return false
	}
}

func TestAcquire(t *testing.T) {
	one, two := job.NewID(), job.NewID()

	t.Run("GrantsAllOrNothing", func(t *testing.T) {
		m := newManager("a", "b", "c")
		if err := m.Acquire(one, 1, []string{"b"}, 0); err != nil {
			t.Fatal(err)
		}
		err := m.Acquire(two, 3, []string{"a", "b", "x"}, 0)
		var notFree *NotFreeError
		if !errors.Is(err, ErrNotFree) || !errors.As(err, &notFree) {
			t.Fatalf("got %v, want ErrNotFree", err)
		}
		if len(notFree.Refused) != 2 || notFree.Refused[0].UUID != "b" || notFree.Refused[1].UUID != "x" {
			t.Errorf("refused %v, want b and x", notFree.Refused)
		}
		if !strings.Contains(err.Error(), string(one)) {
			t.Errorf("%q does not name the holder", err)
		}
		if s := m.find("a"); s.State != Free {
			t.Errorf("a is %s after a refusal, want free", s.State)
		}
	})

	t.Run("NoDevicesIsAGrant", func(t *testing.T) {
		if err := newManager().Acquire(one, 1, nil, 0); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("RefusesADeviceNamedTwice", func(t *testing.T) {
		if err := newManager("a").Acquire(one, 1, []string{"a", "a"}, 0); !errors.Is(err, ErrNotFree) {
			t.Fatalf("got %v, want ErrNotFree", err)
		}
	})

	t.Run("RefusesTheHolderItself", func(t *testing.T) {
		m := newManager("a")
		for i, want := range []error{nil, ErrNotFree} {
			if err := m.Acquire(one, 1, []string{"a"}, 0); !errors.Is(err, want) {
				t.Fatalf("call %d: got %v, want %v", i, err, want)
			}
		}
	})

	t.Run("RefusesSickAndCordonedWithTheReason", func(t *testing.T) {
		m := newManager("a", "b")
		if err := m.Cordon("a", "row remap pending", "ada"); err != nil {
			t.Fatal(err)
		}
		r := inventory("a", "b")
		r.Devices[1].Sick = "fell off the bus"
		m.take(r)
		err := m.Acquire(one, 1, []string{"a", "b"}, 0)
		for _, want := range []string{"cordoned: row remap pending", "sick: fell off the bus"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %q", err, want)
			}
		}
	})
}

func TestRelease(t *testing.T) {
	id := job.NewID()
	t.Run("SignalsAndFreesOnlyThatAttempt", func(t *testing.T) {
		m := newManager("a", "b")
		if err := errors.Join(m.Acquire(id, 1, []string{"a"}, 0), m.Acquire(id, 2, []string{"b"}, 0)); err != nil {
			t.Fatal(err)
		}
		m.Release(id, 3)
		if signalled(m) {
			t.Error("releasing nothing signalled")
		}
		m.Release(id, 1)
		if !signalled(m) {
			t.Error("no signal that a device became free")
		}
		if a, b := m.find("a"), m.find("b"); a.State != Free || b.State != Busy || b.Attempt != 2 {
			t.Errorf("a is %s, b is %s by attempt %d; want free, and busy by 2", a.State, b.State, b.Attempt)
		}
	})
	t.Run("LeavesACordonedDeviceCordoned", func(t *testing.T) {
		m := newManager("a")
		if err := errors.Join(m.Acquire(id, 1, []string{"a"}, 0), m.Cordon("a", "dust", "bob")); err != nil {
			t.Fatal(err)
		}
		if s := m.find("a"); s.State != Draining || s.Reason != "dust" || s.Who != "bob" || s.JobID != id {
			t.Errorf("while held: %+v, want draining with reason, who and job", s)
		}
		m.Release(id, 1)
		if s := m.find("a"); s.State != Cordoned || s.JobID != "" {
			t.Errorf("once released: %+v, want cordoned and without job", s)
		}
		if err := m.Uncordon("a"); err != nil || !signalled(m) || len(m.Free()) != 1 {
			t.Errorf("uncordon (%v) did not signal one free device", err)
		}
	})
}

func TestAdopt(t *testing.T) {
	one, two := job.NewID(), job.NewID()
	t.Run("HoldsBeforeTheInventoryNamesTheDevice", func(t *testing.T) {
		m := New("host-1", &Simulated{}, nil)
		if err := m.Adopt(one, 2, []string{"a"}, 0); err != nil {
			t.Fatal(err)
		}
		if s := m.find("a"); s.State != Sick || s.JobID != one || s.Attempt != 2 || s.Reason == "" {
			t.Fatalf("before the inventory: %+v, want sick and held", s)
		}
		m.take(inventory("a", "b"))
		if s := m.find("a"); s.State != Busy || s.JobID != one || s.Model != "test" {
			t.Fatalf("after the inventory: %+v, want busy and described", s)
		}
		if free := m.Free(); len(free) != 1 || free[0].UUID != "b" {
			t.Errorf("free are %v, want b", free)
		}
	})
	t.Run("HoldsSickAndCordonedDevices", func(t *testing.T) {
		m := newManager("a", "b")
		r := inventory("a", "b")
		r.Devices[0].Sick = "ecc"
		m.take(r)
		if err := errors.Join(m.Cordon("b", "dust", "bob"), m.Adopt(one, 1, []string{"a", "b"}, 0)); err != nil {
			t.Fatal(err)
		}
		if a, b := m.find("a"), m.find("b"); a.JobID != one || a.State != Sick || b.JobID != one || b.State != Draining {
			t.Errorf("a %+v, b %+v: want both held, sick and draining", a, b)
		}
	})
	t.Run("IsIdempotentAndRefusesASecondHolder", func(t *testing.T) {
		m := newManager("a", "b")
		for range 2 {
			if err := m.Adopt(one, 1, []string{"a"}, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Adopt(two, 1, []string{"b", "a"}, 0); !errors.Is(err, ErrNotFree) {
			t.Fatalf("got %v, want ErrNotFree", err)
		}
		if s := m.find("b"); s.State != Free {
			t.Errorf("b is %s after a refusal, want free", s.State)
		}
	})
	t.Run("ForgetsADeviceThatOnlyTheAttemptKnew", func(t *testing.T) {
		m := newManager("a")
		if err := m.Adopt(one, 1, []string{"gone"}, 0); err != nil {
			t.Fatal(err)
		}
		m.Release(one, 1)
		if all := m.Snapshot(); len(all) != 1 {
			t.Errorf("%v are left, want a alone", all)
		}
	})
}

func TestReports(t *testing.T) {
	t.Run("VanishedDeviceIsSickAndBackWhenNamedAgain", func(t *testing.T) {
		m := newManager("a", "b")
		id := job.NewID()
		if err := m.Acquire(id, 1, []string{"b"}, 0); err != nil {
			t.Fatal(err)
		}
		m.take(inventory("a"))
		if s := m.find("b"); s.State != Sick || s.JobID != id || !strings.HasPrefix(s.Reason, "lost") {
			t.Errorf("%+v, want sick as lost, and still held", s)
		}
		if !signalled(m) {
			t.Error("no signal of a sick device")
		}
		m.take(inventory("a", "b"))
		if s := m.find("b"); s.State != Busy || s.Reason != "" {
			t.Errorf("%+v, want busy again", s)
		}
	})
	t.Run("ErrorMakesAllSickAndHeartbeatChangesNothing", func(t *testing.T) {
		m := newManager("a", "b")
		m.take(Report{Error: &ReportError{Kind: HelperSilent, Message: "silent"}})
		m.take(Report{Heartbeat: true})
		for _, s := range m.Snapshot() {
			if s.State != Sick || s.Reason != "silent" {
				t.Errorf("%+v, want sick", s)
			}
		}
		if m.Problem() != "silent" || len(m.Free()) != 0 {
			t.Errorf("problem %q, %d free; want silent, 0", m.Problem(), len(m.Free()))
		}
		m.take(inventory("a", "b"))
		if m.Problem() != "" || len(m.Free()) != 2 {
			t.Errorf("problem %q, %d free; want none, 2", m.Problem(), len(m.Free()))
		}
	})
	t.Run("HealthyReportKeepsSinceAndSendsNoSignal", func(t *testing.T) {
		m := newManager("a")
		since := m.find("a").Since
		m.take(inventory("a"))
		if got := m.find("a").Since; !got.Equal(since) || signalled(m) {
			t.Errorf("since %v, want %v, and no signal", got, since)
		}
	})
	t.Run("NoDevicesIsReady", func(t *testing.T) {
		m := New("login-1", &Simulated{}, nil)
		m.take(inventory())
		within(t, "ready", m.Ready())
		if m.Problem() != "" || len(m.Snapshot()) != 0 {
			t.Error("a host without devices has a problem")
		}
	})
	t.Run("CordonOfUnknownDeviceIsAnError", func(t *testing.T) {
		m := newManager("a")
		if err := m.Cordon("x", "r", "w"); !errors.Is(err, ErrUnknown) {
			t.Errorf("cordon: got %v, want ErrUnknown", err)
		}
		if err := m.Uncordon("x"); !errors.Is(err, ErrUnknown) {
			t.Errorf("uncordon: got %v, want ErrUnknown", err)
		}
	})
	t.Run("SnapshotIsACopyInOrderOfIndex", func(t *testing.T) {
		m := newManager("z", "b", "a")
		r := inventory("z", "b", "a")
		r.Devices[0].Processes = []Process{{PID: 7}}
		m.take(r)
		all := m.Snapshot()
		all[0].Processes[0].PID = 8
		if got := m.Snapshot(); got[0].UUID != "z" || got[2].UUID != "a" || got[0].Processes[0].PID != 7 {
			t.Errorf("got %+v, want z, b, a, untouched", got)
		}
	})
}

// givesUp is a Source that fails for good.
type givesUp struct{ err error }

func (g givesUp) Run(_ context.Context, deliver func(Report)) error {
	deliver(inventory("a"))
	return g.err
}

func TestSourceThatGivesUpMakesAllSick(t *testing.T) {
	cause := errors.New("no more")
	m := New("host-1", givesUp{cause}, nil)
	if err := m.Run(t.Context()); !errors.Is(err, cause) {
		t.Fatalf("got %v, want %v", err, cause)
	}
	if s := m.find("a"); s.State != Sick || s.Reason != "no more" {
		t.Errorf("%+v, want sick", s)
	}
}
