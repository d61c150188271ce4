package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

// endings are the ways a job can end, each with its exit code.
var endings = map[string]struct {
	row  control.JobRow
	code int
	say  string
}{
	"Succeeded":            {control.JobRow{State: job.Succeeded, ExitCode: exitCodeOf(0)}, 0, ""},
	"SucceededAfterARetry": {control.JobRow{State: job.Succeeded, ExitCode: exitCodeOf(0), Class: job.ClassUser}, 0, ""},
	"Exited":               {control.JobRow{State: job.Failed, ExitCode: exitCodeOf(3), Class: job.ClassUser, Reason: "attempt 1 of 1 failed"}, 3, "failed with exit code 3 (user): attempt 1 of 1 failed"},
	"NoSuchCommand":        {control.JobRow{State: job.Failed, ExitCode: exitCodeOf(127), Class: job.ClassUser}, 127, "failed with exit code 127 (user)"},
	"Signalled":            {control.JobRow{State: job.Failed, ExitCode: exitCodeOf(139), Signal: "SIGSEGV", Class: job.ClassUser}, 139, "failed by SIGSEGV (user)"},
	"OutOfMemory":          {control.JobRow{State: job.Failed, ExitCode: exitCodeOf(137), Signal: "SIGKILL", Class: job.ClassOOMHost}, 137, "failed by SIGKILL (oom_host)"},
	"TimeLimit":            {control.JobRow{State: job.Failed, ExitCode: exitCodeOf(143), Signal: "SIGTERM", Class: job.ClassTimeout}, 124, "failed by SIGTERM (timeout)"},
	"HostsLost":            {control.JobRow{State: job.Failed, Class: job.ClassHostLost, Reason: "20 attempts were lost"}, 122, "failed (host_lost): 20 attempts were lost"},
	"DrainedTooOften":      {control.JobRow{State: job.Failed, ExitCode: exitCodeOf(143), Signal: "SIGTERM", Class: job.ClassDrained}, 122, "(drained)"},
	"FailedWithoutACode":   {control.JobRow{State: job.Failed, Class: job.ClassUser}, 122, "failed (user)"},
	"Killed":               {control.JobRow{State: job.Killed, ExitCode: exitCodeOf(143), Signal: "SIGTERM", Class: job.ClassKilled, Reason: "by root"}, 121, "killed by SIGTERM: by root"},
	"KilledBeforeItRan":    {control.JobRow{State: job.Killed, Class: job.ClassKilled}, 121, "killed"},
	"Expired":              {control.JobRow{State: job.Dead, Class: job.ClassExpired, Reason: "it did not start within 1h"}, 120, "dead (expired): it did not start"},
	"Poison":               {control.JobRow{State: job.Dead, Class: job.ClassPoison}, 120, "dead (poison)"},
}

func TestWaitExitsAsTheJobDid(t *testing.T) {
	d := startDaemon(t)
	for name, e := range endings {
		t.Run(name, func(t *testing.T) {
			row := e.row
			row.ID = idA
			d.put(row)
			gpuqctl(t, d, "wait", string(idA)).want(t, e.code, fmt.Sprintf("%s %s\n", idA, row.State), e.say)
		})
		t.Run(name+"/Submit", func(t *testing.T) {
			d.mu.Lock()
			d.onSubmit = func(row control.JobRow) control.JobRow {
				ended := e.row
				ended.ID = row.ID
				return ended
			}
			d.mu.Unlock()
			r := gpuqctl(t, d, "submit", "--wait", "--", "x")
			if r.code != e.code || !uuidLine.MatchString(r.out.String()) || !strings.Contains(r.err.String(), e.say) {
				t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.out.String(), r.err.String())
			}
		})
	}
}

func TestWaitForMany(t *testing.T) {
	d := startDaemon(t)
	ended := func(id job.ID, state job.State, code int) control.JobRow {
		row := control.JobRow{ID: id, State: state, ExitCode: exitCodeOf(code)}
		if code != 0 {
			row.Class = job.ClassUser
		}
		return row
	}
	running := func(id job.ID) control.JobRow { return control.JobRow{ID: id, State: job.Running} }
	t.Run("ExitsWithTheFirstFailureInTheOrderGiven", func(t *testing.T) {
		d.put(running(idA), ended(idB, job.Failed, 7), running(idC))
		looks := 0
		d.onStates = func() { // C, given last, ends before A
			switch looks++; looks {
			case 3:
				d.jobs[idC] = ended(idC, job.Failed, 9)
			case 5:
				d.jobs[idA] = ended(idA, job.Failed, 5)
			}
		}
		r := gpuqctl(t, d, "wait", string(idA), string(idB), string(idC), string(idA))
		d.onStates = nil
		if want := fmt.Sprintf("%s failed\n%s failed\n%s failed\n", idB, idC, idA); r.code != 5 || r.out.String() != want {
			t.Errorf("exit %d, stdout %q, want 5 and %q", r.code, r.out.String(), want)
		}
	})
	t.Run("JSONIsOneArrayInTheOrderGiven", func(t *testing.T) {
		d.put(ended(idA, job.Succeeded, 0), ended(idB, job.Succeeded, 0))
		r := gpuqctl(t, d, "wait", "--json", string(idB), string(idA))
		var rows []control.JobRow
		if err := json.Unmarshal([]byte(r.out.String()), &rows); err != nil || r.code != 0 || len(rows) != 2 || rows[0].ID != idB {
			t.Errorf("exit %d, %+v, %v", r.code, rows, err)
		}
	})
	t.Run("OfWhichOneIsMissing", func(t *testing.T) {
		missing := "0192f0c1-6d2e-7000-8000-00c0ffee00ff"
		gpuqctl(t, d, "wait", string(idA), missing).want(t, exitNoOutcome, "", "there is no job "+missing)
	})
	t.Run("SubmitWaitJSONIsTwoLines", func(t *testing.T) {
		d.onSubmit = func(row control.JobRow) control.JobRow { return ended(row.ID, job.Failed, 4) }
		r := gpuqctl(t, d, "submit", "--wait", "--json", "--", "x")
		lines := strings.Split(strings.TrimSpace(r.out.String()), "\n")
		var reply control.SubmitReply
		var row control.JobRow
		if len(lines) != 2 || json.Unmarshal([]byte(lines[0]), &reply) != nil || json.Unmarshal([]byte(lines[1]), &row) != nil ||
			r.code != 4 || !reply.Created || row.ID != reply.ID || *row.ExitCode != 4 {
			t.Errorf("exit %d, stdout %q", r.code, r.out.String())
		}
	})
}

// A daemon that goes away and comes back does not end a wait.
func TestWaitOutlastsADaemon(t *testing.T) {
	d := startDaemon(t)
	d.put(control.JobRow{ID: idA, State: job.Running})
	looks := 0
	d.onStates = func() {
		switch looks++; looks {
		case 1:
			d.err = control.Errorf(control.CodeUnavailable, "", "the daemon is stopping")
		case 3:
			d.err = nil
			d.jobs[idA] = control.JobRow{ID: idA, State: job.Succeeded}
		}
	}
	gpuqctl(t, d, "wait", string(idA)).want(t, 0, string(idA)+" succeeded\n", "the daemon is stopping; the jobs go on, and so does the wait\n")
}

func TestInterruptedWaitLeavesTheJob(t *testing.T) {
	d := startDaemon(t)
	d.put(control.JobRow{ID: idA, State: job.Running}, control.JobRow{ID: idB, State: job.Succeeded})
	ctx, cancel := context.WithCancelCause(t.Context())
	d.onStates = func() { cancel(errors.New("interrupt")) }
	r := new(run).exec(ctx, d, "wait", string(idA), string(idB))
	r.want(t, exitInterrupted, "", "not ended, and going on: ")
	if !strings.Contains(r.err.String(), string(idA)) || len(d.kills) != 0 {
		t.Errorf("stderr %q, kills %v", r.err.String(), d.kills)
	}
}

// TestCtrlC sends a real signal to a real process.
func TestCtrlC(t *testing.T) {
	d := startDaemon(t)
	asked := make(chan struct{}, 1000)
	d.mu.Lock()
	d.onStates = func() { asked <- struct{}{} }
	d.mu.Unlock()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "--socket", d.path, "submit", "--wait", "--", "sleep", "9")
	cmd.Env = append(os.Environ(), mainEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr safeBuffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	<-asked
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Errorf("it ended with %v", err)
	}
	if id := strings.TrimSpace(line); !uuidLine.MatchString(line) || !strings.Contains(stderr.String(), "going on: "+id) {
		t.Errorf("stdout %q, stderr %q", line, stderr.String())
	}
}

func TestKill(t *testing.T) {
	d := startDaemon(t)
	d.put(control.JobRow{ID: idA, State: job.Running}, control.JobRow{ID: idB, State: job.Queued}, control.JobRow{ID: idC, State: job.Succeeded})
	r := gpuqctl(t, d, "kill", "--reason", "wrong data", string(idA), string(idB), string(idC))
	r.want(t, 0, fmt.Sprintf("%s running\n%s killed\n%s succeeded\n", idA, idB, idC), fmt.Sprintf("%s had ended before", idC))
	r.want(t, 0, anything, fmt.Sprintf("%s is running, and its host ends it", idA))
	if len(d.kills) != 3 || d.kills[0].Reason != "wrong data" {
		t.Errorf("asked %+v", d.kills)
	}
	missing := "0192f0c1-6d2e-7000-8000-00c0ffee00ff"
	gpuqctl(t, d, "kill", missing, string(idB)).want(t, exitNotFound, string(idB)+" killed\n", missing)
}
