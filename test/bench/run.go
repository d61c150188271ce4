package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Options say how much is measured.
type Options struct {
	BinDir  string `json:"-"` // gpuqd, gpuqctl, gpuqd-shim, gpuq-stamp, gpuq-floor-shim
	Program string `json:"-"` // path of gpuq-bench, which is the floor too
	Dir     string `json:"-"` // of all files, made and removed

	Devices  int           `json:"devices"`  // simulated, of one host
	Nodes    int           `json:"nodes"`    // of RabbitMQ
	Rounds   int           `json:"rounds"`   // of gpuqd and the floor in turn
	Jobs     int           `json:"jobs"`     // of a batch
	Samples  int           `json:"samples"`  // of a latency, over all rounds
	Busy     int           `json:"busy"`     // jobs that work for a while
	Work     time.Duration `json:"work_ns"`  // for how long
	Idle     time.Duration `json:"idle_ns"`  // over which idleness is measured
	Waiting  []int         `json:"waiting"`  // jobs that wait while others are dispatched; rising
	Dispatch int           `json:"dispatch"` // how many are dispatched then

	Progress io.Writer `json:"-"`
}

// Defaults are those of make bench.
func Defaults() Options {
	return Options{
		Devices: 8, Nodes: 3, Rounds: 5, Jobs: 1000, Samples: 250, Busy: 400, Work: 200 * time.Millisecond,
		Idle: 30 * time.Second, Waiting: []int{1000, 1_000_000}, Dispatch: 300, Progress: io.Discard,
	}
}

const startTimeout = 5 * time.Minute

// bench is a run.
type bench struct {
	o      Options
	rig    *rig
	result *Result

	latencies, floorLatencies, submits, rates []float64
}

// Run starts a cluster, measures, and removes all of it.
func Run(ctx context.Context, o Options) (result *Result, err error) {
	// Not in memory, where a sync costs nothing: below the directory that is named.
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.Dir, "bench-")
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{o: o, result: &Result{Began: time.Now().UTC().Truncate(time.Second), Options: o}}
	b.say("starting %d RabbitMQ nodes, Redis and gpuqd with %d simulated devices", o.Nodes, o.Devices)
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if b.rig, err = newRig(starting, o, dir); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.rig.end()) }()
	if err := b.run(ctx); err != nil {
		return nil, err
	}
	b.result.Minutes = time.Since(b.result.Began).Minutes()
	return b.result, nil
}

func (b *bench) run(ctx context.Context) error {
	var err error
	if b.result.Machine, err = b.rig.machine(ctx); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"warm up", b.warmUp},
		{"the payload alone", b.payload},
		{"gpuqd and the floor", b.rounds},
		{"with gpuqctl", b.withGpuqctl},
		{"devices at work", b.busy},
		{"idleness", b.idle},
		{"many jobs wait", b.waiting},
	} {
		b.say("%s", step.name)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	r := b.result
	r.Submit, r.Latency, r.FloorLatency = spreadOf(b.submits), spreadOf(b.latencies), spreadOf(b.floorLatencies)
	r.Rate = spreadOf(b.rates)
	return nil
}

func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.o.Progress, "%6.1f s  %s\n", time.Since(b.result.Began).Seconds(), fmt.Sprintf(format, args...)) // for people alone
}

// warmUp lets the first jobs find the queues, files and connections not yet made.
func (b *bench) warmUp(ctx context.Context) error {
	_, err := b.rig.runBatch(ctx, 2*b.o.Devices, spec(trueCommand))
	return err
}

func (b *bench) payload(ctx context.Context) error {
	list, err := b.rig.payloadStart(ctx, min(b.o.Samples, 50))
	b.result.Payload = spreadOf(list)
	return err
}

func (b *bench) withGpuqctl(ctx context.Context) error {
	list, err := b.rig.idleLatencies(ctx, min(b.o.Samples, 50), true)
	b.result.WithGpuqctl = spreadOf(list)
	return err
}

// busy lets jobs work on every device.
func (b *bench) busy(ctx context.Context) error {
	file := filepath.Join(b.rig.dir, "busy.stamps")
	if _, err := b.rig.runBatch(ctx, b.o.Busy, b.rig.stampSpec(file, b.o.Work)); err != nil {
		return err
	}
	stamps, err := readStamps(file)
	if err != nil {
		return err
	}
	if len(stamps) != b.o.Busy {
		return fmt.Errorf("%d of %d jobs have stamped", len(stamps), b.o.Busy)
	}
	b.result.Share, b.result.Gap = share(stamps, b.o.Devices), spreadOf(gaps(stamps))
	return nil
}
