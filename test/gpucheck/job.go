package gpucheck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
)

// payloadName is the program that the jobs run.
const payloadName = "gpuq-gpu-payload"

// running is a job that was begun.
type running struct {
	*runner.Attempt
	release string // the file whose being there ends the payload
	devices []string
	over    bool // nothing of it is left, and its devices are given back
}

// start runs the payload as a job with the devices, as gpuqd would.
func (b *bench) start(ctx context.Context, devices []string, mode string, more ...string) (*running, error) {
	id := job.NewID()
	release := filepath.Join(b.state, "release-"+string(id))
	args := append([]string{filepath.Join(b.Dir, payloadName), mode}, more...)
	if mode != "see" {
		args = append(args, release)
	}
	env := map[string]string{}
	if b.libraries != "" {
		env["LD_LIBRARY_PATH"] = b.libraries
	}
	if err := b.manager.Acquire(id, 1, devices, 0); err != nil {
		return nil, err
	}
	a, err := b.begin(runner.Intent{
		JobID: id, Attempt: 1, Fence: 1, ClaimID: string(job.NewID()), Session: "gpu-check", Host: "gpu-check",
		Submitter: "gpu-check", Command: args, Env: env, Workdir: filepath.Join(b.state, "work", string(id)), Devices: devices,
		TimeLimit: b.Patience + time.Minute, Grace: time.Second, ClaimedAt: time.Now(),
	})
	if err != nil {
		b.manager.Release(id, 1)
		return nil, err
	}
	r := &running{Attempt: a, release: release, devices: devices}
	b.begun = append(b.begun, r)
	ctx, cancel := context.WithTimeout(ctx, b.Patience)
	defer cancel()
	return r, b.starter.Start(ctx, a)
}

// begin journals the job with what its devices call for.
func (b *bench) begin(in runner.Intent) (*runner.Attempt, error) {
	nodes, err := b.manager.Nodes(in.Devices, nil)
	if err != nil {
		return nil, err
	}
	in.DeviceNodes = nodes
	if numa := b.manager.NUMANodes(in.Devices); len(numa) > 0 {
		in.NUMA = &runner.NUMA{Nodes: numa}
	}
	return b.journal.Begin(in)
}

// outputMax bounds what is read of a payload's few lines.
const outputMax = 64 << 10

// words returns what follows a word in the payload's output, line by line.
func (r *running) words(word string) []string {
	output, _ := r.ReadLog(0, outputMax) // what is missing is waited for
	var found []string
	for line := range strings.Lines(string(output)) {
		if rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), word+" "); ok && strings.HasSuffix(line, "\n") {
			found = append(found, rest)
		}
	}
	return found
}

// output returns all that the payload has printed, for people.
func (r *running) output() string {
	output, _ := r.ReadLog(0, outputMax)
	return strings.Join(nonempty(string(output)), "; ")
}

// says waits until the payload has printed a word, and returns what follows it.
func (b *bench) says(ctx context.Context, r *running, word string) (rest string, err error) {
	err = b.await(ctx, func() string {
		found := r.words(word)
		if len(found) > 0 {
			rest = found[0]
			return ""
		}
		return fmt.Sprintf("the payload has not said %q, but: %s", word, r.output())
	})
	return rest, err
}

// pidAfter waits for a line that ends in a PID.
func (b *bench) pidAfter(ctx context.Context, r *running, word string) (int, error) {
	rest, err := b.says(ctx, r, word)
	if err != nil {
		return 0, err
	}
	var pid int
	if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, ' ')+1:], &pid); err != nil {
		return 0, fmt.Errorf("the payload said %q %q", word, rest)
	}
	return pid, nil
}

// end lets the payload go, waits for the end of the job, and gives its devices
// back. An exit code other than 0 is an error.
func (b *bench) end(ctx context.Context, r *running) error {
	if err := os.WriteFile(r.release, nil, 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.Patience, fmt.Errorf("the job does not end within %s", b.Patience))
	defer cancel()
	exit, err := r.Wait(ctx)
	if err != nil {
		return err
	}
	b.over(r)
	if exit.Code != 0 || exit.Class != "" {
		return fmt.Errorf("the job ended with code %d: %s; its output: %s", exit.Code, exit.Reason, r.output())
	}
	return nil
}

func (b *bench) over(r *running) {
	r.over = true
	b.manager.Release(r.Key().JobID, r.Key().Attempt)
}

// clear ends what is left of jobs.
func (b *bench) clear() error {
	var errs []error
	for _, r := range b.begun {
		if !r.over {
			errs = append(errs, b.kill(r))
		}
	}
	b.begun = nil
	return errors.Join(errs...)
}

// kill ends a job at once.
func (b *bench) kill(r *running) error {
	defer b.over(r)
	_, started, err := r.Started()
	if err != nil || !started {
		return errors.Join(err, r.Revoke())
	}
	ctx, cancel := context.WithTimeout(context.Background(), b.Patience)
	defer cancel()
	err = r.RequestStop(runner.Stop{Reason: runner.StopKilled, Detail: "the check is over", Grace: -1})
	if _, waitErr := r.Wait(ctx); errors.Is(waitErr, runner.ErrLost) {
		err = r.RecordLost("its shim is gone")
	} else if waitErr != nil {
		err = errors.Join(err, waitErr)
	}
	return err
}

// status returns what the manager knows of a device.
func (b *bench) status(uuid string) device.Status {
	for _, s := range b.manager.Snapshot() {
		if s.UUID == uuid {
			return s
		}
	}
	return device.Status{}
}
