package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

const missingID = "0192f0c1-6d2e-7000-8000-00c0ffee00ff"

func TestHoldAndRelease(t *testing.T) {
	d := startDaemon(t)
	d.put(control.JobRow{ID: idA, State: job.Queued}, control.JobRow{ID: idB, State: job.Running}, control.JobRow{ID: idC, State: job.Retrying})
	r := gpuqctl(t, d, "hold", "--reason", "wrong data", string(idA), string(idB), string(idC))
	r.want(t, exitConflict, fmt.Sprintf("%s waiting\n%s waiting\n", idA, idC), fmt.Sprintf("gpuqctl: hold %s: job %s is running: gpuqctl kill ends it\n", idB, idB))
	if len(d.holds) != 3 || d.holds[0].Reason != "wrong data" {
		t.Errorf("asked %+v", d.holds)
	}
	gpuqctl(t, d, "list").want(t, 0, "waiting (held)", "")
	gpuqctl(t, d, "hold", string(idA)).want(t, 0, string(idA)+" waiting\n", "was held before")
	d.warning = "the broker is out of reach; it is published later"
	gpuqctl(t, d, "release", string(idA), missingID).want(t, exitNotFound, string(idA)+" queued\n", string(idA)+": the broker is out of reach")
	gpuqctl(t, d, "release", string(idB)).want(t, 0, string(idB)+" running\n", "was not held: gpuqctl why "+string(idB))
}

func TestWhy(t *testing.T) {
	d := startDaemon(t)
	d.whys = map[job.ID]control.WhyReply{
		idA: {
			ID: idA, State: job.Queued, Sentence: "It waits for 8 free GPUs on one host of pool default.", Ahead: 12, AheadMore: true,
			Hosts: []control.WhyHost{{Host: "gpu1", Reason: "3 of 8 GPUs are free"}, {Host: "login1", Reason: "it has no GPU"}},
		},
		idB: {ID: idB, State: job.Succeeded, Sentence: "It succeeded."},
	}
	golden(t, "why", gpuqctl(t, d, "why", string(idA)))
	golden(t, "why-hosts", gpuqctl(t, d, "why", "-v", string(idA)))
	golden(t, "why-many", gpuqctl(t, d, "why", string(idB), missingID, string(idA)))
	r := gpuqctl(t, d, "why", "--json", string(idB), string(idA))
	var got []control.WhyReply
	if err := json.Unmarshal([]byte(r.out.String()), &got); err != nil || len(got) != 2 || got[0].ID != idB || len(got[1].Hosts) != 2 {
		t.Errorf("%v: %+v", err, got)
	}
}

// hosted puts in two hosts, two devices of the first, and a job on each of these.
func hosted(d *daemon) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hosts = []control.HostRow{{Name: "gpu1", Live: true, Running: 2, DevicesTotal: 2, Pools: []string{"default", "large"}}, {Name: "gpu2", Live: true}}
	d.devices.Devices = []control.DeviceRow{
		{Host: "gpu1", UUID: "GPU-aa01", Index: 0, Model: "NVIDIA H200", State: "busy", JobID: idA}, {Host: "gpu1", UUID: "GPU-bb02", Index: 1, State: "busy", JobID: idB},
	}
	for id, device := range map[job.ID]string{idA: "GPU-aa01", idB: "GPU-bb02"} {
		d.jobs[id] = control.JobRow{ID: id, State: job.Running, Attempt: 1, Host: "gpu1", Submitter: "ada", Name: "train", StartedAt: ago(time.Minute)}
		d.docs[id] = &job.Job{ID: id, Attempt: 1, State: job.Running, Owner: &job.Owner{Host: "gpu1", Devices: []string{device}}}
	}
	d.jobs[idC] = control.JobRow{ID: idC, State: job.Running, Host: "gpu2"}
}

func TestDrain(t *testing.T) {
	t.Run("OfAHostShowsWhatRunsThere", func(t *testing.T) {
		d := startDaemon(t)
		hosted(d)
		golden(t, "drain", gpuqctl(t, d, "drain", "gpu1", "--reason", " row remap pending "))
		if got := d.drains[0]; got.Reason != "row remap pending" || got.Mode != control.DrainFinish || got.Deadline != 0 {
			t.Errorf("asked %+v", got)
		}
	})
	t.Run("OfADeviceIsOfItAlone", func(t *testing.T) {
		d := startDaemon(t)
		hosted(d)
		r := gpuqctl(t, d, "drain", "gpu1/GPU-bb", "--reason", "XID 79", "--mode", "requeue", "--deadline", "1d")
		r.want(t, 0, "gpu1/GPU-bb02 is drained: one attempt may go on for 1d; then it is ended and queued again\n", "gpuqctl resume gpu1/GPU-bb02 ends the drain")
		if out := r.out.String(); !strings.Contains(out, string(idB)) || strings.Contains(out, string(idA)) {
			t.Errorf("stdout %q", out)
		}
		if got := d.drains[0]; got.Device != "GPU-bb" || got.Mode != control.DrainRequeue || got.Deadline.Std() != 24*time.Hour {
			t.Errorf("asked %+v", got)
		}
	})
	t.Run("JSON", func(t *testing.T) {
		d := startDaemon(t)
		hosted(d)
		var got drained
		r := gpuqctl(t, d, "drain", "gpu1", "--reason", "x", "--json")
		if err := json.Unmarshal([]byte(r.out.String()), &got); err != nil || got.Host != "gpu1" || got.Running != 2 || len(got.Jobs) != 2 {
			t.Errorf("%v: %+v", err, got)
		}
	})
	t.Run("Resume", func(t *testing.T) {
		d := startDaemon(t)
		hosted(d)
		d.warning = "host gpu1 could not be told"
		gpuqctl(t, d, "drain", "gpu1", "--reason", "x").want(t, 0, "gpu1 is drained: 2 attempts go on to their end", "host gpu1 could not be told")
		gpuqctl(t, d, "resume", "gpu1").want(t, 0, "gpu1 takes work again\n", "host gpu1 could not be told")
		gpuqctl(t, d, "resume", "gpu1").want(t, 0, "gpu1 was not drained, and nothing else that a resume ends kept it from work\n", anything)
		gpuqctl(t, d, "resume", "gpu9").want(t, exitNotFound, "", "there is no host gpu9")
	})
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"WithoutAReason": {[]string{"gpu1"}, `add --reason "..."`},
		"BlankReason":    {[]string{"gpu1", "--reason", "  "}, `add --reason "..."`},
		"BadMode":        {[]string{"gpu1", "--reason", "x", "--mode", "now"}, "none of finish, requeue and kill"},
		"BadDeadline":    {[]string{"gpu1", "--reason", "x", "--deadline", "-1h"}, "want a number with its unit"},
		"NoDevice":       {[]string{"gpu1/", "--reason", "x"}, "neither HOST nor HOST/DEVICE"},
		"NoHost":         {[]string{"--reason", "x"}, "want one HOST"},
		"NothingToAwait": {[]string{"gpu2", "--wait"}, "gpu2 is not drained, so there is nothing to wait for"},
	} {
		t.Run("Refused/"+name, func(t *testing.T) {
			d := startDaemon(t)
			hosted(d)
			gpuqctl(t, d, append([]string{"drain"}, c.args...)...).want(t, exitUsage, "", c.want)
			if len(d.drains) != 0 {
				t.Errorf("drained %+v", d.drains)
			}
		})
	}
}

func TestDrainWait(t *testing.T) {
	// emptied ends one job at the second look at the hosts, the other at the fourth.
	emptied := func(d *daemon) func() {
		looks := 0
		return func() {
			switch looks++; looks {
			case 2:
				d.jobs[idA] = control.JobRow{ID: idA, State: job.Succeeded}
			case 3: // nobody answers for a moment
				d.err = control.Errorf(control.CodeUnavailable, "", "the daemon is stopping")
			case 4:
				d.err = nil
				d.jobs[idB] = control.JobRow{ID: idB, State: job.Failed}
			}
		}
	}
	t.Run("ReturnsWhenNothingRunsThere", func(t *testing.T) {
		d := startDaemon(t)
		hosted(d)
		d.onHosts = emptied(d)
		r := gpuqctl(t, d, "drain", "gpu1", "--reason", "x", "--wait")
		r.want(t, 0, "gpu1 is drained", fmt.Sprintf("one attempt (%s) left on gpu1\n", idB))
		r.want(t, 0, anything, "the daemon is stopping; the drain stays, and the wait goes on\n")
		r.want(t, 0, anything, "nothing runs on gpu1 any more\n")
	})
	t.Run("OfADeviceDoesNotWaitForTheOthers", func(t *testing.T) {
		d := startDaemon(t)
		hosted(d)
		d.devices.Devices[1].Drained = &control.Drain{Who: "root"}
		shows := 0
		d.onShow = func() {
			if shows++; shows == 2 { // both jobs were looked at once: B ends now, A runs on
				d.jobs[idB] = control.JobRow{ID: idB, State: job.Succeeded}
			}
		}
		gpuqctl(t, d, "drain", "gpu1/1", "--wait").want(t, 0, "", "nothing runs on gpu1/GPU-bb02 any more\n")
		if len(d.drains) != 0 {
			t.Errorf("drained again: %+v", d.drains)
		}
	})
	t.Run("EndsWhenSomebodyResumes", func(t *testing.T) {
		d := startDaemon(t)
		hosted(d)
		looks := 0
		d.onHosts = func() {
			if looks++; looks == 2 {
				d.hosts[0].Drained = nil
			}
		}
		gpuqctl(t, d, "drain", "gpu1", "--reason", "x", "--wait").want(t, exitConflict, "gpu1 is drained", "gpu1 was resumed while 2 attempts")
	})
	t.Run("InterruptedLeavesTheDrain", func(t *testing.T) {
		d := startDaemon(t)
		hosted(d)
		ctx, cancel := context.WithCancelCause(t.Context())
		d.onHosts = func() { cancel(errors.New("interrupt")) }
		r := new(run).exec(ctx, d, "drain", "gpu1", "--reason", "x", "--wait")
		r.want(t, exitInterrupted, "gpu1 is drained", "interrupt: gpu1 stays drained: gpuqctl drain gpu1 --wait waits on, gpuqctl resume gpu1 ends the drain")
		if d.hosts[0].Drained == nil || len(d.resumes) != 0 {
			t.Error("the drain is gone")
		}
	})
}

// set puts in two dead messages and a dead job.
func set(d *daemon) (text, binary string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	text, binary = strings.Repeat("5f2a9c01", 8), strings.Repeat("a0b1c2d3", 8)
	d.dead = []control.DeadShowReply{
		{
			DeadRow: control.DeadRow{
				ID: text, Kind: control.DeadMessage, At: ago(time.Hour), Reason: `unparsable: unknown field "comand"`, User: "ada", Queue: "gpuq.submit", Bytes: 31,
			},
			MessageID: "m-1", Host: "gpu1", Body: []byte(`{"schema":1,"comand":["\u001b]0;x"]}`),
		},
		{
			DeadRow: control.DeadRow{ID: binary, Kind: control.DeadMessage, At: ago(40 * day), Reason: "no JSON", Queue: "gpuq.submit", Bytes: 3 << 20},
			Body:    []byte("\xff\x00\x1b[31m"), Cut: true, Host: "gpu2",
		},
		{
			DeadRow: control.DeadRow{ID: string(idA), Kind: control.DeadJob, At: ago(time.Minute), Reason: "it did not start within 1h", User: "ada", Queue: "gpuq.job.default.normal.g1.any"},
			Job:     job.New(idA, "ada", job.DefaultSpec(), ago(time.Hour)),
		},
	}
	return text, binary
}

func TestDead(t *testing.T) {
	d := startDaemon(t)
	gpuqctl(t, d, "dead", "list").want(t, 0, "", "nothing is dead")
	golden(t, "dead-list-empty-json", gpuqctl(t, d, "dead", "list", "--json"))
	text, binary := set(d)
	golden(t, "dead-list", gpuqctl(t, d, "dead", "list"))
	golden(t, "dead-list-more", gpuqctl(t, d, "dead", "list", "--limit", "1"))
	golden(t, "dead-show", gpuqctl(t, d, "dead", "show", text[:16]))
	golden(t, "dead-show-binary", gpuqctl(t, d, "dead", "show", binary[:8]))
	golden(t, "dead-show-job", gpuqctl(t, d, "dead", "show", string(idA)))
	gpuqctl(t, d, "dead", "show", "--body", text).want(t, 0, string(d.dead[0].Body), "")
	gpuqctl(t, d, "dead", "show", "--body", binary).want(t, 0, string(d.dead[1].Body), "only the first 7 B of 3 MiB were kept")
	gpuqctl(t, d, "dead", "show", "--body", string(idA)).want(t, exitUsage, "", "gpuqctl show "+string(idA))
	gpuqctl(t, d, "dead", "requeue", text).want(t, 0, fmt.Sprintf("%s queued\n", idC), "")
	gpuqctl(t, d, "dead", "requeue", text).want(t, 0, fmt.Sprintf("%s queued\n", idC), "had been requeued before, as "+string(idC))
}

func TestDeadPurge(t *testing.T) {
	for name, c := range map[string]struct {
		args     []string
		terminal bool
		input    string
		code     int
		left     int // of three
		out, err string
	}{
		"ByIDWithYes":            {[]string{"5f2a9c01", "--yes"}, false, "", 0, 2, "1 message forgotten\n", ""},
		"ByAgeWithYes":           {[]string{"--older-than", "30d", "-y"}, false, "", 0, 2, "1 message forgotten\n", ""},
		"AllByAge":               {[]string{"--older-than", "0", "-y"}, false, "", 0, 1, "2 messages forgotten\n", ""},
		"NothingIsOlder":         {[]string{"--older-than", "60d"}, false, "", 0, 3, "0 messages forgotten\n", "no message was set aside before 2026-09-23 14:00:00 UTC"},
		"InAPipeWithoutYes":      {[]string{"--older-than", "30d"}, false, "y\n", exitUsage, 3, "", "forget 1 message, set aside before 2026-10-23 14:00:00 UTC, for good: nobody is at a terminal to say so: add --yes"},
		"OnATerminalYes":         {[]string{"5f2a9c01"}, true, "y\n", 0, 2, "1 message forgotten\n", "gpuqctl: forget 1 message for good? [y/N] "},
		"OnATerminalNo":          {[]string{"5f2a9c01"}, true, "n\n", exitFailure, 3, "", "nothing was done"},
		"OnATerminalJustEnter":   {[]string{"5f2a9c01"}, true, "\n", exitFailure, 3, "", "nothing was done"},
		"OnATerminalEndOfInput":  {[]string{"5f2a9c01"}, true, "", exitFailure, 3, "", "nothing was done"},
		"NothingNamed":           {nil, true, "", exitUsage, 3, "", "want IDs"},
		"BothWays":               {[]string{"5f2a9c01", "--older-than", "1d"}, true, "", exitUsage, 3, "", "do not go together"},
		"AnAgeThatIsNone":        {[]string{"--older-than", "soon"}, true, "", exitUsage, 3, "", "want a number with its unit, such as 90m, 12h or 7d"},
		"AnAgePastAllComputing":  {[]string{"--older-than", "1e300d"}, true, "", exitUsage, 3, "", "want a number with its unit"},
		"AnAgeThatIsNotANumber":  {[]string{"--older-than", "NaNd"}, true, "", exitUsage, 3, "", "want a number with its unit"},
		"ANegativeAge":           {[]string{"--older-than", "-1d"}, true, "", exitUsage, 3, "", "want a number with its unit"},
		"AJobIsNeverForgotten":   {[]string{string(idA), "--yes"}, false, "", 0, 3, "0 messages forgotten\n", ""},
		"SeveralIDsAreOneAnswer": {[]string{"5f2a9c01", "a0b1c2d3"}, true, "yes\n", 0, 1, "2 messages forgotten\n", "forget 2 messages for good? [y/N]"},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t)
			set(d)
			r := (&run{terminal: c.terminal, in: strings.NewReader(c.input)}).exec(t.Context(), d, append([]string{"--color", "never", "dead", "purge"}, c.args...)...)
			r.want(t, c.code, c.out, c.err)
			if len(d.dead) != c.left {
				t.Errorf("%d are left, want %d", len(d.dead), c.left)
			}
		})
	}
}

func TestEvents(t *testing.T) {
	d := startDaemon(t)
	gpuqctl(t, d, "events").want(t, 0, "", "no events")
	golden(t, "events-empty-json", gpuqctl(t, d, "events", "--json"))
	d.events = []control.EventRow{
		{ID: "e2", At: ago(time.Minute), Who: "ada", What: "drain", Target: "gpu7", Why: "row remap pending (what runs may end by itself)", Host: "gpu1"},
		{ID: "e1", At: ago(time.Hour), Who: "gpuqd@gpu2", What: "expire_session", Target: "gpu3", Why: "no renewal for 5m5s", Host: "gpu2"},
	}
	golden(t, "events", gpuqctl(t, d, "events", "--since", "2d", "--target", "gpu7", "--limit", "7"))
	golden(t, "events-json", gpuqctl(t, d, "events", "--json"))
	if got := d.asked[2]; got.Since != ago(2*day) || got.Target != "gpu7" || got.Limit != 7 {
		t.Errorf("asked %+v", got)
	}
	d.more = true
	gpuqctl(t, d, "events").want(t, 0, anything, "there are more than 2: raise --limit, or narrow with --since or --target")
}

// What is asked of many jobs goes on past one that fails, and after Ctrl-C the
// person knows which were not done.
func TestManyJobs(t *testing.T) {
	d := startDaemon(t)
	d.put(control.JobRow{ID: idA, State: job.Queued}, control.JobRow{ID: idB, State: job.Queued}, control.JobRow{ID: idC, State: job.Queued})
	ctx, cancel := context.WithCancelCause(t.Context())
	d.onHold = func(id job.ID) {
		if id == idB {
			cancel(errors.New("interrupt"))
		}
	}
	r := new(run).exec(ctx, d, "hold", string(idA), string(idB), string(idC))
	// B was under way, and is let finish.
	r.want(t, exitInterrupted, fmt.Sprintf("%s waiting\n%s waiting\n", idA, idB), fmt.Sprintf("interrupt: not held: %s\n", idC))
	if d.jobs[idC].State != job.Queued {
		t.Error("C was held all the same")
	}
}
