package sim

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/control"
	"gpuqd/test/sim/queue"
	"gpuqd/test/sim/store"

	"github.com/google/uuid"
)

// watchdog is the service manager's patience in these tests.
const watchdog = 30 * time.Second

// manager is a service manager that listens to one daemon.
type manager struct {
	now func() time.Duration

	mu    sync.Mutex
	ready time.Duration // when it was told so; 0 before
	alive time.Duration // the last sign of life
	gap   time.Duration // the longest time between two, from ready on
	early time.Duration // the longest between two requests for a longer start
	told  []string      // status lines
}

func (m *manager) notify(state string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	switch {
	case strings.HasPrefix(state, "STATUS="):
		m.told = append(m.told, state)
	case strings.HasPrefix(state, "EXTEND_TIMEOUT_USEC="):
		m.early, m.alive = max(m.early, now-m.alive), now
	case state == "READY=1":
		m.ready, m.alive = now, now
	case state == "WATCHDOG=1":
		m.gap, m.alive = max(m.gap, now-m.alive), now
	}
}

// silence is how long nothing was heard of the daemon.
func (m *manager) silence() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now() - m.alive
}

func (m *manager) heard() (ready, gap time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ready, max(m.gap, m.now()-m.alive)
}

func (m *manager) status() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.told) == 0 {
		return ""
	}
	return m.told[len(m.told)-1]
}

// stuckFaults block for as long as the history lasts.
type stuckFaults struct{ over <-chan struct{} }

func (f stuckFaults) Die()                                             {}
func (f stuckFaults) KillAttempt(context.Context, agent.Attempt) error { return nil }
func (f stuckFaults) Sever(uint64) bool                                { return false }
func (f stuckFaults) Block()                                           { <-f.over }

// watched runs a plan's site with a daemon that has a watchdog, and hands it to a
// test.
func watched(t *testing.T, p Plan, test func(*site, *manager)) {
	synctest.Test(t, func(t *testing.T) {
		p.Seed, p.OnLoss = 7, "freeze"
		p.Hosts = []Host{{Name: "host_1", Devices: 2}}
		s := newSite(p, nil)
		uuid.SetRand(&ids{world: s.world})
		defer uuid.SetRand(nil)
		m := &manager{now: s.world.Now}
		s.tune = func(o *agent.Options) {
			o.Notify, o.Watchdog = m.notify, watchdog
			o.Config.Simulate.Allowed, o.Faults = true, stuckFaults{s.over.Done()}
		}
		s.arm()
		s.work.Go(s.hosts[0].supervise)
		for i := range s.plan.Jobs {
			s.work.Go(func() { s.submit(&s.plan.Jobs[i]) })
		}
		test(s, m)
		s.close()
	})
}

// A daemon that waits, is refused or has much to do is no stuck one: whatever is
// out of its reach, and for however long, its loops come round.
func TestWatchdogIsFedWhateverIsOutOfReach(t *testing.T) {
	const from, lasting = 20 * time.Second, time.Hour
	busy := Plan{}
	for i := range 60 {
		busy.Jobs = append(busy.Jobs, Job{
			At: time.Duration(i) * time.Second, GPUs: i % 2, Run: time.Duration(1+i%7) * time.Second, MaxAttempts: 1,
		})
	}
	for name, faults := range map[string][]Fault{
		"Nothing":          nil,
		"LedgerCutOff":     {{Kind: CutWire, Part: store.Part}},
		"LedgerRefuses":    {{Kind: RefuseWire, Part: store.Part}},
		"LedgerHangs":      {{Kind: FreezePart, Part: store.Part}},
		"BrokerCutOff":     {{Kind: CutWire, Part: queue.Part}},
		"BrokerHangs":      {{Kind: FreezePart, Part: queue.Part}},
		"BrokerBlocks":     {{Kind: DiskAlarm}},
		"QueuesLeaderless": {{Kind: Leaderless}},
		"EverythingIsAway": {{Kind: Isolate}},
		"DiskIsSlow":       {{Kind: SlowDisk, Host: "host_1"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := busy.told(7)
			for i := range faults {
				faults[i].At, faults[i].For = from, lasting
			}
			p.Faults = faults
			watched(t, p, func(s *site, m *manager) {
				s.pause(from + lasting + 5*time.Minute)
				ready, gap := m.heard()
				if ready == 0 || gap >= watchdog {
					t.Errorf("ready at %s; the longest silence was %s, the daemon ends at %s: %s", ready, gap, watchdog, m.status())
				}
				if n := s.hosts[0].runs; n != 1 {
					t.Errorf("%d daemons ran", n)
				}
			})
		})
	}
}

// A start without a ledger waits for it, says so, and asks for the time.
func TestStartWaitsForTheLedgerAsLongAsItTakes(t *testing.T) {
	p := Plan{Faults: []Fault{{Kind: CutWire, Part: store.Part, For: time.Hour}}}
	watched(t, p, func(s *site, m *manager) {
		s.pause(30 * time.Minute)
		if ready, _ := m.heard(); ready != 0 {
			t.Errorf("ready at %s, without a ledger", ready)
		}
		if got, want := m.status(), "STATUS=starting: waiting for the ledger: "; !strings.HasPrefix(got, want) {
			t.Errorf("it says %q, want %q and why", got, want)
		}
		s.pause(31 * time.Minute)
		if ready, _ := m.heard(); ready < time.Hour || m.early > time.Minute {
			t.Errorf("ready at %s; %s passed between two signs of the start", ready, m.early)
		}
		s.pause(10 * time.Second)
		if got, want := m.status(), "STATUS=2 simulated devices: 2 free; no job running"; got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	})
}

// Each loop alone, stuck for good, ends the signs of life, in a bounded time.
func TestWatchdogIsNotFedWhileALoopIsStuck(t *testing.T) {
	operator := control.Caller{User: "olga", Operator: true, Via: control.ViaSocket}
	for loop, within := range map[string]time.Duration{
		"lease": 2 * time.Minute, "watch": 2 * time.Minute, "take": 2 * time.Minute, "drain": 3 * time.Minute,
		"sweep": 12 * time.Minute, "ledger probe": 2 * time.Minute,
	} {
		t.Run(loop, func(t *testing.T) {
			watched(t, Plan{}, func(s *site, m *manager) {
				s.pause(time.Minute)
				a := s.hosts[0].running().agent
				args := control.SimulateArgs{Action: control.SimulateWedge, Host: "host_1", Loop: loop}
				if _, err := a.Simulate(context.Background(), operator, args); err != nil {
					t.Fatal(err)
				}
				if loop == "drain" { // it waits for one
					_, err := a.Drain(context.Background(), operator, control.DrainArgs{Host: "host_1", Reason: "r"})
					if err != nil {
						t.Fatal(err)
					}
				}
				s.pause(within + watchdog)
				if silence := m.silence(); silence < watchdog {
					t.Errorf("%s after the loop was stuck the daemon is said to live, %s ago", within+watchdog, silence)
				}
				s.pause(time.Hour)
				if silence := m.silence(); silence < time.Hour {
					t.Errorf("it was said to live again, %s ago", silence)
				}
			})
		})
	}
}

// A loop cannot be wedged by everybody, anywhere, or by a wrong name.
func TestLoopIsWedgedByOperatorsAlone(t *testing.T) {
	watched(t, Plan{}, func(s *site, m *manager) {
		s.pause(time.Minute)
		a := s.hosts[0].running().agent
		for _, c := range []struct {
			operator bool
			loop     string
			want     error
		}{{false, "take", control.ErrForbidden}, {true, "accept", control.ErrBadRequest}} {
			caller := control.Caller{User: "ada", Operator: c.operator, Via: control.ViaSocket}
			_, err := a.Simulate(context.Background(), caller, control.SimulateArgs{Action: control.SimulateWedge, Host: "host_1", Loop: c.loop})
			if !errors.Is(err, c.want) {
				t.Errorf("%+v: %v", c, err)
			}
		}
		s.pause(time.Hour)
		if _, gap := m.heard(); gap >= watchdog {
			t.Errorf("silent for %s", gap)
		}
	})
}
