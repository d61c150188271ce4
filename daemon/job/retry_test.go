package job

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// classes lists every class that an ended attempt can have.
var classes = []Class{
	"", ClassUser, ClassTimeout, ClassOOMHost, ClassOOMGPU,
	ClassDevice, ClassHostLost, ClassDrained, ClassPreempted, ClassKilled,
}

func retrySpec(attempts int) Spec {
	s := DefaultSpec()
	s.Command = []string{"train"}
	s.MaxAttempts = attempts
	return s
}

func TestCountsIsTheJobsOwnFault(t *testing.T) {
	own := []Class{ClassUser, ClassTimeout, ClassOOMHost, ClassOOMGPU}
	for _, c := range append(slices.Clone(classes), ClassPoison, ClassExpired, ClassRefused) {
		if got, want := c.Counts(), slices.Contains(own, c); got != want {
			t.Errorf("%q: Counts() = %v, want %v", c, got, want)
		}
	}
}

// TestDecide goes through every class with its budget untouched, one short of
// its end, and at its end.
func TestDecide(t *testing.T) {
	const attempts = 3
	first, last := Duration(time.Second).Std(), 10*time.Second
	for _, c := range []struct {
		name  string
		ended Ended
		want  Verdict // without the reason
	}{
		{"success", Ended{}, Verdict{State: Succeeded}},
		{"success late", Ended{Failures: 2, Requeues: RequeuesMax, Lost: LostMax}, Verdict{State: Succeeded}},
		{"killed", Ended{Class: ClassKilled, Started: true}, Verdict{State: Killed, Class: ClassKilled}},
		{"killed late", Ended{Class: ClassKilled, Failures: 9, Requeues: 99, Lost: 9}, Verdict{State: Killed, Class: ClassKilled}},

		{"user first", Ended{Class: ClassUser}, Verdict{State: Retrying, Class: ClassUser, Delay: first, Failures: 1}},
		{"user second", Ended{Class: ClassUser, Failures: 1}, Verdict{State: Retrying, Class: ClassUser, Delay: last, Failures: 1}},
		{"user last", Ended{Class: ClassUser, Failures: 2}, Verdict{State: Failed, Class: ClassUser, Failures: 1}},
		{"user past", Ended{Class: ClassUser, Failures: 7}, Verdict{State: Failed, Class: ClassUser, Failures: 1}},
		{"timeout first", Ended{Class: ClassTimeout}, Verdict{State: Retrying, Class: ClassTimeout, Delay: first, Failures: 1}},
		{"timeout last", Ended{Class: ClassTimeout, Failures: 2}, Verdict{State: Failed, Class: ClassTimeout, Failures: 1}},
		{"oom_host first", Ended{Class: ClassOOMHost}, Verdict{State: Retrying, Class: ClassOOMHost, Delay: first, Failures: 1}},
		{"oom_host last", Ended{Class: ClassOOMHost, Failures: 2}, Verdict{State: Failed, Class: ClassOOMHost, Failures: 1}},
		{"oom_gpu first", Ended{Class: ClassOOMGPU}, Verdict{State: Retrying, Class: ClassOOMGPU, Delay: first, Failures: 1}},
		{"oom_gpu last", Ended{Class: ClassOOMGPU, Failures: 2}, Verdict{State: Failed, Class: ClassOOMGPU, Failures: 1}},
		{"counted, other budget spent", Ended{Class: ClassUser, Requeues: 99, Lost: 9}, Verdict{State: Retrying, Class: ClassUser, Delay: first, Failures: 1}},

		{"device first", Ended{Class: ClassDevice, Started: true}, Verdict{State: Queued, Class: ClassDevice, Requeues: 1}},
		{"device, own budget spent", Ended{Class: ClassDevice, Failures: 99}, Verdict{State: Queued, Class: ClassDevice, Requeues: 1}},
		{"device before last", Ended{Class: ClassDevice, Requeues: RequeuesMax - 2}, Verdict{State: Queued, Class: ClassDevice, Requeues: 1}},
		{"device last", Ended{Class: ClassDevice, Requeues: RequeuesMax - 1}, Verdict{State: Failed, Class: ClassDevice, Requeues: 1}},
		{"drained first", Ended{Class: ClassDrained, Started: true}, Verdict{State: Queued, Class: ClassDrained}},
		{"drained at the cap", Ended{Class: ClassDrained, Requeues: RequeuesMax - 1}, Verdict{State: Queued, Class: ClassDrained}},
		{"drained, own budget spent", Ended{Class: ClassDrained, Failures: 99}, Verdict{State: Queued, Class: ClassDrained}},
		{"preempted first", Ended{Class: ClassPreempted, Started: true}, Verdict{State: Queued, Class: ClassPreempted, Requeues: 1}},
		{"preempted last", Ended{Class: ClassPreempted, Requeues: RequeuesMax - 1}, Verdict{State: Failed, Class: ClassPreempted, Requeues: 1}},

		{"host lost while running", Ended{Class: ClassHostLost, Started: true}, Verdict{State: Queued, Class: ClassHostLost, Requeues: 1}},
		{"host lost while running, two lost before", Ended{Class: ClassHostLost, Started: true, Lost: LostMax - 1}, Verdict{State: Queued, Class: ClassHostLost, Requeues: 1}},
		{"host lost while running, last", Ended{Class: ClassHostLost, Started: true, Requeues: RequeuesMax - 1}, Verdict{State: Failed, Class: ClassHostLost, Requeues: 1}},
		{"host lost before the start", Ended{Class: ClassHostLost}, Verdict{State: Queued, Class: ClassHostLost, Requeues: 1, Lost: 1}},
		{"host lost before the start, one short", Ended{Class: ClassHostLost, Lost: LostMax - 2}, Verdict{State: Queued, Class: ClassHostLost, Requeues: 1, Lost: 1}},
		{"poison", Ended{Class: ClassHostLost, Lost: LostMax - 1}, Verdict{State: Dead, Class: ClassPoison, Requeues: 1, Lost: 1}},
		{"poison before the other cap", Ended{Class: ClassHostLost, Lost: LostMax - 1, Requeues: RequeuesMax - 1}, Verdict{State: Dead, Class: ClassPoison, Requeues: 1, Lost: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := retrySpec(attempts)
			spec.Backoff = []Duration{Duration(first), Duration(last)}
			got := Decide(spec, c.ended)
			if !got.State.Terminal() && got.Class.Counts() && got.Reason == "" {
				t.Error("a wait without a reason")
			}
			if got.State != Succeeded && got.State != Killed && got.State.Terminal() && got.Reason == "" {
				t.Error("an ending without a reason")
			}
			got.Reason = ""
			if got != c.want {
				t.Errorf("\n got %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestBackoffRepeatsItsLastStep(t *testing.T) {
	spec := retrySpec(10)
	spec.Backoff = []Duration{Duration(time.Second), Duration(time.Minute), Duration(time.Hour)}
	for failures, want := range []time.Duration{time.Second, time.Minute, time.Hour, time.Hour, time.Hour} {
		v := Decide(spec, Ended{Class: ClassUser, Failures: failures})
		if v.State != Retrying || v.Delay != want || !strings.Contains(v.Reason, want.String()) {
			t.Errorf("after failure %d: %+v, want a delay of %s", failures+1, v, want)
		}
	}
}

func TestRetryOnLimitsExitCodesOnly(t *testing.T) {
	spec := retrySpec(5)
	spec.RetryOn = []int{75, 137}
	for _, c := range []struct {
		class Class
		code  int
		want  State
	}{
		{ClassUser, 75, Retrying},
		{ClassUser, 137, Retrying},
		{ClassUser, 1, Failed},
		{ClassUser, 255, Failed},
		{ClassTimeout, -1, Retrying}, // a code that the job did not choose is not judged
		{ClassOOMHost, 9, Retrying},
		{ClassOOMGPU, 1, Retrying},
		{ClassDevice, 1, Queued},
	} {
		v := Decide(spec, Ended{Class: c.class, ExitCode: c.code, Started: true})
		if v.State != c.want {
			t.Errorf("%s with code %d: %s, want %s", c.class, c.code, v.State, c.want)
		}
		if v.State == Failed && (v.Failures != 1 || !strings.Contains(v.Reason, "retry_on")) {
			t.Errorf("%s with code %d: %+v does not name retry_on", c.class, c.code, v)
		}
	}
	spec.RetryOn = nil
	if v := Decide(spec, Ended{Class: ClassUser, ExitCode: 1}); v.State != Retrying {
		t.Errorf("without retry_on: %s", v.State)
	}
}

var anySpecToRetry = rapid.Custom(func(t *rapid.T) Spec {
	s := retrySpec(rapid.IntRange(1, attemptsMax).Draw(t, "max attempts"))
	s.RetryOn = rapid.SliceOfN(rapid.IntRange(1, 255), 0, 3).Draw(t, "retry on")
	s.Backoff = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Duration {
		return Duration(rapid.Int64Range(0, int64(backoffStepMax)).Draw(t, "step"))
	}), 1, backoffMax).Draw(t, "backoff")
	return s
})

// TestEveryJobEnds: whatever becomes of its attempts, drains aside, a job reaches
// a terminal state after a bounded number of them, and every verdict is a legal
// transition from where the attempt was.
func TestEveryJobEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := anySpecToRetry.Draw(t, "spec")
		if err := spec.Validate(); err != nil {
			t.Fatal(err)
		}
		// A draw from few classes, so that long rows of one kind come up.
		likely := rapid.SliceOfN(rapid.SampledFrom(classes), 1, 3).Draw(t, "likely")
		var now Ended
		drained := slices.Contains(likely, ClassDrained)
		likely = slices.DeleteFunc(likely, func(c Class) bool { return c == ClassDrained })
		for attempt := 1; ; attempt++ {
			if drained {
				v := Decide(spec, Ended{Class: ClassDrained, Started: true, Failures: now.Failures, Requeues: now.Requeues, Lost: now.Lost})
				checkVerdict(t, Ended{Class: ClassDrained, Started: true}, v)
			}
			if len(likely) == 0 {
				return // nothing but drains: it is queued for as long as people drain
			}
			if most := spec.MaxAttempts + RequeuesMax; attempt > most {
				t.Fatalf("%d attempts have not ended it", most)
			}
			now.Class = rapid.SampledFrom(likely).Draw(t, "class")
			now.ExitCode = rapid.SampledFrom(append([]int{1}, spec.RetryOn...)).Draw(t, "code")
			now.Started = rapid.Bool().Draw(t, "started")
			v := Decide(spec, now)
			checkVerdict(t, now, v)
			if v.State.Terminal() {
				return
			}
			now.Failures += v.Failures
			now.Requeues += v.Requeues
			now.Lost += v.Lost
		}
	})
}

func checkVerdict(t *rapid.T, e Ended, v Verdict) {
	from := Running
	if !e.Started {
		from = Claimed
	}
	if !Allowed(from, v.State) || !Allowed(Running, v.State) {
		t.Fatalf("%+v moves a job from %s to %s", e, from, v.State)
	}
	if (v.Delay != 0 && v.State != Retrying) || v.Delay < 0 {
		t.Fatalf("%+v: %s with a delay of %s", e, v.State, v.Delay)
	}
	if v.Class != e.Class && v.Class != ClassPoison {
		t.Fatalf("%+v is recorded as %q", e, v.Class)
	}
	if e.Class == ClassDrained {
		if v != (Verdict{State: Queued, Class: ClassDrained}) {
			t.Fatalf("%+v costs the job something: %+v", e, v)
		}
		return
	}
	if !v.State.Terminal() && v.Failures+v.Requeues != 1 {
		t.Fatalf("%+v is paid from %d budgets: %+v", e, v.Failures+v.Requeues, v)
	}
	if v.Failures == 1 && !e.Class.Counts() || v.Requeues == 1 && e.Class.Counts() || v.Lost > v.Requeues {
		t.Fatalf("%+v is paid from the wrong budget: %+v", e, v)
	}
}

func TestDecideIsPure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := anySpecToRetry.Draw(t, "spec")
		before := spec.Hash()
		e := Ended{
			Class: rapid.SampledFrom(classes).Draw(t, "class"), ExitCode: rapid.IntRange(-1, 255).Draw(t, "code"),
			Failures: rapid.IntRange(0, 100).Draw(t, "failures"), Requeues: rapid.IntRange(0, 30).Draw(t, "requeues"),
			Lost: rapid.IntRange(0, 4).Draw(t, "lost"), Started: rapid.Bool().Draw(t, "started"),
		}
		if a, b := Decide(spec, e), Decide(spec, e); a != b {
			t.Fatalf("%+v, then %+v", a, b)
		}
		if spec.Hash() != before {
			t.Fatal("the decision changed the spec")
		}
	})
}
