package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"gpuqd/daemon/runner/proctree"
	"gpuqd/test/bench/floor"
)

// Side is one side of a round.
type Side struct {
	Rate    float64          `json:"jobs_per_second"`
	Latency Spread           `json:"latency_ms"`
	PerJob  floor.Operations `json:"operations_per_job"`
	CPU     CPU              `json:"cpu_ms_per_job"`
}

// Round is gpuqd and the floor one after the other, on the same servers.
type Round struct {
	Gpuqd Side `json:"gpuqd"`
	Floor Side `json:"floor"`
}

// trueCommand is what jobs run whose own work is to count for nothing.
const trueCommand = "/bin/true"

// rounds measures gpuqd and the floor in turn, so that whatever else the machine
// does falls on both.
func (b *bench) rounds(ctx context.Context) error {
	for n := range b.o.Rounds {
		b.say("round %d of %d: gpuqd", n+1, b.o.Rounds)
		var round Round
		samples := (b.o.Samples + b.o.Rounds - 1) / b.o.Rounds
		latencies, err := b.rig.idleLatencies(ctx, samples, false)
		if err != nil {
			return fmt.Errorf("latency of gpuqd: %w", err)
		}
		b.latencies = append(b.latencies, latencies...)
		ran, err := b.rig.runBatch(ctx, b.o.Jobs, spec(trueCommand))
		if err != nil {
			return fmt.Errorf("batch of gpuqd: %w", err)
		}
		b.submits, b.rates = append(b.submits, ran.submitted), append(b.rates, ran.rate)
		round.Gpuqd = Side{Rate: ran.rate, Latency: spreadOf(latencies), PerJob: ran.perJob, CPU: ran.cpu}
		if n == 0 {
			b.result.Recipe = floor.RecipeOf(ran.perJob, ShimSyncs)
		}
		b.say("round %d of %d: %.1f jobs/s, p50 %.1f ms; the floor", n+1, b.o.Rounds, ran.rate, round.Gpuqd.Latency.P50)
		if round.Floor, err = b.floor(ctx, samples); err != nil {
			return fmt.Errorf("the floor: %w", err)
		}
		b.say("round %d of %d: %.1f jobs/s, p50 %.1f ms", n+1, b.o.Rounds, round.Floor.Rate, round.Floor.Latency.P50)
		b.result.Rounds = append(b.result.Rounds, round)
	}
	return nil
}

// ShimSyncs is how many of its writes gpuqd-shim syncs: the start, the exit, and
// the output where there is any (daemon/shim: recordStart, record, output.finish).
// A test counts them.
const ShimSyncs = 3

// floor measures the floor's side of a round.
func (b *bench) floor(ctx context.Context, samples int) (s Side, err error) {
	file := filepath.Join(b.rig.dir, "floor.stamps")
	if err := os.RemoveAll(file); err != nil {
		return s, err
	}
	c, err := b.rig.floorConfig()
	if err != nil {
		return s, err
	}
	c.Recipe = b.result.Recipe
	c.Idle, c.Jobs, c.Command = true, samples, []string{b.rig.program(stampProgram), file}
	c.Spec = spec(c.Command...)
	idle, err := b.rig.runFloor(ctx, c)
	if err != nil {
		return s, err
	}
	stamps, err := readStamps(file)
	if err != nil {
		return s, err
	}
	var latencies []float64
	for _, s := range stamps {
		latencies = append(latencies, float64(s.start-idle.Submitted[s.job])/1e6)
	}
	if len(latencies) != samples {
		return s, fmt.Errorf("%d of %d jobs have stamped", len(latencies), samples)
	}
	b.floorLatencies = append(b.floorLatencies, latencies...)

	c.Idle, c.Jobs, c.Command = false, b.o.Jobs, []string{trueCommand}
	c.Spec = spec(c.Command...)
	before, err := b.rig.cpu()
	if err != nil {
		return s, err
	}
	ran, err := b.rig.runFloor(ctx, c)
	if err != nil {
		return s, err
	}
	after, err := b.rig.cpu()
	if err != nil {
		return s, err
	}
	s = Side{
		Rate: ratio(float64(ran.Jobs), ran.SpanSeconds), Latency: spreadOf(latencies),
		PerJob: ran.Operations.Over(ran.Jobs), CPU: after.perJob(before, ran.Jobs),
	}
	each := func(seconds float64) float64 { return seconds / float64(ran.Jobs) * 1e3 }
	s.CPU.Intake, s.CPU.Own, s.CPU.Children = each(ran.IntakeSeconds), each(ran.SelfSeconds), each(ran.ChildrenSeconds)
	return s, nil
}

// floorConfig is what the floor runs on: the servers, the disk and the slots of
// gpuqd.
func (r *rig) floorConfig() (c floor.Config, err error) {
	urls, err := r.HostURLs()
	if err != nil {
		return c, err
	}
	if c.Password, err = r.RedisPassword(); err != nil {
		return c, err
	}
	c.URL, c.User, c.Redis = urls[0], accountOf(urls[0]), r.RedisAddr()
	c.Dir, c.Shim, c.Slots = filepath.Join(r.dir, "floor"), r.program(floorShim), r.o.Devices
	if made, err := proctree.NewCgroup("gpuq-bench-probe"); err == nil {
		c.Cgroups = filepath.Dir(string(made))
		err = made.Remove()
		if err != nil {
			return c, err
		}
	}
	return c, os.MkdirAll(c.Dir, 0o700)
}

// accountOf returns the account in a broker's URL.
func accountOf(url string) string {
	_, rest, _ := strings.Cut(url, "//")
	account, _, _ := strings.Cut(rest, ":")
	return account
}

// runFloor runs the floor as a process of its own, as gpuqd is one.
func (r *rig) runFloor(ctx context.Context, c floor.Config) (out floor.Outcome, err error) {
	config, err := json.Marshal(c)
	if err != nil {
		return out, err
	}
	cmd := exec.CommandContext(ctx, r.o.Program, "floor")
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(config), &stdout, &stderr // not as arguments: it has passwords
	if err := cmd.Run(); err != nil {
		return out, errors.Join(err, errors.New(strings.TrimSpace(stderr.String())))
	}
	return out, json.Unmarshal(stdout.Bytes(), &out)
}

// Floor runs the floor: from its configuration, and to its outcome, as JSON.
func Floor(ctx context.Context, in io.Reader, out io.Writer) error {
	var c floor.Config
	if err := json.NewDecoder(in).Decode(&c); err != nil {
		return err
	}
	outcome, err := floor.Run(ctx, c)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(outcome)
}
