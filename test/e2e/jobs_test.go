package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/job"
)

func testRetry(t *testing.T, e *env) {
	w := newWitness(t)
	id := e.submit(t, append([]string{"--max-attempts", "2", "--backoff", "1s", "--"}, w.script("exit 3")...)...)
	j := e.waitEnd(t, id)
	if j.State != job.Failed || j.Result.Class != job.ClassUser || j.Result.ExitCode != 3 || j.Attempt != 2 {
		t.Errorf("job is %s, class %s, exit code %d, attempt %d; want failed, user, 3, 2", j.State, j.Result.Class, j.Result.ExitCode, j.Attempt)
	}
	if n := w.starts(t)[id]; n != 2 {
		t.Errorf("it ran %d times, want 2", n)
	}
	if r := e.ctl(t, "submit", "--wait", "--", "sh", "-c", "exit 7"); r.Code != 7 {
		t.Errorf("submit --wait exited with %d, want the job's 7: %s", r.Code, r.Stderr)
	}
	if r := e.ctl(t, "submit", "--wait", "--retry-on", "9", "--max-attempts", "5", "--", "sh", "-c", "exit 7"); r.Code != 7 {
		t.Errorf("submit --wait exited with %d, want 7 at once: it is not in retry_on", r.Code)
	}
}

func testMissingProgram(t *testing.T, e *env) {
	j := e.waitEnd(t, e.submit(t, "--", "/no/such/program"))
	if j.State != job.Failed || j.Result.ExitCode != 127 || !strings.Contains(j.Reason, "/no/such/program") {
		t.Errorf("job is %s with exit code %d (%s), want failed, 127 and a reason that names the program", j.State, j.Result.ExitCode, j.Reason)
	}
}

func testTimeLimit(t *testing.T, e *env) {
	w := newWitness(t)
	// The command and a child in a session of its own ignore SIGTERM.
	stubborn := `trap "" TERM; setsid sh -c 'trap "" TERM; while :; do sleep 1; done' & while :; do sleep 1; done`
	id := e.submit(t, append([]string{"--time-limit", "2s", "--grace", "1s", "--"}, w.script(stubborn)...)...)
	w.waitStart(t, id)
	j := e.waitEnd(t, id)
	if j.State != job.Failed || j.Result.Class != job.ClassTimeout {
		t.Errorf("job is %s, class %s; want failed, timeout", j.State, j.Result.Class)
	}
	expectNoProcessOfJob(t, id)
}

func testKillWaiting(t *testing.T, e *env) {
	w := newWitness(t)
	id := e.submit(t, append([]string{"--pool", "nowhere", "--"}, w.script("true")...)...)
	if r := e.ctl(t, "kill", string(id), "--reason", "not needed"); r.Code != 0 {
		t.Fatalf("kill: exit code %d: %s", r.Code, r.Stderr)
	}
	j := e.show(t, id)
	if j.State != job.Killed || !strings.Contains(j.Reason, "not needed") {
		t.Errorf("job is %s (%s), want killed with the reason given", j.State, j.Reason)
	}
	if n := w.starts(t)[id]; n != 0 {
		t.Errorf("it ran %d times", n)
	}
	if r := e.ctl(t, "kill", string(job.NewID())); r.Code != 4 {
		t.Errorf("kill of an unknown job exited with %d, want 4: %s", r.Code, r.Stderr)
	}
}

func testKillRunning(t *testing.T, e *env) {
	w := newWitness(t)
	id := e.submit(t, append([]string{"--max-attempts", "3", "--"}, w.script("sleep 600 & sleep 600")...)...)
	w.waitStart(t, id)
	e.waitFor(t, id, job.Running)
	if r := e.ctl(t, "kill", string(id)); r.Code != 0 {
		t.Fatalf("kill: exit code %d: %s", r.Code, r.Stderr)
	}
	j := e.waitEnd(t, id)
	if j.State != job.Killed || j.Result.Class != job.ClassKilled || j.Attempt != 1 {
		t.Errorf("job is %s, class %s, attempt %d; want killed, killed, 1", j.State, j.Result.Class, j.Attempt)
	}
	expectNoProcessOfJob(t, id)
}

func testPriority(t *testing.T, e *env) {
	// All devices are kept busy while the two wait; one device is freed first.
	w := newWitness(t)
	dir := t.TempDir()
	gate := dir + "/open"
	hold := func(name string) []string { // until the gate is open, or the test over
		return w.script(fmt.Sprintf(`while [ -d %s ] && [ ! -e %s.%s ]; do sleep 0.1; done`, dir, gate, name))
	}
	var holders []job.ID
	for i := range 6 {
		holders = append(holders, e.submit(t, append([]string{"--"}, hold(fmt.Sprint(i))...)...))
	}
	for _, id := range holders {
		w.waitStart(t, id)
	}
	devices := map[string]bool{}
	for _, x := range w.read(t) {
		devices[x.devices[0]] = true
	}
	if len(devices) != 6 {
		t.Errorf("six jobs at once hold %d devices, want each its own", len(devices))
	}
	low := e.submit(t, append([]string{"--priority", "low", "--"}, w.script("true")...)...)
	high := e.submit(t, append([]string{"--priority", "high", "--"}, w.script("true")...)...)
	for i := range 6 {
		if err := os.WriteFile(fmt.Sprintf("%s.%d", gate, i), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			w.waitStart(t, high)
		}
	}
	e.waitEnd(t, low)
	for _, id := range holders { // each through its gate, before that is gone
		e.waitEnd(t, id)
	}
	var order []job.ID
	for _, x := range w.read(t) {
		if x.event == "start" && (x.id == low || x.id == high) {
			order = append(order, x.id)
		}
	}
	if !slices.Equal(order, []job.ID{high, low}) {
		t.Errorf("started in the order %v, want high %s before low %s", order, high, low)
	}
	for _, id := range holders {
		e.waitEnd(t, id)
	}
}

func testExclusiveDevices(t *testing.T, e *env) {
	w := newWitness(t)
	ids := map[job.ID]int{}
	for i := range 24 {
		gpus := 1 + i%2
		id := e.submit(t, append([]string{"--gpus", fmt.Sprint(gpus), "--"}, w.script("sleep 0.3")...)...)
		ids[id] = gpus
	}
	for id := range ids {
		if j := e.waitEnd(t, id); j.State != job.Succeeded {
			t.Errorf("job %s is %s: %s", id, j.State, j.Reason)
		}
	}
	holder := map[string]job.ID{}
	for _, x := range w.read(t) { // appended in the order of the events
		if len(x.devices) != ids[x.id] {
			t.Errorf("job %s saw %d devices, want %d", x.id, len(x.devices), ids[x.id])
		}
		for _, d := range x.devices {
			switch {
			case x.event == "start" && holder[d] != "":
				t.Errorf("device %s was given to %s while %s held it", d, x.id, holder[d])
			case x.event == "start":
				holder[d] = x.id
			default:
				holder[d] = ""
			}
		}
	}
}

func testExpires(t *testing.T, e *env) {
	id := e.submit(t, "--pool", "nowhere", "--expires", "2s", "--", "true")
	j := e.waitEnd(t, id)
	if j.State != job.Dead || j.Result.Class != job.ClassExpired {
		t.Errorf("job is %s, class %s; want dead, expired", j.State, j.Result.Class)
	}
}

func testFollowLogs(t *testing.T, e *env) {
	w := newWitness(t)
	id := e.submit(t, append([]string{"--"}, w.script("for i in 1 2 3; do echo line $i; sleep 0.5; done")...)...)
	w.waitStart(t, id)
	r := e.ctl(t, "logs", "-f", string(id))
	if r.Code != 0 || r.Stdout != "line 1\nline 2\nline 3\n" {
		t.Errorf("logs -f: exit code %d, %q, %s", r.Code, r.Stdout, r.Stderr)
	}
	if again := e.ctl(t, "logs", string(id)); again.Stdout != r.Stdout {
		t.Errorf("logs of the finished job: %q, want %q", again.Stdout, r.Stdout)
	}
}

func testSubmitFile(t *testing.T, e *env) {
	var specs strings.Builder
	for i := range 10 {
		fmt.Fprintf(&specs, `{"name": "n%d", "command": ["sh", "-c", "true"], "labels": {"batch": "file"}}`+"\n", i)
	}
	r, err := e.GpuqctlInput(t.Context(), strings.NewReader(specs.String()), "submit", "-f", "-")
	if err != nil || r.Code != 0 {
		t.Fatalf("submit -f -: %v, exit code %d: %s", err, r.Code, r.Stderr)
	}
	ids := strings.Fields(r.Stdout)
	if len(ids) != 10 {
		t.Fatalf("submit -f printed %d lines, want 10: %q", len(ids), r.Stdout)
	}
	for i, id := range ids {
		if j := e.waitEnd(t, job.ID(id)); j.Spec.Name != fmt.Sprintf("n%d", i) || j.State != job.Succeeded {
			t.Errorf("line %d is job %s, named %s, %s", i, id, j.Spec.Name, j.State)
		}
	}
	bad := `{"command": ["true"]}` + "\n" + `{"command": [], "gpus": -1}` + "\n"
	r, err = e.GpuqctlInput(t.Context(), strings.NewReader(bad), "submit", "-f", "-")
	if err != nil || r.Code != 2 || r.Stdout != "" || !strings.Contains(r.Stderr, "2") {
		t.Errorf("a file with a bad second spec: %v, exit code %d, stdout %q, stderr %q; want 2 and nothing submitted", err, r.Code, r.Stdout, r.Stderr)
	}
}

// since returns a check that now is at most d after the call to since.
func since() func() time.Duration {
	began := time.Now()
	return func() time.Duration { return time.Since(began) }
}
