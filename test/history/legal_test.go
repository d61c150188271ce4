package history

import (
	"time"

	"gpuqd/daemon/job"
)

// legalChapters: what the protocol does, and near misses of what it must
// not do.
func legalChapters() []chapter {
	return []chapter{
		{name: "Plain", tell: func(s *tale) { s.submitted("j").runs("a", "j", "g0").succeeds("a", "j") }},
		{name: "EndsBeforeItsStartIsRecorded", tell: func(s *tale) {
			s.submitted("j").takes("a", "j").claims("a", "j").begins("a", "j").succeeds("a", "j")
		}},
		{name: "RunsBeforeItsClientIsTold", tell: func(s *tale) {
			s.inserted("j").runs("a", "j").confirmed("j").succeeds("a", "j")
		}},
		{name: "RetryChain", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").failsOnce("a", "j").runs("b", "j").failsOnce("b", "j").runs("a", "j")
			s.ends("a", "j", 3).commits("a", "j", job.Failed, job.ClassUser, 3).acks("a", "j")
		}},
		{name: "RetryByAnotherHostBeforeTheAckArrives", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").ends("a", "j", 1).commits("a", "j", job.Retrying, job.ClassUser, 1).publishes("a", "j")
			s.takes("b", "j").claims("b", "j").acks("a", "j").begins("b", "j").succeeds("b", "j")
		}},
		{name: "RetryByTheSameHostBeforeTheAckArrives", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").ends("a", "j", 1).commits("a", "j", job.Retrying, job.ClassUser, 1).publishes("a", "j")
			first := s.tags["aj"]
			s.takes("a", "j").claims("a", "j").acksTag("a", "j", first).begins("a", "j").succeeds("a", "j")
		}},
		{name: "ProgramNotFound", tell: func(s *tale) {
			s.submitted("j").takes("a", "j").claims("a", "j").started("a", "j")
			s.commits("a", "j", job.Failed, job.ClassUser, 127).acks("a", "j")
			s.doc("j").Result.LogTail = ""
		}},
		{name: "KilledWhileQueued", tell: func(s *tale) {
			s.submitted("j").isKilled("j").takes("a", "j").acks("a", "j")
		}},
		{name: "KilledWhileItRuns", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").dies("a", "j").commits("a", "j", job.Killed, job.ClassKilled, 137).acks("a", "j")
		}},
		{name: "TimeLimitWithACompleteEnd", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").ends("a", "j", 0).commits("a", "j", job.Failed, job.ClassTimeout, 143).acks("a", "j")
		}},
		{name: "DrainedAndRequeued", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").dies("a", "j").commits("a", "j", job.Queued, job.ClassDrained, 143).publishes("a", "j").acks("a", "j")
			s.runs("b", "j").succeeds("b", "j")
		}},
		{name: "TakenOverFromADeadHost", tell: func(s *tale) {
			s.submitted("j").runs("a", "j", "g0").breaks("crash_host", "a").dies("a", "j").loses("a", "j")
			s.isTakenOver("j", "a").publishes("b", "j").runs("b", "j", "g0").succeeds("b", "j")
			s.takes("c", "j").acks("c", "j")
		}},
		{name: "RebootedHostCommitsWhatItHas", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").ends("a", "j", 0).breaks("crash_host", "a").loses("a", "j")
			s.commits("a", "j", job.Succeeded, "", 0).takes("b", "j").acks("b", "j")
		}},
		{name: "FrozenWhileAnotherRuns", tell: func(s *tale) {
			s.submitted("j").runs("a", "j", "g0").breaks("isolate", "a").freezes("a", "j").isTakenOver("j", "a").publishes("b", "j")
			s.runs("b", "j", "g1").wait(time.Minute).dies("a", "j").succeeds("b", "j").givesBack("a", "j").takes("c", "j").acks("c", "j")
		}},
		{name: "ThawedWithinItsLease", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").breaks("cut_wire", "a").freezes("a", "j").thaws("a", "j").succeeds("a", "j")
		}},
		{name: "OrphanReleased", tell: func(s *tale) {
			// The answer to the claim was lost, and its message given back.
			s.submitted("j").takes("a", "j").claims("a", "j").givesBack("a", "j").takes("a", "j").releases("a", "j").publishes("a", "j").acks("a", "j")
			s.runs("b", "j").succeeds("b", "j")
		}},
		{name: "RedeliveredInALaterGeneration", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").loses("a", "j").takes("a", "j").succeeds("a", "j")
		}},
		{name: "RedeliveredToAnotherWhileItRuns", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").loses("a", "j").takes("b", "j").acks("b", "j").succeeds("a", "j")
		}},
		{name: "ParkedAndUnparked", tell: func(s *tale) {
			s.submitted("j").takes("a", "j").isParked("j").acks("a", "j").isUnparked("j").publishes("a", "j").runs("a", "j").succeeds("a", "j")
		}},
		{name: "UnknownJobSetAside", tell: func(s *tale) {
			s.takes("a", "x").setsAside("a", "x").acks("a", "x")
		}},
		{name: "LostMessageRepublished", tell: func(s *tale) {
			s.submitted("j").wait(time.Minute).isRepublished("b", "j").publishes("b", "j").runs("a", "j").succeeds("a", "j")
		}},
		{name: "TwoJobsOneDeviceOneAfterTheOther", tell: func(s *tale) {
			s.submitted("j").submitted("k").runs("a", "j", "g0").ends("a", "j", 0).runs("a", "k", "g0")
			s.commits("a", "j", job.Succeeded, "", 0).acks("a", "j").succeeds("a", "k")
		}},
		{name: "OneDeviceNameOnTwoHosts", tell: func(s *tale) {
			s.submitted("j").submitted("k").runs("a", "j", "g0").runs("b", "k", "g0").succeeds("a", "j").succeeds("b", "k")
		}},
		{name: "NoEventsAtAll", tell: func(*tale) {}},
	}
}
