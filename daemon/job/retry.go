package job

import (
	"fmt"
	"slices"
	"time"
)

// Caps on what a job may cost others through no fault of its own.
const (
	// RequeuesMax bounds the attempts lost to hosts, devices and preemption
	// together. Drains are outside of it: each is a person's deliberate act, and
	// no number of them says anything of the job.
	RequeuesMax = 20
	// LostMax is how many hosts may go down between a job's claim and its start
	// before the job is taken for their cause.
	LostMax = 3
)

// Ended is what the retry decision looks at when an attempt is over.
type Ended struct {
	Class    Class // "" is success
	ExitCode int
	Failures int  // counted failures before this one
	Requeues int  // uncounted ones before this one
	Lost     int  // hosts lost between claim and start before this one
	Started  bool // whether the command had been started
}

// Verdict is where the job goes when an attempt is over.
type Verdict struct {
	State  State
	Class  Class // of the ending; differs from the attempt's for poison
	Delay  time.Duration
	Reason string
	// What the transition adds to the job's counters.
	Failures, Requeues, Lost int
}

// Decide is the retry decision: a pure function of the spec and the ended
// attempt.
func Decide(spec Spec, e Ended) Verdict {
	switch {
	case e.Class == "":
		return Verdict{State: Succeeded}
	case e.Class == ClassKilled:
		return Verdict{State: Killed, Class: e.Class}
	case e.Class == ClassPoison, e.Class == ClassExpired, e.Class == ClassRefused:
		return Verdict{State: Dead, Class: e.Class}
	case e.Class.Counts():
		return decideCounted(spec, e)
	case e.Class == ClassDrained:
		return Verdict{State: Queued, Class: e.Class}
	}
	v := Verdict{State: Queued, Class: e.Class, Requeues: 1}
	if e.Class == ClassHostLost && !e.Started {
		v.Lost = 1
	}
	switch {
	case e.Lost+v.Lost >= LostMax:
		v.State, v.Class = Dead, ClassPoison
		v.Reason = fmt.Sprintf("%d hosts were lost between its claim and its start", e.Lost+v.Lost)
	case e.Requeues+v.Requeues >= RequeuesMax:
		v.State = Failed
		v.Reason = fmt.Sprintf("%d attempts were lost through no fault of the job, the last as %s", e.Requeues+v.Requeues, e.Class)
	}
	return v
}

func decideCounted(spec Spec, e Ended) Verdict {
	v := Verdict{State: Retrying, Class: e.Class, Failures: 1}
	n := e.Failures + 1
	switch {
	case n >= spec.MaxAttempts:
		v.State = Failed
		v.Reason = fmt.Sprintf("attempt %d of %d failed", n, spec.MaxAttempts)
	case e.Class == ClassUser && len(spec.RetryOn) > 0 && !slices.Contains(spec.RetryOn, e.ExitCode):
		v.State = Failed
		v.Reason = fmt.Sprintf("exit code %d is not in retry_on", e.ExitCode)
	default:
		v.Delay = spec.Backoff[min(n, len(spec.Backoff))-1].Std()
		v.Reason = fmt.Sprintf("attempt %d of %d failed; the next is due in %s", n, spec.MaxAttempts, v.Delay)
	}
	return v
}
