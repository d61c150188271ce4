package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gpuqd/daemon/job"

	"go.uber.org/goleak"
)

// peerEnv makes the test binary a client that asks once and prints what it
// heard, for tests that need a peer of another user.
const peerEnv = "CONTROL_TEST_PEER"

func TestMain(m *testing.M) {
	if path := os.Getenv(peerEnv); path != "" {
		os.Exit(bePeer(path))
	}
	goleak.VerifyTestMain(m)
}

// bePeer asks for a list at the socket and prints the outcome.
func bePeer(path string) int {
	reply, err := NewClient(SocketWay(path)).List(context.Background(), ListArgs{})
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{"reply": reply, "err": fmt.Sprint(err)}); err != nil {
		return 1
	}
	return 0
}

// recorder is a daemon that keeps jobs in memory and remembers who asked. It
// tests the protocol; what a daemon does with a job is tested where it is done.
type recorder struct {
	mu      sync.Mutex
	jobs    map[job.ID]*job.Job
	callers []Caller
	submits int

	err   error                           // every method's answer, if set
	gate  func(ctx context.Context) error // every method passes it first, if set
	after func(j *job.Job)                // called with each job that is taken in, under mu
}

var _ Handler = (*recorder)(nil)

func newRecorder() *recorder { return &recorder{jobs: map[job.ID]*job.Job{}} }

func (r *recorder) enter(ctx context.Context, c Caller) error {
	r.mu.Lock()
	r.callers = append(r.callers, c)
	gate, err := r.gate, r.err
	r.mu.Unlock()
	if gate != nil {
		if err := gate(ctx); err != nil {
			return err
		}
	}
	return err
}

func (r *recorder) lastCaller() Caller {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.callers[len(r.callers)-1]
}

func (r *recorder) Submit(ctx context.Context, c Caller, body []byte) (SubmitReply, error) {
	if err := r.enter(ctx, c); err != nil {
		return SubmitReply{}, err
	}
	s, err := job.ParseSubmission(body, c.User)
	if err != nil {
		return SubmitReply{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.submits++
	if old := r.jobs[s.ID]; old != nil {
		return SubmitReply{ID: s.ID, State: old.State}, nil
	}
	j := job.New(s.ID, c.User, s.Spec, job.At(time.Now()))
	r.jobs[s.ID] = j
	if r.after != nil {
		r.after(j)
	}
	return SubmitReply{ID: s.ID, Created: true, State: job.Queued}, nil
}

func (r *recorder) List(ctx context.Context, c Caller, a ListArgs) (ListReply, error) {
	if err := r.enter(ctx, c); err != nil {
		return ListReply{}, err
	}
	// The name carries the arguments and the caller back to the test.
	return ListReply{Jobs: []JobRow{{Name: fmt.Sprintf("%s %s %d", a.States, a.User, a.Limit), Submitter: c.User, State: job.Queued}}}, nil
}

func (r *recorder) Show(ctx context.Context, c Caller, id job.ID) (*job.Job, error) {
	if err := r.enter(ctx, c); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if j := r.jobs[id]; j != nil {
		return j, nil
	}
	return nil, fmt.Errorf("show %s: %w", id, ErrNotFound)
}

func (r *recorder) States(ctx context.Context, c Caller, ids []job.ID) ([]JobRow, error) {
	if err := r.enter(ctx, c); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var rows []JobRow
	for _, id := range ids {
		if j := r.jobs[id]; j != nil {
			rows = append([]JobRow{RowOf(j)}, rows...) // any order is allowed
		}
	}
	return rows, nil
}

func (r *recorder) Logs(ctx context.Context, c Caller, a LogsArgs) (LogsReply, error) {
	return LogsReply{Attempt: a.Attempt, Offset: a.Offset, Data: []byte{0, 0xff, '\n'}, NextOffset: a.Offset + int64(a.Max)}, r.enter(ctx, c)
}

func (r *recorder) Kill(ctx context.Context, c Caller, a KillArgs) (KillReply, error) {
	return KillReply{State: job.Running, Flagged: a.Reason != ""}, r.enter(ctx, c)
}

func (r *recorder) Hosts(ctx context.Context, c Caller) (HostsReply, error) {
	return HostsReply{Hosts: []HostRow{{Name: "gpu1", Live: true}}}, r.enter(ctx, c)
}

func (r *recorder) Devices(ctx context.Context, c Caller, a DevicesArgs) (DevicesReply, error) {
	return DevicesReply{Devices: []DeviceRow{{Host: a.Host, UUID: "GPU-1"}}}, r.enter(ctx, c)
}

func (r *recorder) Version(ctx context.Context, c Caller) (VersionReply, error) {
	return VersionReply{Host: "gpu1", Ledger: "sqlite"}, r.enter(ctx, c)
}

func (r *recorder) Status(ctx context.Context, c Caller) (StatusReply, error) {
	return StatusReply{Host: "gpu1", Ready: true}, r.enter(ctx, c)
}

// socketPath returns a path short enough for a socket's address.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gpuq")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "s")
}

// serve starts a server on a socket of its own and stops it with the test.
func serve(t *testing.T, h Handler, change func(*Server)) *Server {
	t.Helper()
	s := NewServer(h, Options{Socket: socketPath(t)})
	if change != nil {
		change(s)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// clientOf returns a client that asks at these sockets and gives up soon.
func clientOf(paths ...string) *Client {
	var ways []Way
	for _, p := range paths {
		ways = append(ways, SocketWay(p))
	}
	c := NewClient(ways...)
	c.Patience = 0
	return c
}

func submissionOf(command ...string) job.Submission {
	s := job.Submission{Schema: job.Schema, ID: job.NewID(), Spec: job.DefaultSpec()}
	s.Spec.Command = command
	return s
}

func wantErr(t *testing.T, err, want error) *Error {
	t.Helper()
	var e *Error
	if !errors.Is(err, want) || !errors.As(err, &e) {
		t.Fatalf("got %v, want an *Error that is %q", err, want)
	}
	return e
}
