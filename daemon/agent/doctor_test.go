package agent

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/config"
	"gpuqd/daemon/control"
	"gpuqd/daemon/dedup"
	"gpuqd/daemon/device"
	"gpuqd/daemon/health"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/ledger/sqlite"
	"gpuqd/daemon/runner"
	"gpuqd/test/services"
	"gpuqd/test/wait"
)

// aheadClock is the system's clock with its wall clock set wrong.
type aheadClock struct {
	SystemClock
	by atomic.Int64 // nanoseconds
}

func (c *aheadClock) Now() time.Time {
	return c.SystemClock.Now().Add(time.Duration(c.by.Load()))
}

// clinic is a real RabbitMQ and Redis, and a ledger, for agents to be looked at.
type clinic struct {
	rabbit *services.RabbitCluster
	redis  *services.Redis
	ledger string
}

const clinicPassword = "not-to-be-told"

func openClinic(t *testing.T) *clinic {
	t.Helper()
	c := &clinic{ledger: filepath.Join(t.TempDir(), "ledger.db")}
	var err error
	if c.rabbit, err = services.NewRabbitCluster(t.TempDir(), 1); err != nil {
		t.Fatal(err)
	}
	if c.redis, err = services.NewRedis(services.RedisOptions{Dir: t.TempDir(), Password: clinicPassword}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.rabbit.Kill(); c.redis.Kill() })
	may := broker.HostPermissions()
	if err := c.rabbit.AddUser(t.Context(), "gpuqd", clinicPassword, may.Configure, may.Write, may.Read); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := errors.Join(c.redis.Start(ctx), c.rabbit.Start(ctx)); err != nil {
		t.Fatal(err)
	}
	return c
}

// patient is one agent over real parts.
type patient struct {
	*Agent
	clock *aheadClock
	stop  func() // ends its daemon; its session stays as it is
}

// admit makes an agent; run starts it, too.
func (c *clinic) admit(t *testing.T, name, ledgerPath string, run bool) *patient {
	t.Helper()
	cfg := config.Default()
	cfg.Host.Name, cfg.Host.StateDir = name, t.TempDir()
	cfg.Control.Socket = filepath.Join(t.TempDir(), "s")
	cfg.Lease.TTL, cfg.Lease.Renew = job.Duration(20*time.Second), job.Duration(time.Second)
	cfg.Ledger.Path, cfg.Ledger.Timeout = ledgerPath, job.Duration(2*time.Second)
	cfg.Device.Kind, cfg.Device.SimulatedCount = config.DeviceSim, 2
	cfg.Runner.Shim = "/bin/true" // nothing is started here
	cfg.Broker.User = "gpuqd"
	journal, err := runner.OpenJournal(cfg.Host.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	starter, err := runner.NewProcessStarter(cfg.Runner.Shim)
	if err != nil {
		t.Fatal(err)
	}
	client := broker.New(broker.Config{
		URLs: []string{fmt.Sprintf("amqp://127.0.0.1:%d/", c.rabbit.Nodes[0].Port)}, User: "gpuqd", Password: clinicPassword, Host: name,
	})
	done := dedup.New(dedup.Config{Addrs: []string{c.redis.Addr}, Password: clinicPassword, Timeout: time.Second})
	devices := device.New(name, &device.Simulated{Host: name, Count: 2, Model: "Simulated GPU", MemoryBytes: 1 << 30}, nil)
	p := &patient{clock: &aheadClock{}, stop: func() {}}
	p.Agent = New(Options{
		Config: cfg, Identity: Identity{InstallID: name, MachineID: "m", BootID: "b"}, Version: "1.0",
		Broker: client, Done: done, Devices: devices, Runner: Disk{Journal: journal, Starter: starter}, Clock: p.clock,
		OpenLedger: func(ctx context.Context) (*ledger.Ledger, error) {
			store, err := sqlite.Open(ctx, sqlite.Options{Path: ledgerPath, BusyTimeout: cfg.Ledger.Timeout.Std()})
			if err != nil {
				return nil, err
			}
			return ledger.Open(ctx, ledger.Observed(store, func(string, string, time.Duration) {}))
		},
	})
	end := func() error { done.Close(); return errors.Join(starter.Close(), journal.Close()) }
	if !run {
		t.Cleanup(func() {
			if err := end(); err != nil {
				t.Error(err)
			}
		})
		return p
	}
	ctx, cancel := context.WithCancel(context.Background())
	below, endBelow := context.WithCancel(context.Background())
	parts := make(chan error, 2)
	go func() { parts <- client.Run(below) }()
	go func() { parts <- devices.Run(below) }()
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	stopped := false
	p.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		err := <-ended
		endBelow()
		if err := errors.Join(err, <-parts, <-parts, end()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Cleanup(p.stop)
	wait.For(t, time.Minute, func() error {
		if !p.ready.Load() {
			return errors.New(name + " is not ready")
		}
		return nil
	})
	return p
}

// examineWith asks for the findings, and checks what holds for all of them.
func (p *patient) examineWith(t *testing.T, caller control.Caller, args control.DoctorArgs) []control.Finding {
	t.Helper()
	reply, err := p.Doctor(t.Context(), caller, args)
	if err != nil {
		t.Fatalf("an error instead of a report: %v", err)
	}
	for _, f := range reply.Findings {
		if f.Saw == "" || (f.Advice == "") != (f.State == control.FindingOK) || f.Host == "" || !slices.Contains(partOrder, f.Part) {
			t.Errorf("%+v", f)
		}
		if strings.Contains(f.Saw+f.Advice, clinicPassword) {
			t.Errorf("a password is in %+v", f)
		}
	}
	return reply.Findings
}

var aUser = control.Caller{User: "ada", Via: control.ViaSocket}

func (p *patient) examineAll(t *testing.T) []control.Finding {
	t.Helper()
	return p.examineWith(t, aUser, control.DoctorArgs{})
}

// saw reports whether there is a finding of that kind whose text has the words.
func saw(findings []control.Finding, part, check string, state control.FindingState, words ...string) error {
	for _, f := range findings {
		if f.Part == part && f.Check == check && f.State == state &&
			!slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(f.Saw+" → "+f.Advice, w) }) {
			return nil
		}
	}
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "  %-7s %s: %s (%s): %s\n", f.State, f.Part, f.Check, f.Host, f.Saw)
	}
	return fmt.Errorf("no finding %s: %s is %s with %q; got:\n%s", part, check, state, words, b.String())
}

func wantFinding(t *testing.T, findings []control.Finding, part, check string, state control.FindingState, words ...string) {
	t.Helper()
	if err := saw(findings, part, check, state, words...); err != nil {
		t.Error(err)
	}
}

// One clinic for all faults, since its start costs seconds; each is undone
// before the next, and those that cannot be come last.
func TestDoctor(t *testing.T) {
	c := openClinic(t)
	a, b := c.admit(t, "a", c.ledger, true), c.admit(t, "b", c.ledger, true)

	t.Run("HealthyHostsHaveNoFailure", func(t *testing.T) {
		wait.For(t, time.Minute, func() error {
			findings := a.examineAll(t)
			for _, f := range findings {
				if f.State == control.FindingFail {
					return fmt.Errorf("%+v", f)
				}
			}
			return errors.Join(
				saw(findings, partClock, checkOffset, control.FindingOK, "the clock of b is", "that of a"),
				saw(findings, partClock, checkRenewals, control.FindingOK, "1 other live hosts"),
				saw(findings, partLedger, checkSameOne, control.FindingOK, "2 daemons answer"),
				saw(findings, partHost, checkVersion, control.FindingOK, "1.0 on a, b"),
				saw(findings, partHost, checkHosts, control.FindingOK, "2 of 2"),
				saw(findings, partHost, checkSession, control.FindingOK, "left of a lease of 20.0 s"),
				saw(findings, partDevice, checkHelper, control.FindingOK, "simulated"),
				saw(findings, partDevice, checkDevices, control.FindingOK, "2 simulated devices: 2 free"),
				saw(findings, partDisk, checkSync, control.FindingOK, "median of 10"),
				saw(findings, partLedger, "file", control.FindingOK, "journal_mode wal, synchronous full"),
				saw(findings, partLedger, "compare-and-set", control.FindingOK, "one won"),
				saw(findings, partRedis, "server", control.FindingOK, "answers in"),
				saw(findings, partBroker, "queues", control.FindingOK, "15 quorum queues"),
				saw(findings, partBroker, broker.CheckConsumerTimeout, control.FindingUnknown, "broker.rabbitmqctl", "by hand"),
			)
		})
	})
	t.Run("EveryHostLooksAndTheSharedIsLookedAtOnce", func(t *testing.T) {
		count := map[string]int{}
		for _, f := range a.examineAll(t) {
			count[f.Host+" "+f.Part+" "+f.Check]++
		}
		for key, want := range map[string]int{
			"b disk room": 1, "b host session": 1, "b broker node": 1, "b ledger latency": 1,
			"a broker queues": 1, "b broker queues": 0, "b ledger file": 0, "b broker alarms": 0,
		} {
			if count[key] != want {
				t.Errorf("%d findings of %s, want %d", count[key], key, want)
			}
		}
		if left, err := os.ReadDir(filepath.Join(a.cfg.Host.StateDir, "attempts")); err != nil || len(left) > 0 {
			t.Errorf("the look has left %v behind (%v)", left, err)
		}
	})
	t.Run("OneHostAloneIsAskedWithLocal", func(t *testing.T) {
		for _, f := range a.examineWith(t, aUser, control.DoctorArgs{Local: true}) {
			if f.Host != "a" || f.Check == checkOffset {
				t.Errorf("%+v", f)
			}
		}
	})
	t.Run("ClockThatIsAheadIsMeasured", func(t *testing.T) {
		b.clock.by.Store(int64(5 * time.Second))
		wantFinding(t, a.examineAll(t), partClock, checkOffset, control.FindingWarn, "the clock of b is 5.0 s ahead of that of a", "chrony")
		b.clock.by.Store(int64(-40 * time.Second))
		wantFinding(t, a.examineAll(t), partClock, checkOffset, control.FindingFail, "the clock of b is 40.0 s behind that of a", "take.slack")
		b.clock.by.Store(int64(40 * time.Second))
		wait.For(t, time.Minute, func() error { // with its next renewal
			return saw(a.examineAll(t), partClock, checkRenewals, control.FindingFail, "b renewed its lease", "in this host's future")
		})
		b.clock.by.Store(0)
		wait.For(t, time.Minute, func() error {
			return saw(a.examineAll(t), partClock, checkRenewals, control.FindingOK)
		})
	})
	t.Run("HostWithAnotherLedgerIsFound", func(t *testing.T) {
		stray := c.admit(t, "stray", filepath.Join(t.TempDir(), "other.db"), true)
		wait.For(t, time.Minute, func() error { // when the broker's turn comes to it
			return saw(a.examineAll(t), partLedger, checkSameOne, control.FindingFail, "2 different ledgers", ": stray", ": a, b")
		})
		stray.stop()
	})
	t.Run("RedisThatIsDownIsAFailureAndNoMore", func(t *testing.T) {
		c.redis.Kill()
		wantFinding(t, a.examineAll(t), partRedis, "server", control.FindingFail, c.redis.Addr, "start Redis", "no promise suffers")
		if err := c.redis.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("LedgerThatDoesNotAnswerIsAFailureAndNoMore", func(t *testing.T) {
		lock, err := sql.Open("sqlite", "file:"+c.ledger)
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		lock.SetMaxOpenConns(1)
		wait.For(t, time.Minute, func() error { _, err := lock.Exec("BEGIN IMMEDIATE"); return err })
		findings := a.examineWith(t, aUser, control.DoctorArgs{Local: true})
		if _, err := lock.Exec("ROLLBACK"); err != nil {
			t.Error(err)
		}
		wantFinding(t, findings, partLedger, "latency", control.FindingFail, "does not answer", "ledger.path")
		wantFinding(t, findings, partBroker, "queues", control.FindingOK)
	})
	t.Run("HostThatDoesNotAnswerIsNamed", func(t *testing.T) {
		b.stop()
		wantFinding(t, a.examineAll(t), partHost, checkAnswer, control.FindingFail, "b has a live session and does not answer", "systemctl status gpuqd")
	})
	t.Run("BrokerThatIsDownIsAFailureAndNoMore", func(t *testing.T) {
		c.rabbit.Kill()
		findings := a.examineAll(t)
		wantFinding(t, findings, partBroker, "node", control.FindingFail, "connection refused", "systemctl start rabbitmq-server")
		wantFinding(t, findings, partBroker, "nodes", control.FindingFail, "0 of 1")
		wantFinding(t, findings, partLedger, "latency", control.FindingOK)
	})
	t.Run("DaemonThatIsStillStartingSaysWhatItWaitsFor", func(t *testing.T) {
		fresh := c.admit(t, "fresh", filepath.Join(t.TempDir(), "fresh.db"), false)
		fresh.openLedger = func(context.Context) (*ledger.Ledger, error) { return nil, errors.New("no member of the set answers") }
		findings := fresh.examineAll(t)
		wantFinding(t, findings, partLedger, checkStart, control.FindingFail, "no member of the set answers")
		wantFinding(t, findings, partHost, checkSession, control.FindingFail, "start-up is not over")
		wantFinding(t, findings, partHost, checkHosts, control.FindingUnknown)
		wantFinding(t, findings, partBroker, "connections", control.FindingFail)
	})
}

// A disk that hangs must not hang the report, and a second one finds the first
// look still under way.
func TestLookThatHangsOrPanicsIsAFinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(Options{Config: config.Default(), Devices: device.New("a", &device.Simulated{}, nil)})
		release := make(chan struct{})
		hang := examination{partDisk, func(context.Context) []health.Check { <-release; return nil }}
		began := time.Now()
		got := a.bounded(t.Context(), hang, "disk", time.Minute)
		if len(got) != 1 || got[0].State != health.Fail || !strings.Contains(got[0].Saw, "1m0s") || time.Since(began) != time.Minute+doctorGrace {
			t.Errorf("after %s: %+v", time.Since(began), got)
		}
		if got = a.bounded(t.Context(), hang, "disk", time.Minute); len(got) != 1 || got[0].State != health.Unknown || got[0].Advice == "" {
			t.Errorf("the second: %+v", got)
		}
		close(release)
		synctest.Wait()
		fails := examination{partDisk, func(context.Context) []health.Check { panic("broken") }}
		if got = a.bounded(t.Context(), fails, "disk", time.Minute); len(got) != 1 || got[0].State != health.Fail || !strings.Contains(got[0].Saw, "broken") {
			t.Errorf("a panic: %+v", got)
		}
		well := examination{partDisk, func(context.Context) []health.Check { return []health.Check{health.Good("x", "y")} }}
		if got = a.bounded(t.Context(), well, "disk", time.Minute); len(got) != 1 || got[0].State != health.OK {
			t.Errorf("after the panic: %+v", got)
		}
	})
}

// Whatever the two ways take, the offset is right to within half of it.
func TestOffsetIsWithinItsBound(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, offset := range []time.Duration{0, 3 * time.Second, -90 * time.Second} {
		for _, there := range []time.Duration{0, time.Millisecond, 4 * time.Second} {
			for _, back := range []time.Duration{0, time.Millisecond, 4 * time.Second} {
				for _, work := range []time.Duration{0, 10 * time.Second} {
					received := start.Add(there).Add(offset)
					got, within := offsetOf(start, received, received.Add(work), start.Add(there+work+back))
					if (got-offset).Abs() > within || within != (there+back)/2 {
						t.Errorf("offset %s over %s and %s: %s to within %s", offset, there, back, got, within)
					}
				}
			}
		}
	}
}

// Where the kernel may not be asked, as in the unit's sandbox, timedated is.
func TestDoctorJudgesWhatTimedateSays(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		err    error
		want   health.State
	}{
		"Yes":   {"yes\n", nil, health.OK},
		"No":    {"no\n", nil, health.Warn},
		"Else":  {"maybe\n", nil, health.Unknown},
		"Error": {"yes\n", errors.New("no bus"), health.Unknown},
	} {
		if got := judgeTimedate([]byte(c.answer), c.err); got.State != c.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
