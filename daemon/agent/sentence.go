package agent

import (
	"fmt"
	"strings"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/placement"
)

// facts are what is known of one job when somebody asks why it is where it is.
type facts struct {
	job *job.Job
	now time.Time

	waits     placement.Explanation // of a job that could start
	ahead     int                   // jobs that are looked at before it
	aheadMore bool
	broker    string // trouble with the broker, where there is any

	owner owner // of a job that a host holds
}

// owner is how the host fares that holds a job.
type owner struct {
	over   string // why it holds nothing any more; "" while its session is live
	ttl    time.Duration
	silent time.Duration // since its last renewal, by the clocks of two hosts
	drains []scopedDrain
}

// sentence says in one sentence why the job is where it is.
func (f facts) sentence() string {
	var text string
	switch f.job.State {
	case job.Queued:
		text = f.queued()
	case job.Retrying:
		text = f.retrying()
	case job.Waiting:
		text = f.waiting()
	case job.Claimed, job.Running:
		text = f.held()
	default:
		text = f.over()
	}
	return placement.Flat(text) + "."
}

func (f facts) queued() string {
	again := ""
	if f.job.Attempt > 0 && f.job.Reason != "" {
		again = " again (" + placement.Flat(f.job.Reason) + ")"
	}
	text := fmt.Sprintf("It is queued%s and %s", again, f.waits.Clause)
	switch {
	case f.aheadMore:
		text += fmt.Sprintf("; more than %d jobs are ahead of it", f.ahead)
	case f.ahead == 1:
		text += "; up to 1 job is ahead of it"
	case f.ahead > 1:
		text += fmt.Sprintf("; up to %d jobs are ahead of it", f.ahead)
	}
	return text + f.trouble()
}

func (f facts) trouble() string {
	if f.broker == "" {
		return ""
	}
	return "; " + f.broker
}

func (f facts) retrying() string {
	last := ""
	if r := f.job.Result; r != nil {
		last = fmt.Sprintf("attempt %d failed on %s (%s)", r.Attempt, r.Host, failureOf(r))
	}
	if left := f.job.NotBefore.Sub(f.now); left > 0 {
		text := fmt.Sprintf("It waits until %s, for another %s, to be tried again", clockTime(f.job.NotBefore), lasting(left))
		if last != "" {
			text += ": " + last
		}
		return text
	}
	text := fmt.Sprintf("Its next attempt has been due since %s, and it %s", clockTime(f.job.NotBefore), f.waits.Clause)
	if last != "" {
		text += "; " + last
	}
	return text + f.trouble()
}

// failureOf says how an attempt failed.
func failureOf(r *job.Result) string {
	var text string
	switch {
	case r.Class != job.ClassUser && r.Class != "" && r.Reason != "":
		return fmt.Sprintf("%s: %s", r.Class, placement.Flat(r.Reason))
	case r.Signal != "":
		text = "ended by " + r.Signal
	case r.ExitCode > 0:
		text = fmt.Sprintf("exit code %d", r.ExitCode)
	case r.Reason != "":
		text = placement.Flat(r.Reason)
	default:
		text = "for a reason that was not recorded"
	}
	return text
}

func (f facts) waiting() string {
	h := f.job.Hold
	if h == nil {
		return "It waits in the ledger: " + f.job.Reason
	}
	text := fmt.Sprintf("%s holds it since %s", h.Who, clockTime(h.At))
	if h.Reason != "" {
		text += ": " + placement.Flat(h.Reason)
	}
	return text + "; gpuqctl release lets it go on"
}

func (f facts) held() string {
	j := f.job
	if j.Owner == nil {
		return fmt.Sprintf("It is %s, and its document does not say where", j.State)
	}
	on := "without a device"
	if n := len(j.Owner.Devices); n == 1 {
		on = "on 1 device"
	} else if n > 1 {
		on = fmt.Sprintf("on %d devices", n)
	}
	text := fmt.Sprintf("%s claimed it at %s and is starting attempt %d %s", j.Owner.Host, clockTime(j.Owner.ClaimedAt), j.Attempt, on)
	if j.State == job.Running {
		text = fmt.Sprintf("Attempt %d runs on %s since %s, %s", j.Attempt, j.Owner.Host, clockTime(j.Owner.Running), on)
	}
	if k := j.Kill; k != nil {
		text += fmt.Sprintf("; it is being ended, as %s asked at %s: %s", k.Who, clockTime(k.At), placement.Flat(k.Reason))
	}
	return text + f.contact() + f.draining()
}

// contact says what is the matter with the host that holds the job.
func (f facts) contact() string {
	o, host := f.owner, f.job.Owner.Host
	switch {
	case o.over != "":
		return fmt.Sprintf("; but %s does not hold it any more (%s): it is taken over at the next look of any host", host, o.over)
	case o.ttl > 0 && o.silent > o.ttl:
		return fmt.Sprintf("; %s last renewed its lease of %s, by the clocks of both hosts, %s ago: if it lives, the job is frozen "+
			"(or what lease.on_loss there says) until it has contact or the job is taken over", host, o.ttl, lasting(o.silent))
	}
	return ""
}

// draining says what becomes of the job with the drains it is under.
func (f facts) draining() (text string) {
	for _, d := range f.owner.drains {
		what := f.job.Owner.Host
		if d.device != "" {
			what = "device " + d.device
		}
		text += fmt.Sprintf("; %s is %s", what, placement.Flat(drainedBy(d.Drain)))
		wait, ends := interruptsIn(d.Drain, f.now)
		end := "queued again, at no cost"
		if control.DrainMode(d.Mode) == control.DrainKill {
			end = "killed"
		}
		switch {
		case !ends:
			text += ", and it may go on to its end"
		case wait > 0:
			text += fmt.Sprintf(", and it is %s at %s unless it ends before", end, clockTime(d.Deadline))
		default:
			text += fmt.Sprintf(", and it is being %s", strings.Replace(end, "queued", "ended and queued", 1))
		}
	}
	return text
}

// over says what became of a job.
func (f facts) over() string {
	j := f.job
	at, class := "at a time that was not recorded", ""
	if n := len(j.History); n > 0 {
		at = "at " + clockTime(j.History[n-1].At)
		class = string(j.History[n-1].Class)
	}
	where := ""
	if r := j.Result; r != nil && r.Host != "" {
		where = " on " + r.Host
	}
	if j.State == job.Succeeded {
		text := fmt.Sprintf("It succeeded%s %s, with attempt %d", where, at, j.Attempt)
		if r := j.Result; r != nil && !r.StartedAt.IsZero() {
			text += " after " + lasting(r.EndedAt.Sub(r.StartedAt.Time))
		}
		return text
	}
	text := map[job.State]string{
		job.Failed: "It failed", job.Killed: "It was killed", job.Dead: "It was set aside as dead",
	}[j.State] + where + " " + at
	if class != "" && j.State != job.Killed {
		text += fmt.Sprintf(" (class %s)", class)
	}
	if j.Reason != "" {
		text += ": " + placement.Flat(j.Reason)
	}
	return text
}

// clockTime is a time for people, to the second.
func clockTime(t job.Time) string { return t.UTC().Format(time.RFC3339) }

// lasting is a stretch of time for people.
func lasting(d time.Duration) string {
	if d < time.Second {
		return "less than 1s"
	}
	return d.Round(time.Second).String()
}
