package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"gpuqd/daemon/job"
)

// stampProgram and floorShim are programs of ours beside gpuqd.
const (
	stampProgram = "gpuq-stamp"
	floorShim    = "gpuq-floor-shim"
)

func (r *rig) program(name string) string { return filepath.Join(r.o.BinDir, name) }

// stampSpec is that of a job that stamps a file and works for a while.
func (r *rig) stampSpec(file string, work time.Duration) job.Spec {
	return spec(r.program(stampProgram), file, fmt.Sprint(work.Milliseconds()))
}

// idleLatencies submits jobs one after the other to an idle cluster and returns
// the milliseconds from before each submission to the first instruction of its
// command. The submission goes through gpuqd's socket, by the client library of
// gpuqctl, or by gpuqctl itself, whose own start is then part of it.
func (r *rig) idleLatencies(ctx context.Context, n int, withGpuqctl bool) ([]float64, error) {
	file := filepath.Join(r.dir, "idle.stamps")
	if err := os.RemoveAll(file); err != nil {
		return nil, err
	}
	s := r.stampSpec(file, 0)
	var list []float64
	for len(list) < n {
		id := job.NewID()
		began := time.Now().UnixNano()
		if withGpuqctl {
			result, err := r.Gpuqctl(ctx, append([]string{"submit", "--"}, s.Command...)...)
			if err != nil || result.Code != 0 {
				return nil, errors.Join(fmt.Errorf("gpuqctl submit: exit code %d: %s", result.Code, result.Stderr), err)
			}
			id = job.ID(result.Stdout[:36])
		} else if _, err := r.client.Submit(ctx, job.Submission{ID: id, Spec: s}); err != nil {
			return nil, err
		}
		stamped, err := awaitStamp(ctx, file, len(list)+1)
		if err != nil {
			return nil, err
		}
		if stamped.job != id {
			return nil, fmt.Errorf("job %s has stamped, want %s", stamped.job, id)
		}
		list = append(list, float64(stamped.start-began)/1e6)
		if err := r.ended(ctx, id); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// awaitStamp returns the n-th stamp of a file once it is there. It looks often, and
// cheaply: at the file alone.
func awaitStamp(ctx context.Context, file string, n int) (stamp, error) {
	for {
		list, err := readStamps(file)
		if err != nil {
			return stamp{}, err
		}
		if len(list) >= n {
			return list[n-1], nil
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return stamp{}, err
		}
	}
}

// ended waits until a job is over, and then for a moment: the ack comes last.
func (r *rig) ended(ctx context.Context, id job.ID) error {
	for {
		if err := pause(ctx, 15*time.Millisecond); err != nil {
			return err
		}
		reply, err := r.client.States(ctx, []job.ID{id}, 0)
		if err != nil {
			return err
		}
		if len(reply.Jobs) == 1 && reply.Jobs[0].State.Terminal() {
			return pause(ctx, 15*time.Millisecond)
		}
	}
}

// payloadStart returns the milliseconds from a bare fork and exec of the payload
// to its stamp: what every latency here has in it that is no queue's.
func (r *rig) payloadStart(ctx context.Context, n int) ([]float64, error) {
	file := filepath.Join(r.dir, "payload.stamps")
	if err := os.RemoveAll(file); err != nil {
		return nil, err
	}
	var list []float64
	for len(list) < n {
		began := time.Now().UnixNano()
		pid, err := syscall.ForkExec(r.program(stampProgram), []string{stampProgram, file}, &syscall.ProcAttr{Env: []string{"GPUQ_JOB_ID=-"}})
		if err != nil {
			return nil, err
		}
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
			return nil, errors.Join(fmt.Errorf("the payload ended with %d", status.ExitStatus()), err)
		}
		stamped, err := awaitStamp(ctx, file, len(list)+1)
		if err != nil {
			return nil, err
		}
		list = append(list, float64(stamped.start-began)/1e6)
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
	return list, nil
}
