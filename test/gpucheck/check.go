package gpucheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"gpuqd/daemon/device"
	"gpuqd/daemon/owner"
	"gpuqd/daemon/runner"
)

// Options say where things are.
type Options struct {
	Dir      string        // of gpuqd-device, gpuqd-shim and gpuq-gpu-payload
	SMI      string        // nvidia-smi: a path, or a name to be found in PATH
	Patience time.Duration // of each single wait
	Out      io.Writer     // takes the verdicts
	Log      *slog.Logger  // takes what the parts log

	interval  time.Duration   // between two inventories; 0 is intervalDefault
	evidence  func() []string // of GPUs, beside what the driver says; nil looks at the machine
	libraries string          // where payloads look for libcuda first; "" is as this program does
	temporary string          // where the temporary directory is made; "" is TMPDIR
	only      string          // the one claim that is checked; "" is all
}

// intervalDefault is short: a device is looked at after each step.
const intervalDefault = 500 * time.Millisecond

// Run makes all checks and reports whether all passed. Where there is no GPU it says
// so, which is no failure. The error is for what kept the checks from being made.
func Run(ctx context.Context, o Options) (passed bool, err error) {
	for _, name := range []string{"gpuqd-device", "gpuqd-shim", payloadName} {
		if _, err := os.Stat(filepath.Join(o.Dir, name)); err != nil {
			return false, fmt.Errorf("%w: build it (make gpu-check/build), and keep the programs together in one directory", err)
		}
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if there, why := b.gpu(ctx); !there {
		fmt.Fprintf(o.Out, "There is no NVIDIA GPU here, so nothing was checked: %s.\n", why)
		return true, nil
	}
	b.introduce(ctx)
	b.check("inventory is nvidia-smi's", func() (string, error) { return b.inventory(ctx) })
	b.check("job without devices sees none", func() (string, error) { return b.seesNothing(ctx) })
	free := b.manager.Free()
	if len(free) == 0 {
		b.check("there is a free device", func() (string, error) { return "", errors.New(b.whyNoneFree()) })
	}
	for _, d := range free {
		b.check("job sees its device alone", func() (string, error) { return b.seesItsDevice(ctx, d) })
	}
	if len(free) > 0 {
		d := free[len(free)-1] // not the first, which a job would get that ignores what it was granted
		b.check("job's process and memory are seen", func() (string, error) { return b.jobIsSeen(ctx, d) })
		b.check("process left behind ends with the job", func() (string, error) { return b.leftProcess(ctx, d) })
		b.check("process left behind by a lost job is found", func() (string, error) { return b.lostJob(ctx, d) })
		b.check("foreign process is respected and named", func() (string, error) { return b.foreignProcess(ctx, d) })
	}
	fmt.Fprintf(o.Out, "%d passed, %d failed\n", b.passes, b.fails)
	return b.fails == 0, context.Cause(ctx)
}

// bench is one run: the parts of gpuqd, and what was found.
type bench struct {
	Options
	state   string // the temporary directory
	manager *device.Manager
	journal *runner.Journal
	starter *runner.ProcessStarter
	stop    context.CancelFunc // of the manager
	done    chan struct{}      // closed when it has stopped

	begun         []*running // by the check that is being made
	passes, fails int
}

// check makes one check and prints its verdict with the facts. What a check that
// failed has left does not keep the next from its device.
func (b *bench) check(claim string, f func() (facts string, err error)) {
	if b.only != "" && b.only != claim {
		return
	}
	facts, err := f()
	if cleared := b.clear(); err == nil {
		err = cleared
	}
	if err != nil {
		b.fails++
		fmt.Fprintf(b.Out, "FAIL  %s: %v\n", claim, err)
		return
	}
	b.passes++
	fmt.Fprintf(b.Out, "PASS  %s: %s\n", claim, facts)
}

func newBench(ctx context.Context, o Options) (b *bench, err error) {
	b = &bench{Options: o, done: make(chan struct{})}
	if b.interval == 0 {
		b.interval = intervalDefault
	}
	if b.evidence == nil {
		b.evidence = evidence
	}
	if b.libraries == "" {
		b.libraries = os.Getenv("LD_LIBRARY_PATH") // by which some containers have it
	}
	if b.state, err = os.MkdirTemp(b.temporary, "gpuq-gpu-check-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(b.state)
		}
	}()
	if b.starter, err = runner.NewProcessStarter(filepath.Join(o.Dir, "gpuqd-shim")); err != nil {
		return nil, err
	}
	if b.journal, err = runner.OpenJournal(b.state); err != nil {
		return nil, errors.Join(err, b.starter.Close())
	}
	helper := &device.Helper{Path: filepath.Join(o.Dir, "gpuqd-device"), Interval: b.interval, Logger: o.Log}
	b.manager = device.NewWith("gpu-check", helper, device.Options{Logger: o.Log, Processes: owner.Processes{}})
	run, stop := context.WithCancel(context.WithoutCancel(ctx)) // to the very end: see close
	b.stop = stop
	go func() {
		defer close(b.done)
		_ = b.manager.Run(run) // the helper never gives up
	}()
	return b, nil
}

// close ends what is left of the jobs, and removes all that was written.
func (b *bench) close() error {
	err := b.clear()
	b.stop()
	<-b.done
	return errors.Join(err, b.starter.Close(), b.journal.Close(), os.RemoveAll(b.state))
}

// pollTick lies between two looks at what is waited for.
const pollTick = 50 * time.Millisecond

// await returns when look does not return "" any more; until then it says what is
// missing, which is the error when patience is at its end.
func (b *bench) await(ctx context.Context, look func() (missing string)) error {
	patience := time.NewTimer(b.Patience)
	defer patience.Stop()
	for {
		missing := look()
		if missing == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; by then %s", context.Cause(ctx), missing)
		case <-patience.C:
			return fmt.Errorf("still after %s: %s", b.Patience, missing)
		case <-time.After(pollTick):
		}
	}
}
