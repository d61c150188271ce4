package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"gpuqd/daemon/job"

	"github.com/spf13/pflag"
)

// specFlags are the flags of submit that make a spec. Their defaults are those
// of job.DefaultSpec, so that help and daemon agree.
type specFlags struct {
	spec                      job.Spec
	priority                  string
	timeLimit, grace, expires time.Duration
	retryOn, backoff, memory  string
	gpuMemory, minGPUMemory   string
	env, labels               []string
}

// register adds the flags and returns their names.
func (f *specFlags) register(flags *pflag.FlagSet) {
	f.spec = job.DefaultSpec()
	s := &f.spec
	flags.IntVar(&s.GPUs, "gpus", s.GPUs, "GPUs, all on one host; 0 takes a slot without one")
	flags.StringVar(&f.gpuMemory, "gpu-memory", "", "share one GPU with other jobs: this `size` of its memory is enough, such as 12GiB (default whole GPUs)")
	flags.StringVar(&s.GPUModel, "gpu-model", "", "only GPUs whose model has these `words`, such as h100 or \"rtx 6000\"")
	flags.StringVar(&f.minGPUMemory, "min-gpu-memory", "", "only GPUs of at least this `size` of memory in all, such as 80GiB")
	flags.StringVar(&s.MinComputeCapability, "min-compute-capability", "", "only GPUs of at least this `version`, such as 8.0")
	flags.StringVar(&s.Name, "name", "", "a `name` for people")
	flags.StringVar(&f.priority, "priority", string(s.Priority), "high, normal or low")
	flags.StringVar(&s.Pool, "pool", s.Pool, "the set of hosts that may run it")
	flags.DurationVar(&f.timeLimit, "time-limit", 0, "end an attempt that runs longer, such as 90m; 0 is none")
	flags.DurationVar(&f.grace, "grace", s.Grace.Std(), "between SIGTERM and SIGKILL when it is ended")
	flags.StringVar(&f.memory, "memory", "", "end it when it uses more host memory than this `size`, such as 16GiB (default no limit)")
	flags.IntVar(&s.TasksMax, "tasks", 0, "processes and threads that it may have; 0 is no limit")
	flags.IntVar(&s.CPUWeight, "cpu-weight", 0, "its share of busy processors, 1 to 10000, where others have 100 (default 100)")
	flags.IntVar(&s.MaxAttempts, "max-attempts", s.MaxAttempts, "how often it may run, if it fails through its own fault")
	flags.StringVar(&f.retryOn, "retry-on", "", "`codes` worth another attempt, such as 75,111 (default every code but 0)")
	flags.StringVar(&f.backoff, "backoff", joinDurations(s.Backoff), "`durations` before the 2nd, 3rd, ... attempt; the last repeats")
	flags.StringVar(&s.Key, "key", "", "a `key` of yours: however often it is submitted, it stays one job")
	flags.StringArrayVar(&f.env, "env", nil, "set an environment variable, `NAME=VALUE`; may be repeated")
	flags.StringVar(&s.Workdir, "workdir", "", "absolute `path` to run in (default a directory of the job's own)")
	flags.DurationVar(&f.expires, "expires", 0, "give it up if it has not started so long after the submit; 0 is never")
	flags.StringArrayVar(&f.labels, "label", nil, "a label, `NAME=VALUE`; may be repeated")
}

// names lists the flags above, to tell them from submit's others.
func (*specFlags) names() []string {
	var names []string
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(specFlags).register(flags)
	flags.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// build returns the spec of a command, checked; all that is wrong comes at once.
func (f *specFlags) build(command []string) (job.Spec, error) {
	s := f.spec
	s.Command = command
	s.Priority = job.Priority(f.priority)
	s.TimeLimit, s.Grace, s.Expires = job.Duration(f.timeLimit), job.Duration(f.grace), job.Duration(f.expires)
	var errs []error
	collect := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	s.RetryOn, err = parseCodes(f.retryOn)
	collect(err)
	s.Backoff, err = parseDurations(f.backoff)
	collect(err)
	s.MemoryMax, err = parseSize("memory", f.memory)
	collect(err)
	s.GPUMemory, err = parseSize("gpu-memory", f.gpuMemory)
	collect(err)
	s.MinGPUMemory, err = parseSize("min-gpu-memory", f.minGPUMemory)
	collect(err)
	s.Env, err = parsePairs("env", f.env)
	collect(err)
	s.Labels, err = parsePairs("label", f.labels)
	collect(err)
	if len(errs) == 0 {
		collect(s.Validate())
	}
	return s, errors.Join(errs...)
}

func parseCodes(list string) ([]int, error) {
	if list == "" {
		return nil, nil
	}
	var codes []int
	for text := range strings.SplitSeq(list, ",") {
		code, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("retry-on: %q is no exit code: want numbers with commas between, such as 75,111", text)
		}
		codes = append(codes, code)
	}
	return codes, nil
}

func parseDurations(list string) ([]job.Duration, error) {
	var all []job.Duration
	for text := range strings.SplitSeq(list, ",") {
		var d job.Duration
		if err := d.UnmarshalText([]byte(strings.TrimSpace(text))); err != nil {
			return nil, fmt.Errorf("backoff: %w", err)
		}
		all = append(all, d)
	}
	return all, nil
}

func joinDurations(all []job.Duration) string {
	texts := make([]string, 0, len(all))
	for _, d := range all {
		texts = append(texts, d.String())
	}
	return strings.Join(texts, ",")
}

// sizeUnits are what a size may end in. The decimal ones are not the binary ones:
// 1GB is less than 1GiB.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
}

// parseSize reads bytes with their unit; "" is 0.
func parseSize(flag, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	for _, unit := range sizeUnits {
		number, ok := strings.CutSuffix(text, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if bytes := n * float64(unit.bytes); err == nil && (bytes == 0 || bytes >= 1) && bytes < 1<<62 {
			return int64(bytes), nil
		}
		break
	}
	return 0, fmt.Errorf("%s: %q is no size: want a number with its unit, such as 512MiB or 16GiB", flag, text)
}

// fieldOf returns the key of a spec that a flag sets.
func fieldOf(flag string) string {
	switch flag {
	case "memory", "tasks":
		return flag + "_max"
	case "label":
		return "labels"
	}
	return strings.ReplaceAll(flag, "-", "_")
}

func parsePairs(flag string, pairs []string) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fmt.Errorf("%s: %q has no =: want NAME=VALUE", flag, pair)
		}
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("%s: %s is given twice", flag, name)
		}
		out[name] = value
	}
	return out, nil
}
