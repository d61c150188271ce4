package campaign

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
)

const testID = job.ID("01a203e4-62c5-7ca4-8c75-cbda612dbe55")

// runPayload runs a payload as an attempt of the test's job.
func runPayload(t *testing.T, attempt int, o PayloadOptions) int {
	t.Helper()
	t.Setenv(runner.EnvJobID, string(testID))
	t.Setenv(runner.EnvAttempt, strconv.Itoa(attempt))
	t.Setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
	code, err := Payload(o)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func TestPayloadFailsAsOftenAsItIsToldAndTellsItsWitness(t *testing.T) {
	dir := t.TempDir()
	o := PayloadOptions{Dir: dir, Runs: 2 * beat, Failures: 2, Code: 7}
	for attempt, want := range []int{7, 7, 0, 0} {
		if got := runPayload(t, attempt+1, o); got != want {
			t.Errorf("attempt %d ended with %d, want %d", attempt+1, got, want)
		}
	}
	all, err := readWitnesses(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 4 {
		t.Fatalf("%d executions, want 4", len(all))
	}
	for i, x := range all {
		if x.Job != testID || x.Attempt != i+1 || !x.Complete || len(x.Halts) > 0 ||
			x.PID != os.Getpid() || !slices.Equal(x.Devices, []string{"GPU-a", "GPU-b"}) || x.Last.Sub(x.Began) < 2*beat {
			t.Errorf("execution %+v", x)
		}
	}
}

// witnessFile writes a witness file with marks at these seconds.
func witnessFile(t *testing.T, seconds []float64, tail string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "witness")
	text := ""
	for i, s := range seconds {
		at := int64(s * 1e9)
		if i == 0 {
			text += fmt.Sprintf(`{"at":%d,"start":{"job":%q,"attempt":1,"pid":3,"shim":"gpuqd-shim run /tmp/x/worker_2/state/attempts/a.1"}}`+"\n", at, testID)
		} else {
			text += fmt.Sprintf(`{"at":%d}`+"\n", at)
		}
	}
	if err := os.WriteFile(path, []byte(text+tail), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func at(seconds float64) time.Time { return time.Unix(0, int64(seconds*1e9)) }

func TestWitness(t *testing.T) {
	t.Run("PauseOfASecondIsAHaltOnTheHostOfTheShim", func(t *testing.T) {
		list, err := readWitness(witnessFile(t, []float64{1, 1.1, 3, 3.9, 4}, ""))
		if err != nil {
			t.Fatal(err)
		}
		x := list[0]
		if x.Host != "worker_2" || x.Complete || !x.Last.Equal(at(4)) || !slices.Equal(x.Halts, []Halt{{at(1.1), at(3)}}) {
			t.Errorf("execution %+v", x)
		}
		if got := x.stretches(); !slices.Equal(got, []Halt{{at(1), at(1.1)}, {at(3), at(4)}}) {
			t.Errorf("it ran in %v", got)
		}
	})
	t.Run("LineThatWasCutByAKillIsNoSign", func(t *testing.T) {
		list, err := readWitness(witnessFile(t, []float64{1, 1.1}, `{"at":12`))
		if err != nil || !list[0].Last.Equal(at(1.1)) {
			t.Errorf("execution %+v, %v", list, err)
		}
	})
	t.Run("DamagedLineIsReported", func(t *testing.T) {
		if _, err := readWitness(witnessFile(t, []float64{1}, "gibberish\n")); err == nil {
			t.Error("a damaged witness was read")
		}
	})
	t.Run("SecondStartInOneFileIsASecondExecution", func(t *testing.T) {
		again := fmt.Sprintf(`{"at":%d,"start":{"job":%q,"attempt":1}}`+"\n", int64(2e9), testID)
		list, err := readWitness(witnessFile(t, []float64{1}, again))
		if err != nil || len(list) != 2 {
			t.Errorf("%d executions, %v; want 2", len(list), err)
		}
	})
}

func TestOverlapIsTheTimeInWhichBothMadeSteps(t *testing.T) {
	frozen := Execution{Began: at(0), Last: at(10), Halts: []Halt{{at(2), at(8)}}}
	for _, c := range []struct {
		other Execution
		want  time.Duration
	}{
		{Execution{Began: at(3), Last: at(7)}, 0},
		{Execution{Began: at(1), Last: at(3)}, time.Second},
		{Execution{Began: at(1), Last: at(9)}, 2 * time.Second},
		{Execution{Began: at(11), Last: at(12)}, 0},
	} {
		if got := overlap(frozen, c.other); got != c.want {
			t.Errorf("overlap with %v to %v: %s, want %s", c.other.Began.Unix(), c.other.Last.Unix(), got, c.want)
		}
	}
}
