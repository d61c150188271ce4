package history

import (
	"time"

	"gpuqd/daemon/job"
)

// payloadChapters: what the payloads' own witness shows.
func payloadChapters() []chapter {
	// takeover is the start of a history in which b runs what a has lost.
	takeover := func(s *tale) *tale {
		return s.submitted("j").runs("a", "j", "g0").breaks("isolate", "a").isTakenOver("j", "a").publishes("b", "j").takes("b", "j").claims("b", "j", "g1")
	}
	return []chapter{
		{name: "Overlap", broken: "overlap", tell: func(s *tale) {
			takeover(s).begins("b", "j").dies("a", "j").succeeds("b", "j").givesBack("a", "j")
		}},
		{name: "OverlapOfAnEarlierThatCompletes", broken: "overlap", tell: func(s *tale) {
			takeover(s).begins("b", "j").ends("a", "j", 0).succeeds("b", "j").givesBack("a", "j")
		}},
		{name: "OverlapOfAShortLaterOne", broken: "overlap", tell: func(s *tale) {
			takeover(s).begins("b", "j").wait(10*time.Millisecond).ends("b", "j", 0).dies("a", "j").commits("b", "j", job.Succeeded, "", 0).acks("b", "j")
		}},
		{name: "OverlapOnThaw", broken: "overlap", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").breaks("isolate", "a").freezes("a", "j").isTakenOver("j", "a").runs("b", "j")
			s.thaws("a", "j").dies("a", "j").succeeds("b", "j")
		}},
		{name: "OverlapOfATick", excused: "overlap", tell: func(s *tale) {
			takeover(s).begins("b", "j").wait(200*time.Millisecond).freezes("a", "j").dies("a", "j").succeeds("b", "j")
		}},
		{name: "OverlapOfMoreThanATick", broken: "overlap", tell: func(s *tale) {
			takeover(s).begins("b", "j").wait(201*time.Millisecond).freezes("a", "j").dies("a", "j").succeeds("b", "j")
		}},
		{name: "OverlapWithContinue", excused: "overlap", tell: func(s *tale) {
			s.rules.OnLoss = "continue"
			takeover(s).begins("b", "j").ends("a", "j", 0).succeeds("b", "j").givesBack("a", "j")
		}},
		{name: "OverlapInTimeOfAPausedHost", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").breaks("freeze_host", "a").pauses("a").isTakenOver("j", "a").runs("b", "j").succeeds("b", "j").resumes("a").dies("a", "j")
		}},
		{name: "OverlapUntilContactOfAPausedHost", excused: "overlap", tell: func(s *tale) {
			s.rules.Contact = 3 * time.Second
			s.submitted("j").runs("a", "j").breaks("freeze_host", "a").pauses("a").isTakenOver("j", "a").runs("b", "j")
			s.resumes("a").wait(3*time.Second).dies("a", "j").succeeds("b", "j")
		}},
		{name: "OverlapBeyondContactOfAPausedHost", broken: "overlap", tell: func(s *tale) {
			s.rules.Contact = 3 * time.Second
			s.submitted("j").runs("a", "j").breaks("freeze_host", "a").pauses("a").isTakenOver("j", "a").runs("b", "j")
			s.resumes("a").wait(3001*time.Millisecond).dies("a", "j").succeeds("b", "j")
		}},
		{name: "OverlapThatAnEarlierPauseDoesNotExplain", broken: "overlap", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").breaks("freeze_host", "a").pauses("a").resumes("a").wait(time.Minute).isTakenOver("j", "a")
			s.runs("b", "j").dies("a", "j").succeeds("b", "j")
		}},
		{name: "OverlapThatAPauseOfTheOtherDoesNotExplain", broken: "overlap", tell: func(s *tale) {
			takeover(s).begins("b", "j").breaks("freeze_host", "b").pauses("b").resumes("b").dies("a", "j").succeeds("b", "j")
		}},
		{name: "DeviceSharedByTwoJobs", broken: "device_shared", tell: func(s *tale) {
			s.submitted("j").submitted("k").runs("a", "j", "g0", "g1").runs("a", "k", "g1").succeeds("a", "j").succeeds("a", "k")
		}},
		{name: "DeviceSharedWithAFrozenPayload", broken: "device_shared", tell: func(s *tale) {
			s.submitted("j").submitted("k").runs("a", "j", "g0").breaks("cut_wire", "a").freezes("a", "j").runs("a", "k", "g0").succeeds("a", "k")
			s.thaws("a", "j").succeeds("a", "j")
		}},
		{name: "AttemptBeganTwice", broken: "began_twice", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").breaks("kill_shim", "a").dies("a", "j").begins("a", "j").succeeds("a", "j")
		}},
		{name: "BeganUnclaimed", broken: "began_unclaimed", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").succeeds("a", "j")
			s.add(Event{Kind: Began, Job: "k", Host: "b", Attempt: 1}).add(Event{Kind: Finished, Job: "k", Host: "b", Attempt: 1})
		}},
		{name: "BeganBeforeItsClaim", broken: "began_unclaimed", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").succeeds("a", "j")
			claim, began := placeOf(s.events, Changed, 1), placeOf(s.events, Began, 0)
			s.events[claim], s.events[began] = s.events[began], s.events[claim]
			s.events[claim].At, s.events[began].At = s.events[began].At, s.events[claim].At
		}},
		{name: "LateShimStartsWhatWasReleased", broken: "ran_after_end", tell: func(s *tale) {
			s.submitted("j").breaks("kill_daemon", "a").takes("a", "j").claims("a", "j").loses("a", "j").releases("a", "j").publishes("a", "j")
			s.begins("a", "j").dies("a", "j").runs("b", "j").succeeds("b", "j")
		}},
		{name: "BeganAfterTheJobWasOver", broken: "ran_after_end", tell: func(s *tale) {
			s.submitted("j").takes("a", "j").claims("a", "j").commits("a", "j", job.Killed, job.ClassKilled, -1).acks("a", "j").begins("a", "j").dies("a", "j")
		}},
		{name: "BeganAfterAPause", excused: "ran_after_end", tell: func(s *tale) {
			s.submitted("j").breaks("freeze_host", "a").takes("a", "j").claims("a", "j").pauses("a").isTakenOver("j", "a").publishes("b", "j")
			s.resumes("a").wait(100*time.Millisecond).begins("a", "j").dies("a", "j").runs("b", "j").succeeds("b", "j").givesBack("a", "j")
		}},
		{name: "BeganATickAfterTakeover", excused: "ran_after_end", tell: func(s *tale) {
			s.submitted("j").breaks("isolate", "a").takes("a", "j").claims("a", "j").isTakenOver("j", "a")
			s.wait(100*time.Millisecond).begins("a", "j").dies("a", "j").runs("b", "j").succeeds("b", "j")
		}},
		{name: "RanAgainWithoutAReason", broken: "executions", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").dies("a", "j").isTakenOver("j", "a").runs("b", "j").succeeds("b", "j")
		}},
		{name: "RanTwiceAgainForOneFault", broken: "executions", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").breaks("isolate", "a").dies("a", "j").isTakenOver("j", "a").runs("b", "j").dies("b", "j").isTakenOver("j", "b")
			s.runs("c", "j").succeeds("c", "j")
		}},
		{name: "RanTwiceAgainForAFaultThatCostsTwo", tell: func(s *tale) {
			s.rules.FaultCost = 2
			s.submitted("j").runs("a", "j").breaks("isolate", "a").dies("a", "j").isTakenOver("j", "a").runs("b", "j").dies("b", "j").isTakenOver("j", "b")
			s.runs("c", "j").succeeds("c", "j")
		}},
	}
}

// placeOf returns the place of the nth event of a kind, from 0.
func placeOf(events []Event, kind Kind, nth int) int {
	for i := range events {
		if events[i].Kind == kind {
			if nth == 0 {
				return i
			}
			nth--
		}
	}
	return -1
}
