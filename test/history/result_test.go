package history

import (
	"time"

	"gpuqd/daemon/job"
)

// resultChapters: what is stored, against what the payload saw.
func resultChapters() []chapter {
	change := func(do func(r *job.Result)) func(s *tale) {
		return func(s *tale) {
			s.submitted("j").runs("a", "j").failsOnce("a", "j").runs("b", "j").succeeds("b", "j")
			do(s.doc("j").Result)
		}
	}
	return []chapter{
		{name: "AsItWas", tell: change(func(*job.Result) {})},
		{name: "NoOutput", tell: change(func(r *job.Result) { r.LogTail = "" })},
		{name: "CutOutput", tell: change(func(r *job.Result) { r.LogTail = "ess j 1 a\n" + r.LogTail + "loss 0.1" })},
		{name: "OtherCode", broken: "result_differs", tell: change(func(r *job.Result) { r.ExitCode = 1 })},
		{name: "OtherAttempt", broken: "result_differs", tell: change(func(r *job.Result) { r.Attempt = 1 })},
		{name: "OtherHost", broken: "result_differs", tell: change(func(r *job.Result) { r.Host = "a" })},
		{name: "OutputOfAnotherAttempt", broken: "result_differs", tell: change(func(r *job.Result) { r.LogTail = "witness j 1 b\n" })},
		{name: "OutputOfAnotherJob", broken: "result_differs", tell: change(func(r *job.Result) { r.LogTail += "witness j2 2 b\n" })},
		{name: "OutputOfAnotherHost", broken: "result_differs", tell: change(func(r *job.Result) { r.LogTail = "witness j 2 a" })},
		{name: "SuccessWithoutAResult", broken: "result_differs", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").succeeds("a", "j")
			s.doc("j").Result = nil
		}},
		{name: "SuccessOfAPayloadThatDied", broken: "result_differs", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").dies("a", "j").commits("a", "j", job.Succeeded, "", 0).acks("a", "j")
		}},
		{name: "SuccessOfAPayloadThatVanishedWithCodeZero", broken: "result_differs", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").add(Event{Kind: Finished, Job: "j", Host: "a", Attempt: 1}).commits("a", "j", job.Succeeded, "", 0).acks("a", "j")
		}},
		{name: "SuccessOfAPayloadThatNeverBegan", broken: "result_differs", tell: func(s *tale) {
			s.submitted("j").takes("a", "j").claims("a", "j").commits("a", "j", job.Succeeded, "", 0).acks("a", "j")
		}},
		{name: "SuccessBeforeThePayloadsEnd", broken: "result_differs", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").commits("a", "j", job.Succeeded, "", 0).acks("a", "j").ends("a", "j", 0)
		}},
		{name: "FailureWithAnotherCode", broken: "result_differs", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").ends("a", "j", 3).commits("a", "j", job.Failed, job.ClassUser, 4).acks("a", "j")
		}},
		{name: "FailureOfAPayloadThatSucceeded", broken: "result_differs", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").ends("a", "j", 0).commits("a", "j", job.Failed, job.ClassUser, 1).acks("a", "j")
		}},
		{name: "FailureByASignal", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").dies("a", "j").commits("a", "j", job.Failed, job.ClassUser, 137).acks("a", "j")
		}},
		{name: "FailureOfAPayloadThatNeverBegan", broken: "result_differs", tell: func(s *tale) {
			s.submitted("j").takes("a", "j").claims("a", "j").commits("a", "j", job.Failed, job.ClassUser, 1).acks("a", "j")
		}},
	}
}

// endChapters: what is left, and how long it took.
func endChapters() []chapter {
	return []chapter{
		{name: "SomethingIsLeft", broken: "left_over", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").succeeds("a", "j")
			s.end.Leftovers = []string{"a message waits in gpuq.job.default.normal.g1.any"}
		}},
		{name: "FrozenPayloadIsLeft", broken: "left_over", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").breaks("isolate", "a").freezes("a", "j").isTakenOver("j", "a").runs("b", "j").succeeds("b", "j")
		}},
		{name: "SlowAfterTheLastFault", broken: "slow_recovery", tell: func(s *tale) {
			s.submitted("j").breaks("leaderless", "").heals().wait(2*time.Hour).runs("a", "j").succeeds("a", "j")
		}},
		{name: "SlowAfterAFaultThatIsNotHealed", broken: "slow_recovery", tell: func(s *tale) {
			s.submitted("j").breaks("crash_host", "b").wait(2*time.Hour).runs("a", "j").succeeds("a", "j")
		}},
		{name: "SubmittedLongAfterTheLastFault", tell: func(s *tale) {
			s.breaks("leaderless", "").heals().wait(2*time.Hour).submitted("j").runs("a", "j").succeeds("a", "j")
		}},
		{name: "SlowWithoutAFault", tell: func(s *tale) {
			s.submitted("j").wait(2*time.Hour).runs("a", "j").succeeds("a", "j")
		}},
		{name: "SlowWithoutABound", tell: func(s *tale) {
			s.rules.Recovery = 0
			s.submitted("j").breaks("leaderless", "").heals().wait(2*time.Hour).runs("a", "j").succeeds("a", "j")
		}},
	}
}
