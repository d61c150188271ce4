package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/version"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// mainEnv makes the test binary gpuqctl itself, for tests with real signals.
const mainEnv = "GPUQCTL_TEST_MAIN"

func TestMain(m *testing.M) {
	time.Local = time.UTC
	version.Version, version.Commit, version.Date = "1.2.3", "0123456789abcdef", "2026-11-22T12:00:00Z"
	if os.Getenv(mainEnv) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// now is the time on every test's clock.
var now = time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)

// Jobs that tests speak of.
const (
	idA = job.ID("0192f0c1-6d2e-7000-8000-00c0ffee000a")
	idB = job.ID("0192f0c1-6d2e-7000-8000-00c0ffee000b")
	idC = job.ID("0192f0c1-6d2e-7000-8000-00c0ffee000c")
	idD = job.ID("0192f0c1-6d2e-7000-8000-00c0ffee000d")
)

// daemon is the far end of gpuqctl: it answers over a real socket with what a
// test has put into it.
type daemon struct {
	path string

	mu       sync.Mutex
	jobs     map[job.ID]control.JobRow
	docs     map[job.ID]*job.Job
	hosts    []control.HostRow
	devices  control.DevicesReply
	specs    []job.Spec // as they came in
	refuse   func(job.Spec) error
	onSubmit func(control.JobRow) control.JobRow // what becomes of a job once it is in
	onStates func()
	logs     func(control.LogsArgs) (control.LogsReply, error)
	kills    []control.KillArgs
	lists    []control.ListArgs
	more     bool
	err      error // every answer, if set
	inFlight int
	peak     int // most submissions at once

	operated // what the verbs of everyday operation are answered with
}

var _ control.Handler = (*daemon)(nil)

func startDaemon(t *testing.T) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "gpuq")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{path: filepath.Join(dir, "s"), jobs: map[job.ID]control.JobRow{}, docs: map[job.ID]*job.Job{}}
	s := control.NewServer(d, control.Options{Socket: d.path})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *daemon) put(rows ...control.JobRow) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range rows {
		d.jobs[r.ID] = r
	}
}

func (d *daemon) Submit(_ context.Context, c control.Caller, body []byte) (control.SubmitReply, error) {
	s, err := job.ParseSubmission(body, c.User)
	if err != nil {
		return control.SubmitReply{}, err
	}
	d.mu.Lock()
	d.inFlight++
	d.peak = max(d.peak, d.inFlight)
	d.mu.Unlock()
	runtime.Gosched()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inFlight--
	if d.err != nil {
		return control.SubmitReply{}, d.err
	}
	if d.refuse != nil {
		if err := d.refuse(s.Spec); err != nil {
			return control.SubmitReply{}, err
		}
	}
	if old, ok := d.jobs[s.ID]; ok {
		return control.SubmitReply{ID: s.ID, State: old.State}, nil
	}
	d.specs = append(d.specs, s.Spec)
	row := control.RowOf(job.New(s.ID, c.User, s.Spec, job.At(now)))
	if d.onSubmit != nil {
		row = d.onSubmit(row)
	}
	d.jobs[s.ID] = row
	return control.SubmitReply{ID: s.ID, Created: true, State: job.Queued}, nil
}

func (d *daemon) List(_ context.Context, _ control.Caller, a control.ListArgs) (control.ListReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lists = append(d.lists, a)
	reply := control.ListReply{More: d.more}
	for _, row := range d.jobs {
		if len(a.States) == 0 || slices.Contains(a.States, row.State) {
			reply.Jobs = append(reply.Jobs, row)
		}
	}
	slices.SortFunc(reply.Jobs, func(a, b control.JobRow) int { return strings.Compare(string(b.ID), string(a.ID)) })
	return reply, d.err
}

func (d *daemon) Show(_ context.Context, _ control.Caller, id job.ID) (*job.Job, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.onShow != nil {
		d.onShow()
	}
	if d.docs[id] == nil && d.err == nil {
		return nil, control.Errorf(control.CodeNotFound, "gpuqctl list shows the jobs there are", "there is no job %s", id)
	}
	return d.docs[id], d.err
}

func (d *daemon) States(_ context.Context, _ control.Caller, ids []job.ID) ([]control.JobRow, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.onStates != nil {
		d.onStates()
	}
	var rows []control.JobRow
	for _, id := range ids {
		if row, ok := d.jobs[id]; ok {
			rows = append(rows, row)
		}
	}
	return rows, d.err
}

func (d *daemon) Logs(_ context.Context, _ control.Caller, a control.LogsArgs) (control.LogsReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return control.LogsReply{}, d.err
	}
	return d.logs(a)
}

func (d *daemon) Kill(_ context.Context, _ control.Caller, a control.KillArgs) (control.KillReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kills = append(d.kills, a)
	row, ok := d.jobs[a.ID]
	switch {
	case d.err != nil:
		return control.KillReply{}, d.err
	case !ok:
		return control.KillReply{}, fmt.Errorf("kill: %w", control.ErrNotFound)
	case row.State.Held():
		return control.KillReply{State: row.State, Flagged: true}, nil
	case row.State.Terminal():
		return control.KillReply{State: row.State}, nil
	}
	row.State = job.Killed
	d.jobs[a.ID] = row
	return control.KillReply{State: job.Killed}, nil
}

func (d *daemon) Hosts(context.Context, control.Caller) (control.HostsReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.onHosts != nil {
		d.onHosts()
	}
	return control.HostsReply{Hosts: slices.Clone(d.hosts)}, d.err
}

func (d *daemon) Devices(_ context.Context, _ control.Caller, a control.DevicesArgs) (control.DevicesReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	reply := d.devices
	reply.Devices = slices.DeleteFunc(slices.Clone(reply.Devices), func(r control.DeviceRow) bool { return a.Host != "" && r.Host != a.Host })
	return reply, d.err
}

func (d *daemon) Version(context.Context, control.Caller) (control.VersionReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return control.VersionReply{
		Host: "gpu1", Version: "1.2.2", Commit: "fedcba9876543210", Ledger: "sqlite",
		LedgerID: "4f1c8e60-0000-4000-8000-000000000001", Broker: "connected",
	}, d.err
}

func (d *daemon) Status(context.Context, control.Caller) (control.StatusReply, error) {
	return control.StatusReply{Host: "gpu1"}, nil
}

// safeBuffer is a buffer that the program may write to from several goroutines,
// as it may to a file.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// run is one run of gpuqctl in a test.
type run struct {
	out, err safeBuffer
	in       io.Reader
	width    int
	terminal bool // stdout and stdin are one
	patience time.Duration
	code     int
}

func (r *run) exec(ctx context.Context, d *daemon, args ...string) *run {
	a := &app{
		in: r.in, out: &r.out, err: &r.err, now: func() time.Time { return now },
		width: r.width, terminal: r.terminal, asks: r.terminal, patience: r.patience,
	}
	if d != nil {
		args = append([]string{"--socket", d.path, "--timeout", "0s"}, args...)
	}
	r.code = a.run(ctx, args)
	return r
}

func gpuqctl(t *testing.T, d *daemon, args ...string) *run {
	t.Helper()
	return new(run).exec(t.Context(), d, args...)
}

// anything is what a stream may contain where a test looks at the other.
const anything = "\x00"

// want checks a run's code and what its streams contain; "" wants silence.
func (r *run) want(t *testing.T, code int, out, err string) {
	t.Helper()
	bad := func(got, want string) bool {
		return want != anything && (want == "" && got != "" || !strings.Contains(got, want))
	}
	if r.code != code || bad(r.out.String(), out) || bad(r.err.String(), err) {
		t.Errorf("exit %d\nstdout %q\nstderr %q\nwant %d, %q, %q", r.code, r.out.String(), r.err.String(), code, out, err)
	}
}

// golden compares a whole run with a file.
func golden(t *testing.T, name string, r *run) {
	t.Helper()
	got := fmt.Sprintf("%s--- stderr\n%s--- exit code %d\n", r.out.String(), r.err.String(), r.code)
	got = strings.ReplaceAll(got, runtime.Version(), "go0.0.0")
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: run go test ./ctl -update, and look at what it writes", err)
	}
	if got != string(want) {
		t.Errorf("the output is not that of %s: run go test ./ctl -update, and look at the difference\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func exitCodeOf(n int) *int { return &n }
