package runner_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
)

func openJournal(t *testing.T, state string) *runner.Journal {
	t.Helper()
	j, err := runner.OpenJournal(state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() }) // closing twice is allowed
	return j
}

func intent() runner.Intent {
	return runner.Intent{JobID: job.NewID(), Attempt: 1, Command: []string{"true"}, Spec: []byte(`{"a":1}`)}
}

func begin(t *testing.T, j *runner.Journal) *runner.Attempt {
	t.Helper()
	a, err := j.Begin(intent())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestJournal(t *testing.T) {
	t.Run("OneDaemonPerStateDirectory", func(t *testing.T) {
		state := t.TempDir()
		j := openJournal(t, state)
		if _, err := runner.OpenJournal(state); !errors.Is(err, runner.ErrLocked) {
			t.Errorf("second open: %v, want ErrLocked", err)
		}
		must(t, j.Close())
		openJournal(t, state)
	})
	t.Run("AttemptReadsBackAfterReopen", func(t *testing.T) {
		state := t.TempDir()
		j := openJournal(t, state)
		in := intent()
		in.Env, in.Devices, in.TimeLimit = map[string]string{"A": "ä\n"}, []string{"GPU-1"}, time.Hour
		in.ClaimedAt = time.Now().UTC().Round(0)
		in.NUMA = &runner.NUMA{Nodes: []int{1, 3}, Strict: true} // an older shim may pass it over
		_, err := j.Begin(in)
		must(t, err)
		must(t, j.Close())
		list, err := openJournal(t, state).List()
		must(t, err)
		if len(list) != 1 {
			t.Fatalf("the journal has %d attempts, want 1", len(list))
		}
		got := list[0].Intent()
		if got.Env["A"] != "ä\n" || got.Devices[0] != "GPU-1" || got.TimeLimit != time.Hour || string(got.Spec) != `{"a":1}` ||
			!got.ClaimedAt.Equal(in.ClaimedAt) || got.Schema != runner.SchemaLeast || got.LeaseLoss != runner.LeaseFreeze ||
			got.NUMA == nil || len(got.NUMA.Nodes) != 2 || !got.NUMA.Strict {
			t.Errorf("got %+v", got)
		}
		for name, there := range map[string]func() bool{
			"start":   func() bool { _, ok, err := list[0].Started(); return ok || err != nil },
			"exit":    func() bool { _, ok, err := list[0].Exit(); return ok || err != nil },
			"revoked": func() bool { _, ok, err := list[0].Revoked(); return ok || err != nil },
			"stop":    func() bool { _, ok, err := list[0].StopRequest(); return ok || err != nil },
			"verdict": func() bool { _, ok, err := list[0].Verdict(); return ok || err != nil },
		} {
			if there() {
				t.Errorf("a fresh attempt has a %s", name)
			}
		}
	})
	t.Run("AttemptBeginsOnce", func(t *testing.T) {
		j := openJournal(t, t.TempDir())
		a := begin(t, j)
		must(t, a.MarkCommitted("c"))
		if _, err := j.Begin(*a.Intent()); !errors.Is(err, runner.ErrExists) {
			t.Errorf("got %v, want ErrExists", err)
		}
		if v, ok, err := a.Verdict(); err != nil || !ok || !v.Committed() {
			t.Errorf("the first attempt's record was touched: %+v, %v, %v", v, ok, err)
		}
		list, err := j.List()
		if len(list) != 1 || err != nil {
			t.Errorf("the journal has %d attempts, %v", len(list), err)
		}
	})
	t.Run("UnfinishedBeginIsForgotten", func(t *testing.T) {
		state := t.TempDir()
		j := openJournal(t, state)
		half := filepath.Join(state, "attempts", ".new-"+string(job.NewID())+".1")
		must(t, os.Mkdir(half, 0o700))
		if list, err := j.List(); len(list) != 0 || err != nil {
			t.Errorf("the journal has %v, %v", list, err)
		}
		must(t, j.Close())
		openJournal(t, state)
		if _, err := os.Stat(half); err == nil {
			t.Error("it is still there")
		}
	})
	t.Run("RemovedAttemptIsNotFound", func(t *testing.T) {
		j := openJournal(t, t.TempDir())
		a := begin(t, j)
		must(t, a.Remove())
		must(t, a.Remove())
		if _, err := j.Get(a.Key()); !errors.Is(err, runner.ErrNotFound) {
			t.Errorf("Get: %v, want ErrNotFound", err)
		}
		if _, _, err := a.Exit(); !errors.Is(err, runner.ErrNotFound) {
			t.Errorf("Exit: %v, want ErrNotFound", err)
		}
	})
}

func TestBeginRefusesWhatNoShimCanRun(t *testing.T) {
	j := openJournal(t, t.TempDir())
	for name, spoil := range map[string]func(*runner.Intent){
		"no job ID":         func(in *runner.Intent) { in.JobID = "../../etc" },
		"attempt 0":         func(in *runner.Intent) { in.Attempt = 0 },
		"no command":        func(in *runner.Intent) { in.Command = nil },
		"empty program":     func(in *runner.Intent) { in.Command = []string{""} },
		"zero byte":         func(in *runner.Intent) { in.Command = []string{"a\x00b"} },
		"variable with =":   func(in *runner.Intent) { in.Env = map[string]string{"A=B": "c"} },
		"empty variable":    func(in *runner.Intent) { in.Env = map[string]string{"": "c"} },
		"relative dir":      func(in *runner.Intent) { in.Dir = "work" },
		"unknown LeaseLoss": func(in *runner.Intent) { in.LeaseLoss = "pause" },
		"bound to no node":  func(in *runner.Intent) { in.NUMA = &runner.NUMA{} },
		"node below 0":      func(in *runner.Intent) { in.NUMA = &runner.NUMA{Nodes: []int{0, -1}} },
		"node out of range": func(in *runner.Intent) { in.NUMA = &runner.NUMA{Nodes: []int{runner.NUMANodesMax}} },
		"spec is no JSON":   func(in *runner.Intent) { in.Spec = []byte("{") },
	} {
		in := intent()
		spoil(&in)
		if a, err := j.Begin(in); err == nil {
			t.Errorf("%s: begun as %s", name, a.Key())
		}
	}
	if list, err := j.List(); len(list) != 0 || err != nil {
		t.Errorf("the journal has %v, %v", list, err)
	}
}

func TestDamagedAttemptIsSetAsideAndTold(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"empty intent":     func(dir string) error { return os.WriteFile(filepath.Join(dir, "intent"), nil, 0o600) },
		"intent cut short": func(dir string) error { return os.Truncate(filepath.Join(dir, "intent"), 60) },
		"flipped bit":      flipBit,
		"no intent":        func(dir string) error { return os.Remove(filepath.Join(dir, "intent")) },
		"no lock":          func(dir string) error { return os.Remove(filepath.Join(dir, "lock")) },
		"no record":        func(dir string) error { return os.Remove(filepath.Join(dir, "record")) },
		"record cut short": func(dir string) error { return os.Truncate(filepath.Join(dir, "record"), 4096) },
		"another's name": func(dir string) error {
			return os.Rename(dir, filepath.Join(filepath.Dir(dir), runner.Key{JobID: job.NewID(), Attempt: 1}.String()))
		},
		"no name": func(dir string) error { return os.Rename(dir, filepath.Join(filepath.Dir(dir), "x")) },
	} {
		t.Run(name, func(t *testing.T) {
			state := t.TempDir()
			j := openJournal(t, state)
			good, bad := begin(t, j), begin(t, j)
			must(t, damage(bad.Dir()))
			list, err := j.List()
			var report *runner.DamagedError
			if !errors.As(err, &report) || !errors.Is(err, runner.ErrDamaged) {
				t.Fatalf("List: %v, want a DamagedError", err)
			}
			if len(list) != 1 || list[0].Key() != good.Key() {
				t.Errorf("List has %v, want the good one alone", list)
			}
			if files, err := os.ReadDir(report.MovedTo); err != nil || len(files) == 0 || !strings.HasPrefix(report.MovedTo, filepath.Join(state, "attempts.damaged")) {
				t.Errorf("%d files in %q, %v", len(files), report.MovedTo, err)
			}
			if list, err := j.List(); len(list) != 1 || err != nil {
				t.Errorf("the second List: %v, %v", list, err)
			}
		})
	}
	t.Run("NotBeneathALivingShim", func(t *testing.T) {
		j := openJournal(t, t.TempDir())
		a := begin(t, j)
		lock, err := a.Lock()
		must(t, err)
		defer lock.Close()
		must(t, flipBit(a.Dir()))
		_, err = j.List()
		var report *runner.DamagedError
		if !errors.As(err, &report) || report.MovedTo != "" || !errors.Is(err, runner.ErrBusy) {
			t.Errorf("List: %v; want it told and left in place", err)
		}
	})
}

func flipBit(dir string) error {
	path := filepath.Join(dir, "intent")
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 1
	return os.WriteFile(path, data, 0o600)
}

// TestTornRecordReadsAsAbsent: a crash in the middle of a write leaves a slot
// whose writer told nobody; the neighbours stay readable.
func TestTornRecordReadsAsAbsent(t *testing.T) {
	j := openJournal(t, t.TempDir())
	a := begin(t, j)
	must(t, a.WriteStarted(runner.Started{PID: 1, Time: time.Now()}))
	must(t, a.WriteExit(runner.Exit{Code: 3, Reason: strings.Repeat("reason ", 50)}))
	path := filepath.Join(a.Dir(), "record")
	data, err := os.ReadFile(path)
	must(t, err)
	for _, keep := range []int{1, 10, 30, 100, 200} {
		torn := append([]byte(nil), data...)
		exit := torn[4*4096 : 5*4096]
		clear(exit[keep:])
		must(t, os.WriteFile(path, torn, 0o600))
		if e, ok, err := a.Exit(); ok || err != nil {
			t.Errorf("with %d bytes of it: %+v, %v, %v", keep, e, ok, err)
		}
		if s, ok, err := a.Started(); !ok || err != nil || s.PID != 1 {
			t.Errorf("with %d bytes of its neighbour: %+v, %v, %v", keep, s, ok, err)
		}
	}
}

func TestRecordTakesTheLongestTexts(t *testing.T) {
	j := openJournal(t, t.TempDir())
	a := begin(t, j)
	for _, text := range []string{strings.Repeat(`"`, 5000), strings.Repeat("\x00\xff", 5000), strings.Repeat("ä\u2028", 5000), strings.Repeat("<&>", 5000)} {
		must(t, a.RequestStop(runner.Stop{Reason: runner.StopKilled, Detail: text}))
		must(t, a.WriteStopping(runner.Stop{Reason: runner.StopKilled, Detail: text}))
		must(t, a.WriteExit(runner.Exit{Reason: text, StopDetail: text}))
		must(t, a.MarkDiscarded(text))
		if e, ok, err := a.Exit(); !ok || err != nil || len(e.Reason) == 0 || len(e.Reason) > 1000 {
			t.Errorf("%q: %v, %v, %v", text[:6], e, ok, err)
		}
	}
}

func TestSweepKeepsWhatIsNotSettled(t *testing.T) {
	j := openJournal(t, t.TempDir())
	open, old, young, revoked := begin(t, j), begin(t, j), begin(t, j), begin(t, j)
	must(t, os.WriteFile(old.LogPath(), make([]byte, 100_000), 0o600))
	must(t, os.WriteFile(young.LogPath(), make([]byte, 100_000), 0o600))
	must(t, os.WriteFile(open.LogPath(), make([]byte, 100_000), 0o600))
	must(t, old.MarkCommitted("c1"))
	must(t, young.MarkDiscarded("fenced"))
	must(t, revoked.Revoke())

	gone := func(a *runner.Attempt) bool { _, err := j.Get(a.Key()); return errors.Is(err, runner.ErrNotFound) }
	if n, err := j.Sweep(time.Hour, 0); n != 0 || err != nil {
		t.Errorf("nothing is due: removed %d, %v", n, err)
	}
	if n, err := j.Sweep(time.Hour, 200_000); n != 1 || err != nil || !gone(old) {
		t.Errorf("over the bound the oldest goes: removed %d, %v", n, err)
	}
	if n, err := j.Sweep(0, 0); n != 2 || err != nil || !gone(young) || !gone(revoked) || gone(open) {
		t.Errorf("all settled ones are due: removed %d, %v", n, err)
	}
}
