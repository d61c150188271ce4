package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gpuqd/daemon/job"
)

const ms = int64(time.Millisecond)

func TestGapsAreBetweenNeighboursOfOneDevice(t *testing.T) {
	stamps := []stamp{ // in the order of their ends, as they are written
		{"a", "GPU-1", 0, 100 * ms},
		{"b", "GPU-2", 5 * ms, 105 * ms},
		{"c", "GPU-1", 130 * ms, 200 * ms},
		{"d", "GPU-2", 145 * ms, 205 * ms},
		{"e", "GPU-1", 210 * ms, 300 * ms},
	}
	got := slices.Sorted(slices.Values(gaps(stamps)))
	if want := []float64{10, 30, 40}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if gaps(stamps[:2]) != nil {
		t.Error("first jobs have a gap before them")
	}
}

func TestShareIsOfAllDevices(t *testing.T) {
	stamps := []stamp{{"a", "GPU-1", 0, 100 * ms}, {"b", "GPU-2", 0, 50 * ms}, {"c", "GPU-2", 75 * ms, 100 * ms}}
	if got := share(stamps, 2); got != 0.875 {
		t.Errorf("got %g, want 0.875", got)
	}
	if got := share(stamps, 4); got != 0.4375 {
		t.Errorf("of twice as many devices: got %g, want 0.4375", got)
	}
	if share(nil, 8) != 0 {
		t.Error("no job has a share")
	}
}

func TestPayloadStamps(t *testing.T) {
	file := filepath.Join(t.TempDir(), "stamps")
	before := time.Now().UnixNano()
	for _, args := range [][]string{{file}, {file, "20"}} {
		cmd := exec.CommandContext(t.Context(), program(t, stampProgram), args...)
		cmd.Env = []string{"GPUQ_JOB_ID=j", "CUDA_VISIBLE_DEVICES=GPU-1,GPU-2"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	list, err := readStamps(file)
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	for i, s := range list {
		if s.job != "j" || s.devices != "GPU-1,GPU-2" || s.start < before || s.end-s.start < int64(i)*20*ms || s.end > time.Now().UnixNano() {
			t.Errorf("stamp %d: %+v", i, s)
		}
	}
	if list[0].end > list[1].start {
		t.Error("one after the other, they overlap")
	}
}

func TestStampsThatAreNone(t *testing.T) {
	if list, err := readStamps(filepath.Join(t.TempDir(), "none")); list != nil || err != nil {
		t.Errorf("a file that is not there yet: %v, %v", list, err)
	}
	file := filepath.Join(t.TempDir(), "torn")
	if err := os.WriteFile(file, []byte("j GPU-1 12\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readStamps(file); err == nil {
		t.Error("a line without an end was read")
	}
}

func TestSpanIsFromTheFirstStartToTheLastCommit(t *testing.T) {
	at := func(seconds int) job.Time { return job.At(time.Unix(1_700_000_000+int64(seconds), 0)) }
	done := func(start, commit int) *job.Job {
		return &job.Job{
			State: job.Succeeded, Attempt: 1, Result: &job.Result{StartedAt: at(start)},
			History: []job.Change{{State: job.Queued, At: at(0)}, {State: job.Succeeded, At: at(commit)}},
		}
	}
	n, seconds, err := span([]*job.Job{done(12, 14), done(10, 13), {State: job.Queued}, done(11, 20)})
	if n != 3 || seconds != 10 || err != nil {
		t.Errorf("got %d jobs in %g s, %v; want 3 in 10", n, seconds, err)
	}
	failed := done(1, 2)
	failed.State = job.Failed
	if _, _, err := span([]*job.Job{failed}); err == nil {
		t.Error("a failed job was counted")
	}
}
