package train_test

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gpuqd/daemon/job"
)

// sweep returns the specs that sweep.py prints, decoded as strictly as a
// submission is.
func sweep(t *testing.T, args ...string) []job.Spec {
	t.Helper()
	out := run(t, program(t, nil, "sweep.py", args...))
	if out.code != 0 {
		t.Fatalf("exit code %d:\n%s", out.code, out.stderr)
	}
	var specs []job.Spec
	for line := range strings.Lines(out.stdout) {
		spec := job.DefaultSpec()
		decoder := json.NewDecoder(strings.NewReader(line))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&spec); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if err := spec.Validate(); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		specs = append(specs, spec)
	}
	return specs
}

func TestSweep(t *testing.T) {
	t.Parallel()
	t.Run("EveryLineIsAValidSpecOfTrainPy", func(t *testing.T) {
		specs := sweep(t)
		script, err := filepath.Abs("train.py")
		if err != nil {
			t.Fatal(err)
		}
		commands, large := map[string]bool{}, 0
		for _, spec := range specs {
			commands[strings.Join(spec.Command, " ")] = true
			if spec.GPUs == 2 {
				large++
			}
			if !filepath.IsAbs(spec.Command[0]) || spec.Command[1] != script || spec.Labels["sweep"] != "iris" {
				t.Errorf("spec %+v", spec)
			}
		}
		if len(specs) < 12 || len(commands) != len(specs) || large == 0 {
			t.Errorf("%d specs, %d different, %d of 2 devices", len(specs), len(commands), large)
		}
	})
	t.Run("KeyedJobsHaveKeysOfTheirOwn", func(t *testing.T) {
		keys := map[string]bool{}
		specs := sweep(t, "--keyed")
		for _, spec := range specs {
			keys[spec.Key] = true
		}
		if len(keys) != len(specs) || keys[""] {
			t.Errorf("%d keys for %d specs: %v", len(keys), len(specs), keys)
		}
	})
	t.Run("ALineRunsAsItIs", func(t *testing.T) {
		witness := filepath.Join(t.TempDir(), "witness.jsonl")
		spec := sweep(t, "--epochs", "3", "--slow-epoch", "0", "--witness", witness)[0]
		out := run(t, program(t, nil, spec.Command[1], spec.Command[2:]...))
		if !strings.Contains(out.stdout, "\nresult accuracy=") || len(witnessed(t, witness)) != 2 {
			t.Errorf("exit code %d:\n%s%s", out.code, out.stdout, out.stderr)
		}
	})
}

func TestBest(t *testing.T) {
	t.Parallel()
	lines := []string{
		"epoch 1000/1000 training loss=0.01 accuracy=0.99",
		"result accuracy=0.9400 loss=0.200000 lr=0.1 hidden=4 epochs=1000 seed=1 device=cpu weights=aa",
		"a-worker | result accuracy=0.9600 loss=0.090000 lr=0.01 hidden=4 epochs=1000 seed=1 device=cpu weights=bb",
		`{"id":"x","result":{"log_tail":"going\nresult accuracy=0.9600 loss=0.080000 lr=0.01 hidden=16 epochs=1000 seed=1 device=cpu weights=cc\n"}}`,
		`    "log_tail": "result accuracy=0.9600 loss=0.080000 lr=0.01 hidden=16 epochs=1000 seed=1 device=cpu weights=cc",`,
	}
	best := func(t *testing.T, lines []string) output {
		cmd := program(t, nil, "sweep.py", "best")
		cmd.Stdin = strings.NewReader(strings.Join(lines, "\n"))
		return run(t, cmd)
	}
	t.Run("IsTheHigherAccuracyThenTheLowerLoss", func(t *testing.T) {
		out := best(t, lines)
		const want = "best of 3: accuracy=0.9600 loss=0.080000 lr=0.01 hidden=16 epochs=1000 seed=1 device=cpu\n"
		if out.code != 0 || !strings.HasSuffix(out.stdout, want) || strings.Count(out.stdout, "\n") != 5 {
			t.Errorf("exit code %d, want 3 rows and %q:\n%s%s", out.code, want, out.stdout, out.stderr)
		}
	})
	t.Run("TwoFiguresOfTheSameParametersAreNamed", func(t *testing.T) {
		out := best(t, append(slices.Clone(lines), strings.Replace(lines[1], "0.2", "0.3", 1)))
		if out.code != 1 || !strings.Contains(out.stderr, "two different figures for lr=0.1 hidden=4") {
			t.Errorf("exit code %d:\n%s", out.code, out.stderr)
		}
	})
	t.Run("NothingToReadIsAnError", func(t *testing.T) {
		out := best(t, lines[:1])
		if out.code != 1 || !strings.Contains(out.stderr, "no result lines on standard input") {
			t.Errorf("exit code %d:\n%s", out.code, out.stderr)
		}
	})
}
