package history

import (
	"time"

	"gpuqd/daemon/job"
)

// heldChapters: what people hold starts when they say so.
func heldChapters() []chapter {
	// held is a job that its user has been told waits for him.
	held := func(s *tale) *tale { return s.submitted("j").isParked("j").isHeld("j") }
	return []chapter{
		{name: "HeldReleasedAndRun", tell: func(s *tale) {
			held(s).asksRelease("j").isUnparked("j").publishes("a", "j").runs("a", "j").succeeds("a", "j")
		}},
		{name: "ItsOldMessageIsTakenWhileItIsHeld", tell: func(s *tale) {
			held(s).takes("a", "j").acks("a", "j").asksRelease("j").isUnparked("j").publishes("b", "j").runs("b", "j").succeeds("b", "j")
		}},
		{name: "HeldAsARetry", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").failsOnce("a", "j").isParked("j").isHeld("j").takes("b", "j").acks("b", "j")
			s.asksRelease("j").isUnparked("j").publishes("b", "j").runs("b", "j").succeeds("b", "j")
		}},
		{name: "HeldTwice", tell: func(s *tale) {
			held(s).asksRelease("j").isUnparked("j").isParked("j").isHeld("j").asksRelease("j").isUnparked("j").publishes("a", "j")
			s.runs("a", "j").succeeds("a", "j")
		}},
		{name: "KilledWhileItIsHeld", tell: func(s *tale) {
			held(s).isKilled("j").takes("a", "j").acks("a", "j")
		}},
		{name: "ClaimedWhileItsReleaseIsUnderWay", tell: func(s *tale) {
			held(s).asksRelease("j").isUnparked("j").publishes("a", "j").runs("a", "j").succeeds("a", "j").asksRelease("j")
		}},
		{name: "QueuedByNobodysRelease", broken: "started_held", tell: func(s *tale) {
			held(s).isUnparked("j").publishes("a", "j").runs("a", "j").succeeds("a", "j")
		}},
		{name: "QueuedByNobodysReleaseTheSecondTime", broken: "started_held", tell: func(s *tale) {
			held(s).asksRelease("j").isUnparked("j").isParked("j").isHeld("j").isUnparked("j").publishes("a", "j").runs("a", "j").succeeds("a", "j")
		}},
		{name: "ReleasedOnlyWhenItHadBeenClaimed", broken: "started_held", tell: func(s *tale) {
			held(s).isUnparked("j").publishes("a", "j").takes("a", "j").claims("a", "j").asksRelease("j").begins("a", "j").succeeds("a", "j")
		}},
		{name: "ClaimedOutOfItsHold", broken: "illegal_transition started_held", tell: func(s *tale) {
			held(s).runs("a", "j").succeeds("a", "j")
		}},
		{name: "HeldForLongerThanARecovery", tell: func(s *tale) {
			s.breaks("leaderless", "").heals()
			held(s).wait(2*time.Hour).asksRelease("j").isUnparked("j").publishes("a", "j").runs("a", "j").succeeds("a", "j")
		}},
		{name: "SlowAfterItsRelease", broken: "slow_recovery", tell: func(s *tale) {
			s.breaks("leaderless", "").heals()
			held(s).asksRelease("j").isUnparked("j").wait(2*time.Hour).publishes("a", "j").runs("a", "j").succeeds("a", "j")
		}},
	}
}

// shutDownChapters: what a session that is released held has ended.
func shutDownChapters() []chapter {
	requeues := func(s *tale) *tale {
		return s.dies("a", "j").commits("a", "j", job.Queued, job.ClassHostLost, 143).publishes("a", "j").acks("a", "j")
	}
	return []chapter{
		{name: "ReleasesWhatItHasEnded", tell: func(s *tale) {
			requeues(s.submitted("j").runs("a", "j").breaks("shut_down", "a")).closes("a").runs("b", "j").succeeds("b", "j")
		}},
		{name: "ReleasesWhileOthersRunElsewhere", tell: func(s *tale) {
			s.submitted("j").runs("b", "j").closes("a").succeeds("b", "j")
		}},
		{name: "BeginsUnderItsNextSession", tell: func(s *tale) {
			s.submitted("j").closes("a").runs("a", "j").succeeds("a", "j")
		}},
		{name: "ReleasesWhatStillRuns", broken: "released_running", tell: func(s *tale) {
			requeues(s.submitted("j").runs("a", "j").breaks("shut_down", "a").closes("a")).runs("b", "j").succeeds("b", "j")
		}},
		{name: "ReleasesWhatIsFrozen", broken: "released_running", tell: func(s *tale) {
			requeues(s.submitted("j").runs("a", "j").breaks("shut_down", "a").freezes("a", "j").closes("a")).runs("b", "j").succeeds("b", "j")
		}},
	}
}

// drainedChapters: what is drained starts nothing, and what is ended for it costs
// its job nothing.
func drainedChapters() []chapter {
	return []chapter{
		{name: "EndsWhatRanThere", tell: func(s *tale) {
			s.submitted("j").runs("a", "j", "g0").drains("a").dies("a", "j").commits("a", "j", job.Queued, job.ClassDrained, 143)
			s.publishes("a", "j").acks("a", "j").runs("b", "j", "g0").succeeds("b", "j")
		}},
		{name: "LetsWhatRanThereEndByItself", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").drains("a").ends("a", "j", 3).commits("a", "j", job.Failed, job.ClassUser, 3).acks("a", "j")
			s.doc("j").Failures = 1
		}},
		{name: "BeginsWhatItHadClaimedBefore", tell: func(s *tale) {
			s.submitted("j").takes("a", "j").claims("a", "j").drains("a").begins("a", "j").succeeds("a", "j")
		}},
		{name: "ReleasesWhatItClaimsTooLate", tell: func(s *tale) {
			s.submitted("j").takes("a", "j").drains("a").claims("a", "j").releases("a", "j").publishes("a", "j").acks("a", "j")
			s.runs("b", "j").succeeds("b", "j")
		}},
		{name: "UsesItsOtherDevice", tell: func(s *tale) {
			s.submitted("j").drains("a", "g0").runs("a", "j", "g1").succeeds("a", "j")
		}},
		{name: "DeviceOfTheSameNameElsewhere", tell: func(s *tale) {
			s.submitted("j").drains("b", "g0").runs("a", "j", "g0").succeeds("a", "j")
		}},
		{name: "IsUsedAgainOnceItIsResumed", tell: func(s *tale) {
			s.submitted("j").drains("a").drains("a", "g0").undrains("a", "g0").undrains("a").runs("a", "j", "g0").succeeds("a", "j")
		}},
		{name: "StartsBeforeItKnows", tell: func(s *tale) {
			s.submitted("j").isDrained("a").runs("a", "j").succeeds("a", "j")
		}},
		{name: "StartsOnADrainedHost", broken: "started_drained", tell: func(s *tale) {
			s.submitted("j").drains("a").runs("a", "j").succeeds("a", "j")
		}},
		{name: "StartsOnADrainedDevice", broken: "started_drained", tell: func(s *tale) {
			s.submitted("j").drains("a", "g1").runs("a", "j", "g0", "g1").succeeds("a", "j")
		}},
		{name: "ForgetsItsDrainOverARestart", broken: "started_drained", tell: func(s *tale) {
			s.submitted("j").drains("a").breaks("kill_daemon", "a").heals().runs("a", "j").succeeds("a", "j")
		}},
		{name: "TakesTheResumeOfADeviceForItsOwn", broken: "started_drained", tell: func(s *tale) {
			s.submitted("j").drains("a").drains("a", "g0").undrains("a", "g0").runs("a", "j", "g0").succeeds("a", "j")
		}},
		{name: "DrainedAnewAfterItsResume", broken: "started_drained", tell: func(s *tale) {
			s.submitted("j").drains("a").undrains("a").drains("a").runs("a", "j").succeeds("a", "j").undrains("a")
		}},
		{name: "ChargesWhatItEnded", broken: "overcharged", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").drains("a").dies("a", "j").commits("a", "j", job.Failed, job.ClassUser, 137).acks("a", "j")
			s.doc("j").Failures = 1
		}},
		{name: "ChargesWhatItEndedAsItWasTold", broken: "overcharged", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").isDrained("a").dies("a", "j").commits("a", "j", job.Failed, job.ClassUser, 137).acks("a", "j")
			s.doc("j").Failures = 1
		}},
		{name: "ChargesWhatItSaysToHaveRequeued", broken: "overcharged", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").drains("a").dies("a", "j").commits("a", "j", job.Queued, job.ClassDrained, 143)
			s.publishes("a", "j").acks("a", "j").runs("b", "j").succeeds("b", "j")
			s.doc("j").Failures = 1
		}},
		{name: "SomethingElseEndedIt", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").drains("a").breaks("kill_tree", "a").dies("a", "j")
			s.commits("a", "j", job.Failed, job.ClassUser, 137).acks("a", "j")
			s.doc("j").Failures = 1
		}},
		{name: "FailsOnceAndAgain", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").failsOnce("a", "j").runs("b", "j").ends("b", "j", 1)
			s.commits("b", "j", job.Failed, job.ClassUser, 1).acks("b", "j")
			s.doc("j").Failures = 2
		}},
		{name: "FailsAndIsKilledByTheSameCommit", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").ends("a", "j", 3).commits("a", "j", job.Killed, job.ClassKilled, 3).acks("a", "j")
			s.doc("j").Failures = 1
		}},
		{name: "PaysTwiceForOneFailure", broken: "overcharged", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").failsOnce("a", "j").runs("b", "j").succeeds("b", "j")
			s.doc("j").Failures = 2
		}},
		{name: "SlowAfterAResume", broken: "slow_recovery", tell: func(s *tale) {
			s.submitted("j").drains("a").undrains("a").wait(2*time.Hour).runs("a", "j").succeeds("a", "j")
		}},
		{name: "SlowForAsLongAsItIsDrained", tell: func(s *tale) {
			s.submitted("j").breaks("leaderless", "").heals().drains("a").wait(2*time.Hour).undrains("a").runs("a", "j").succeeds("a", "j")
		}},
	}
}
