package history

import (
	"slices"

	"gpuqd/daemon/job"
)

// ackChapters: who may remove a message, and when.
func ackChapters() []chapter {
	return []chapter{
		{name: "BeforeTheCommit", broken: "unjustified_ack", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").ends("a", "j", 0).acks("a", "j").commits("a", "j", job.Succeeded, "", 0)
		}},
		{name: "BeforeTheClaim", broken: "unjustified_ack", tell: func(s *tale) {
			s.submitted("j").takes("a", "j").acks("a", "j").claims("a", "j").begins("a", "j").started("a", "j")
			s.ends("a", "j", 0).commits("a", "j", job.Succeeded, "", 0)
		}},
		{name: "OfTheWrongTag", broken: "unjustified_ack", tell: func(s *tale) {
			// Host a acks j with a tag of its old connection; in the new one it is k's.
			s.submitted("j").submitted("k").runs("a", "j").ends("a", "j", 0).loses("a", "j").takes("a", "k").commits("a", "j", job.Succeeded, "", 0)
			s.acks("a", "k").takes("b", "j").acks("b", "j").isRepublished("b", "k").runs("b", "k").succeeds("b", "k")
		}},
		{name: "OfTheWrongTagWhileItRuns", broken: "unjustified_ack", tell: func(s *tale) {
			s.submitted("j").submitted("k").runs("a", "j").ends("a", "j", 0).loses("a", "j").runs("a", "k").commits("a", "j", job.Succeeded, "", 0)
			s.acks("a", "k").takes("b", "j").acks("b", "j").ends("a", "k", 0).commits("a", "k", job.Succeeded, "", 0)
		}},
		{name: "OfARequeuedJobByALyingCache", broken: "unjustified_ack", tell: func(s *tale) {
			s.submitted("j").takes("a", "j").claims("a", "j").releases("a", "j").publishes("a", "j").acks("a", "j")
			s.takes("b", "j").acks("b", "j").isRepublished("b", "j").runs("b", "j").succeeds("b", "j")
		}},
		{name: "OfARetryByALyingCache", broken: "unjustified_ack", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").failsOnce("a", "j").takes("b", "j").acks("b", "j")
			s.isRepublished("b", "j").publishes("b", "j").runs("b", "j").succeeds("b", "j")
		}},
		{name: "OfARetryWhoseWaitIsProlonged", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").failsOnce("a", "j").takes("b", "j").publishes("b", "j").acks("b", "j").runs("b", "j").succeeds("b", "j")
		}},
		{name: "OfARetryWherePublicationsAreNotSeen", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").failsOnce("a", "j").takes("b", "j").acks("b", "j").runs("b", "j").succeeds("b", "j")
			s.events = slices.DeleteFunc(s.events, func(e Event) bool { return e.Kind == Published })
		}},
		{name: "AnotherPublishedIt", broken: "unjustified_ack", tell: func(s *tale) {
			s.submitted("j").takes("a", "j").isRepublished("b", "j").publishes("b", "j").acks("a", "j").runs("b", "j").succeeds("b", "j")
		}},
		{name: "OfAnUnknownJob", broken: "unjustified_ack", tell: func(s *tale) { s.takes("a", "x").acks("a", "x") }},
		{name: "SetAsideBeforeItWasTaken", broken: "unjustified_ack", tell: func(s *tale) {
			s.setsAside("a", "x").takes("a", "x").acks("a", "x")
		}},
		{name: "SetAsideByAnother", broken: "unjustified_ack", tell: func(s *tale) {
			s.takes("a", "x").setsAside("b", "x").acks("a", "x")
		}},
		{name: "AfterItsCommitWhileTheJobIsBack", tell: func(s *tale) {
			s.submitted("j").runs("a", "j")
			first := s.tags["aj"]
			s.ends("a", "j", 1).commits("a", "j", job.Retrying, "user", 1)
			s.takes("a", "j").claims("a", "j").givesBack("a", "j").acksTag("a", "j", first)
			s.releases("a", "j").publishes("a", "j").runs("b", "j").succeeds("b", "j")
		}},
		{name: "NewerOfTwoOfOneGeneration", tell: func(s *tale) {
			s.submitted("j").runs("a", "j")
			first := s.tags["aj"]
			s.takes("a", "j").acks("a", "j").ends("a", "j", 0).commits("a", "j", job.Succeeded, "", 0).acksTag("a", "j", first)
		}},
		{name: "BothOfTwoWhileItRuns", broken: "unjustified_ack", tell: func(s *tale) {
			s.submitted("j").runs("a", "j")
			first := s.tags["aj"]
			s.takes("a", "j").acks("a", "j").acksTag("a", "j", first).ends("a", "j", 0).commits("a", "j", job.Succeeded, "", 0)
		}},
		{name: "RedeliveryInALaterGenerationWhileItRuns", broken: "unjustified_ack", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").loses("a", "j").takes("a", "j").acks("a", "j").ends("a", "j", 0).commits("a", "j", job.Succeeded, "", 0)
		}},
		{name: "HeldByAnEarlierSessionOfTheHost", tell: func(s *tale) {
			// Its session was expired; a new one is open, and takeover is to come.
			s.submitted("j").runs("a", "j").breaks("crash_host", "a").dies("a", "j").loses("a", "j").takes("a", "j").acks("a", "j")
			s.isTakenOver("j", "a").publishes("b", "j").runs("b", "j").succeeds("b", "j")
		}},
		{name: "AnotherOwnerGoneMeanwhile", tell: func(s *tale) {
			// Host b read that a holds the job; before its ack arrived, a released it.
			s.submitted("j").takes("a", "j").claims("a", "j").takes("b", "j").releases("a", "j").acks("b", "j").publishes("a", "j").acks("a", "j")
			s.runs("c", "j").succeeds("c", "j")
		}},
		{name: "TakeoverThenALateAck", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").breaks("isolate", "a").freezes("a", "j").isTakenOver("j", "a").publishes("b", "j")
			s.dies("a", "j").runs("b", "j").acks("a", "j").succeeds("b", "j")
		}},
		{name: "StaleRunKeepsTheOlderOfTwo", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").breaks("isolate", "a").freezes("a", "j").isTakenOver("j", "a").publishes("b", "j")
			first := s.tags["aj"]
			s.takes("a", "j").acks("a", "j").dies("a", "j")
			s.tags["aj"] = first
			s.givesBack("a", "j").runs("b", "j").succeeds("b", "j")
		}},
	}
}
