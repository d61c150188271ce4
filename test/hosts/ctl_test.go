package hosts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/test/lab"
	"gpuqd/test/wait"
)

// commandTimeout bounds one command on one host; those that wait say so.
const commandTimeout = time.Minute

// output runs a command line on a host; the test fails if it does.
func (h *host) output(t *testing.T, command string, args ...any) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	out, err := h.Output(ctx, fmt.Sprintf(command, args...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// tryCtl runs gpuqctl as root on the first host whose daemon answers.
func (s *site) tryCtl(t *testing.T, args ...string) (lab.Result, error) {
	t.Helper()
	var all error
	for _, h := range s.all() {
		ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
		r, err := h.Run(ctx, "gpuqctl "+lab.Quote(args...))
		cancel()
		if err == nil && r.Code == 0 {
			return r, nil
		}
		all = errors.Join(all, fmt.Errorf("gpuqctl %s on %s: exit code %d: %s %w", strings.Join(args, " "), h.role, r.Code, r.Stderr, err))
	}
	return lab.Result{}, all
}

// submit submits a job of the person's on a host, and returns its ID.
func (s *site) submit(t *testing.T, on *host, args ...string) job.ID {
	t.Helper()
	out := on.output(t, "%s", "cd /tmp && runuser -u "+person+" -- gpuqctl submit "+lab.Quote(args...))
	id, err := job.ParseID(out)
	if err != nil {
		t.Fatalf("gpuqctl submit printed %q: %v", out, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs[t.Name()] = append(s.jobs[t.Name()], id)
	return id
}

// endJobs kills what a test has left running.
func (s *site) endJobs(t *testing.T) {
	s.mu.Lock()
	jobs := s.jobs[t.Name()]
	delete(s.jobs, t.Name())
	s.mu.Unlock()
	if !t.Failed() {
		return // each test waits for its jobs' ends
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), commandTimeout)
	defer cancel()
	for _, id := range jobs {
		for _, h := range s.all() {
			if r, err := h.Run(ctx, "gpuqctl kill "+string(id)); err == nil && r.Code == 0 {
				break
			}
		}
	}
}

// show returns the ledger's document.
func (s *site) show(t *testing.T, id job.ID) (*job.Job, error) {
	t.Helper()
	r, err := s.tryCtl(t, "show", string(id), "--json")
	if err != nil {
		return nil, err
	}
	j := new(job.Job)
	if err := json.Unmarshal([]byte(r.Stdout), j); err != nil {
		return nil, fmt.Errorf("gpuqctl show %s printed %q: %w", id, r.Stdout, err)
	}
	return j, nil
}

// stepTimeout bounds the wait for one step of a job's life that no lease delays.
const stepTimeout = 90 * time.Second

// waitFor waits until the ledger's document is as wanted; what says what that is.
func (s *site) waitFor(t *testing.T, id job.ID, within time.Duration, what string, wanted func(*job.Job) bool) *job.Job {
	t.Helper()
	var j *job.Job
	wait.For(t, within, func() (err error) {
		if j, err = s.show(t, id); err == nil && !wanted(j) {
			err = fmt.Errorf("job %s is %s (%s), attempt %d, owner %+v; want it %s", id, j.State, j.Reason, j.Attempt, j.Owner, what)
		}
		return err
	})
	return j
}

// waitRunning waits until the job runs, by the ledger and by its own witness,
// and returns where.
func (s *site) waitRunning(t *testing.T, id job.ID) *host {
	t.Helper()
	j := s.waitFor(t, id, stepTimeout, "running", func(j *job.Job) bool { return j.State == job.Running })
	h := s.owner(t, j)
	s.waitWitness(t, h, id, j.Attempt)
	return h
}

// waitEnd waits until the job is over.
func (s *site) waitEnd(t *testing.T, id job.ID) *job.Job {
	t.Helper()
	return s.waitFor(t, id, stepTimeout, "over", func(j *job.Job) bool { return j.State.Terminal() })
}

// owner returns the host that holds the job.
func (s *site) owner(t *testing.T, j *job.Job) *host {
	t.Helper()
	if j.Owner != nil {
		for _, h := range s.all() {
			if h.role == j.Owner.Host {
				return h
			}
		}
	}
	t.Fatalf("job %s is %s, owner %+v", j.ID, j.State, j.Owner)
	return nil
}

// others returns gpu1 to gpu3 but for one.
func (s *site) others(not *host) []*host {
	var list []*host
	for _, h := range s.gpus {
		if h != not {
			list = append(list, h)
		}
	}
	return list
}
