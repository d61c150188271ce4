// Package train_test runs the example for real: train.py and sweep.py under the
// python3 of this machine.
package train_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// short is a training run of well under a second. It stays on the CPU, since
// the claims about figures hold bit for bit only on one device.
var short = []string{"--device", "cpu", "--epochs", "100", "--hidden", "8", "--lr", "0.05"}

// output is how a program ended and what it said.
type output struct {
	code           int
	stdout, stderr string
}

// program returns a command that cannot outlive its test, with nothing of the
// queue in its environment but what env adds.
func program(t *testing.T, env []string, script string, args ...string) *exec.Cmd {
	t.Helper()
	trackScripts(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "python3", append([]string{script}, args...)...)
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "GPUQ_") && !strings.HasPrefix(pair, "CUDA_") {
			cmd.Env = append(cmd.Env, pair)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// trackScripts makes go test run again, not answer from its cache, after one of
// the scripts has changed: it watches the files that a test itself looks at.
func trackScripts(t *testing.T) {
	t.Helper()
	scripts, err := filepath.Glob("*.py")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts here: %v", err)
	}
	for _, script := range append(scripts, "data/iris.csv") {
		if _, err := os.Stat(script); err != nil {
			t.Fatal(err)
		}
	}
}

func run(t *testing.T, cmd *exec.Cmd) output {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if failed := (*exec.ExitError)(nil); err != nil && !errors.As(err, &failed) {
		t.Fatalf("run %v: %v", cmd.Args, err)
	}
	return output{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// train runs train.py to its end with checkpoints in workdir ("": none) and
// returns its result line and all it said.
func train(t *testing.T, workdir string, args ...string) (result, said string) {
	t.Helper()
	out := run(t, program(t, []string{"GPUQ_WORKDIR=" + workdir}, "train.py", args...))
	if out.code != 0 {
		t.Fatalf("train.py %v: exit code %d\n%s%s", args, out.code, out.stdout, out.stderr)
	}
	lines := strings.Split(strings.TrimSpace(out.stdout), "\n")
	result = lines[len(lines)-1]
	if !strings.HasPrefix(result, "result accuracy=") {
		t.Fatalf("the last line is %q, want a result", result)
	}
	return result, out.stdout
}

// interrupt starts train.py, sends it the signal once it has said the words,
// and returns all it said and how it ended.
func interrupt(t *testing.T, workdir, words string, signal syscall.Signal, args ...string) (string, *os.ProcessState) {
	t.Helper()
	var env []string
	if workdir != "" {
		env = []string{"GPUQ_WORKDIR=" + workdir}
	}
	cmd := program(t, env, "train.py", args...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	sent := false
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if !sent && strings.Contains(lines.Text(), words) {
			sent = true
			if err := cmd.Process.Signal(signal); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || !sent {
		t.Fatalf("it ended by itself (words seen: %v):\n%s", sent, said.String())
	}
	return said.String(), cmd.ProcessState
}

func TestFigure(t *testing.T) {
	t.Parallel()
	first, _ := train(t, "", short...)
	t.Run("SameSeedGivesSameFigure", func(t *testing.T) {
		if again, _ := train(t, "", short...); again != first {
			t.Errorf("first %s\nthen  %s", first, again)
		}
	})
	t.Run("OtherSeedGivesOtherWeights", func(t *testing.T) {
		other, _ := train(t, "", append([]string{"--seed", "2"}, short...)...)
		if field(t, other, "weights") == field(t, first, "weights") {
			t.Errorf("both seeds gave the same weights: %s", other)
		}
	})
	t.Run("DefaultRunGivesTheStoredFigure", func(t *testing.T) {
		// The loss is stored with fewer digits than are printed: the last ones
		// may depend on the machine's maths library.
		result, _ := train(t, "", "--device", "cpu")
		if a, l := field(t, result, "accuracy"), field(t, result, "loss"); a != "0.9600" || !strings.HasPrefix(l, "0.0840") {
			t.Errorf("accuracy %s and loss %s, want 0.9600 and 0.0840..", a, l)
		}
	})
	t.Run("IsWhatTheSavedWeightsGive", func(t *testing.T) {
		workdir := t.TempDir()
		result, _ := train(t, workdir, short...)
		accuracy, loss := recompute(t, filepath.Join(workdir, "train.checkpoint"))
		if got := field(t, result, "accuracy"); got != accuracy {
			t.Errorf("printed accuracy %s, the saved weights give %s", got, accuracy)
		}
		if got := field(t, result, "loss"); got != loss {
			t.Errorf("printed loss %s, the saved weights give %s", got, loss)
		}
		if accuracy <= "0.9" {
			t.Errorf("accuracy %s is not above 0.9", accuracy)
		}
	})
}

func TestInterruption(t *testing.T) {
	t.Parallel()
	whole, _ := train(t, "", short...)
	// Slow enough that even a machine that stalls for seconds sends its signal in time.
	slow := append([]string{"--slow-epoch", "0.1", "--checkpoint-every", "5"}, short...)

	t.Run("SIGTERMSavesAndTheNextRunEndsWithTheSameFigure", func(t *testing.T) {
		workdir := t.TempDir()
		said, state := interrupt(t, workdir, "epoch 10/100", syscall.SIGTERM, append(slow, "--checkpoint-every", "1000")...)
		if state.ExitCode() != 143 || !strings.Contains(said, "checkpoint saved") {
			t.Fatalf("%v, want exit code 143 and a saved checkpoint:\n%s", state, said)
		}
		_, at, _ := strings.Cut(said, "stopped by SIGTERM at epoch ")
		at, _, _ = strings.Cut(at, ":")
		result, rest := train(t, workdir, short...)
		if at == "" || !strings.Contains(rest, "resumed at epoch "+at+"\n") {
			t.Errorf("stopped at epoch %q, then:\n%s", at, rest)
		}
		if result != whole {
			t.Errorf("resumed %s\nwhole   %s", result, whole)
		}
	})
	t.Run("SIGKILLCostsOnlyTheEpochsSinceTheCheckpoint", func(t *testing.T) {
		workdir := t.TempDir()
		_, state := interrupt(t, workdir, "epoch 10/100", syscall.SIGKILL, slow...)
		if status := state.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
			t.Fatalf("it ended with %v", state)
		}
		result, rest := train(t, workdir, short...)
		if !strings.Contains(rest, "resumed at epoch ") || result != whole {
			t.Errorf("want a resumed run with %s, got:\n%s", whole, rest)
		}
	})
	t.Run("SIGTERMDuringAPauseIsAnsweredAtOnce", func(t *testing.T) {
		began := time.Now()
		said, state := interrupt(t, t.TempDir(), "epoch 1/5 ", syscall.SIGTERM, "--epochs", "5", "--slow-epoch", "3600")
		if state.ExitCode() != 143 || time.Since(began) > time.Minute {
			t.Errorf("%v after %v:\n%s", state, time.Since(began), said)
		}
	})
	t.Run("WithoutAWorkdirNothingIsSavedAndThatIsSaid", func(t *testing.T) {
		said, state := interrupt(t, "", "epoch 10/100", syscall.SIGTERM, slow...)
		if state.ExitCode() != 143 || !strings.Contains(said, ": no checkpoint\n") {
			t.Errorf("%v:\n%s", state, said)
		}
	})
	t.Run("AFinishedRunThatIsRepeatedEndsAtOnceWithItsFigure", func(t *testing.T) {
		workdir := t.TempDir()
		train(t, workdir, short...)
		result, said := train(t, workdir, short...)
		if !strings.Contains(said, "resumed at epoch 100\n") || result != whole {
			t.Errorf("want %s after a resume at epoch 100, got:\n%s", whole, said)
		}
	})
}
