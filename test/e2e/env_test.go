package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/proctree"
	"gpuqd/test/cluster"
	"gpuqd/test/wait"
)

// ctl runs gpuqctl.
func (e *env) ctl(t *testing.T, args ...string) cluster.CommandResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r, err := e.Gpuqctl(ctx, args...)
	if err != nil {
		t.Fatalf("gpuqctl %s: %v", strings.Join(args, " "), err)
	}
	return r
}

// submit submits one job and returns its ID.
func (e *env) submit(t *testing.T, args ...string) job.ID {
	t.Helper()
	r := e.ctl(t, append([]string{"submit"}, args...)...)
	if r.Code != 0 {
		t.Fatalf("gpuqctl submit %q: exit code %d: %s", args, r.Code, r.Stderr)
	}
	id, err := job.ParseID(strings.TrimSpace(r.Stdout))
	if err != nil {
		t.Fatalf("gpuqctl submit printed %q: %v", r.Stdout, err)
	}
	return id
}

// show returns the ledger's document.
func (e *env) show(t *testing.T, id job.ID) *job.Job {
	t.Helper()
	r := e.ctl(t, "show", string(id), "--json")
	j := new(job.Job)
	if err := json.Unmarshal([]byte(r.Stdout), j); err != nil {
		t.Fatalf("gpuqctl show %s: exit code %d, %q: %v", id, r.Code, r.Stderr, err)
	}
	return j
}

// rows returns the newest jobs with a label, by a list.
func (e *env) rows(t *testing.T, label string) []control.JobRow {
	t.Helper()
	r := e.ctl(t, "list", "--limit", strconv.Itoa(batchSize), "--json")
	var all, rows []control.JobRow
	if err := json.Unmarshal([]byte(r.Stdout), &all); err != nil {
		t.Fatalf("gpuqctl list: exit code %d, %q: %v", r.Code, r.Stderr, err)
	}
	for _, row := range all {
		if row.Labels["batch"] == label {
			rows = append(rows, row)
		}
	}
	return rows
}

// jobTimeout bounds the wait for one step of one job on two busy cores.
const jobTimeout = 2 * time.Minute

// waitFor waits until the job is in one of the states.
func (e *env) waitFor(t *testing.T, id job.ID, states ...job.State) *job.Job {
	t.Helper()
	var j *job.Job
	wait.For(t, jobTimeout, func() error {
		j = e.show(t, id)
		for _, s := range states {
			if j.State == s {
				return nil
			}
		}
		return fmt.Errorf("job %s is %s (%s), want %v", id, j.State, j.Reason, states)
	})
	return j
}

// waitEnd waits until the job is over.
func (e *env) waitEnd(t *testing.T, id job.ID) *job.Job {
	t.Helper()
	return e.waitFor(t, id, job.Succeeded, job.Failed, job.Killed, job.Dead)
}

// expectWhole checks that every worker is live and free, so that a test does not
// inherit the trouble of the one before.
func (e *env) expectWhole(t *testing.T) {
	t.Helper()
	wait.For(t, jobTimeout, func() error {
		r := e.ctl(t, "hosts", "--json")
		var hosts []control.HostRow
		if err := json.Unmarshal([]byte(r.Stdout), &hosts); err != nil {
			return fmt.Errorf("gpuqctl hosts: exit code %d, %q: %w", r.Code, r.Stderr, err)
		}
		if len(hosts) != len(e.Workers()) {
			return fmt.Errorf("%d hosts, want %d", len(hosts), len(e.Workers()))
		}
		for _, h := range hosts {
			if !h.Live || h.Running > 0 || h.DevicesFree != h.DevicesTotal || h.RenewedAgeSeconds > 10 || h.Drained != nil {
				return fmt.Errorf("host %s is not whole: %+v", h.Name, h)
			}
		}
		return nil
	})
}

// logTails shows what the daemons warned of, after a failure.
func (e *env) logTails(t *testing.T) {
	for _, worker := range e.Workers() {
		file, err := os.Open(e.LogPath(worker))
		if err != nil {
			t.Log(err)
			continue
		}
		var lines []string
		for scan := bufio.NewScanner(file); scan.Scan(); {
			lines = append(lines, scan.Text())
		}
		file.Close()
		lines = lines[max(0, len(lines)-60):]
		t.Logf("%s ends with:\n%s", worker, strings.Join(lines, "\n"))
	}
}

// log returns what a daemon has logged.
func (e *env) log(t *testing.T, worker string) string {
	t.Helper()
	text, err := os.ReadFile(e.LogPath(worker))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// witness is a file that payloads append to: what really ran.
type witness struct{ path string }

func newWitness(t *testing.T) witness {
	return witness{filepath.Join(t.TempDir(), "witness")}
}

// script returns a shell command that tells the witness of its start, runs body,
// and tells of its end.
func (w witness) script(body string) []string {
	say := func(event string) string {
		return fmt.Sprintf(`echo "%s $GPUQ_JOB_ID $GPUQ_ATTEMPT $CUDA_VISIBLE_DEVICES $(date +%%s.%%N)" >> %s`, event, w.path)
	}
	return []string{"sh", "-c", say("start") + "; " + body + "; " + say("end")}
}

// execution is one line of the witness.
type execution struct {
	event   string
	id      job.ID
	attempt int
	devices []string
	at      float64 // seconds
}

func (w witness) read(t *testing.T) []execution {
	t.Helper()
	var list []execution
	for line := range strings.Lines(writtenLines(t, w.path)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		if len(f) != 5 {
			t.Fatalf("line of the witness: %q", line)
		}
		attempt, err := strconv.Atoi(f[2])
		if err != nil {
			t.Fatal(err)
		}
		at, err := strconv.ParseFloat(f[4], 64)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, execution{event: f[0], id: job.ID(f[1]), attempt: attempt, devices: strings.Split(f[3], ","), at: at})
	}
	return list
}

// writtenLines reads the whole lines of a file that others append to. Where a
// line crosses a page of the file, a reader can find it half there.
func writtenLines(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text[:bytes.LastIndexByte(text, '\n')+1])
}

// starts counts the executions by job.
func (w witness) starts(t *testing.T) map[job.ID]int {
	t.Helper()
	n := map[job.ID]int{}
	for _, x := range w.read(t) {
		if x.event == "start" {
			n[x.id]++
		}
	}
	return n
}

// waitStart waits until the job has told the witness of its start.
func (w witness) waitStart(t *testing.T, id job.ID) {
	t.Helper()
	wait.For(t, jobTimeout, func() error {
		if w.starts(t)[id] == 0 {
			return fmt.Errorf("job %s has not started", id)
		}
		return nil
	})
}

// metric returns the sum of a counter over all workers.
func (e *env) metric(t *testing.T, name string) float64 {
	t.Helper()
	var sum float64
	for worker, address := range e.metrics {
		response, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			t.Fatalf("metrics of %s: %v", worker, err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatalf("metrics of %s: %v", worker, err)
		}
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, name+" "); ok {
				v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
				if err != nil {
					t.Fatal(err)
				}
				sum += v
			}
		}
	}
	return sum
}

// processesWith returns the processes whose environment or arguments have text.
func processesWith(t *testing.T, file, text string) []string {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/" + file)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, path := range found {
		data, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(data, []byte(text)) {
			continue // gone meanwhile, or another's
		}
		pid := filepath.Base(filepath.Dir(path))
		if pid == strconv.Itoa(os.Getpid()) || isZombie(pid) {
			continue
		}
		args, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		list = append(list, pid+" "+strings.ReplaceAll(string(args), "\x00", " "))
	}
	return list
}

func isZombie(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(after, "Z")
}

func expectNoProcessOf(t *testing.T, dir string) {
	t.Helper()
	for _, file := range []string{"cmdline", "environ"} {
		for _, p := range processesWith(t, file, dir) {
			t.Errorf("process left behind: %s", p)
		}
	}
}

// expectNoCgroups checks that the daemons have left no cgroup of an attempt that
// they ever began. Those of other clusters are none of this test's business.
func (e *env) expectNoCgroups(t *testing.T) {
	t.Helper()
	var attempts []string
	for _, worker := range e.Workers() {
		dirs, err := filepath.Glob(filepath.Join(e.StateDir(worker), "attempts", "[^.]*"))
		if err != nil {
			t.Fatal(err)
		}
		attempts = append(attempts, dirs...)
	}
	t.Logf("%d attempts in the journals", len(attempts))
	for _, dir := range attempts {
		key, err := runner.ParseKey(filepath.Base(dir))
		if err != nil {
			t.Fatal(err)
		}
		if left := proctree.FindCgroup(key.CgroupName()); left != "" {
			t.Errorf("cgroup left behind: %s", left)
		}
	}
}

// expectNoProcessOfJob checks that nothing of the job's tree is alive.
func expectNoProcessOfJob(t *testing.T, id job.ID) {
	t.Helper()
	if left := processesWith(t, "environ", "GPUQ_JOB_ID="+string(id)); len(left) > 0 {
		t.Errorf("processes of job %s are left: %v", id, left)
	}
}
