package history

import (
	"strings"

	"gpuqd/daemon/job"
)

// ledgerChapters: the documents and their transitions.
func ledgerChapters() []chapter {
	return []chapter{
		{name: "ConfirmedAndNeverRun", broken: "lost", tell: func(s *tale) { s.submitted("j") }},
		{name: "ConfirmedAndForgotten", broken: "lost", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").succeeds("a", "j")
			delete(s.end.Jobs, "j")
		}},
		{name: "ConfirmedAndNeverInserted", broken: "lost", tell: func(s *tale) { s.confirmed("j") }},
		{name: "NeverConfirmedNorRun", tell: func(s *tale) { s.inserted("j") }},
		{name: "TransitionRolledBack", broken: "lost rolled_back", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").succeeds("a", "j")
			s.doc("j").State = job.Running
		}},
		{name: "ClaimRolledBack", broken: "rolled_back", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").succeeds("a", "j")
			s.doc("j").Fence--
		}},
		{name: "KilledAfterItSucceeded", broken: "two_ends", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").succeeds("a", "j").isKilled("j")
		}},
		{name: "CommitAppliedTwice", broken: "committed_twice", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").succeeds("a", "j").commits("a", "j", job.Succeeded, "", 0)
		}},
		{name: "CommitAndReleaseOfOneClaim", broken: "stale_commit", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").ends("a", "j", 3).commits("a", "j", job.Retrying, job.ClassUser, 3).acks("a", "j")
			s.releases("a", "j").runs("a", "j").succeeds("a", "j")
		}},
		{name: "CommitUnderAnothersClaim", broken: "stale_commit", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").breaks("isolate", "a").freezes("a", "j").isTakenOver("j", "a").runs("b", "j")
			s.dies("b", "j").thaws("a", "j").ends("a", "j", 0).commits("a", "j", job.Failed, job.ClassTimeout, 0).acks("a", "j").acks("b", "j")
		}},
		{name: "CommitAfterTakeover", broken: "stale_commit", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").breaks("isolate", "a").isTakenOver("j", "a").ends("a", "j", 0).commits("a", "j", job.Succeeded, "", 0).acks("a", "j")
		}},
		{name: "StartRecordedAfterTheCommit", broken: "stale_commit", tell: func(s *tale) {
			s.submitted("j").takes("a", "j").claims("a", "j").begins("a", "j").ends("a", "j", 3)
			s.commits("a", "j", job.Retrying, job.ClassUser, 3).acks("a", "j").started("a", "j").isTakenOver("j", "a").runs("b", "j").succeeds("b", "j")
		}},
		{name: "ClaimWithoutANewFence", broken: "fence_broken", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").failsOnce("a", "j")
			s.doc("j").Fence--
			s.runs("b", "j").succeeds("b", "j")
			s.events = rename(s.events, "j1", "b", "j9")
		}},
		{name: "FenceThatJumps", broken: "fence_broken", tell: func(s *tale) {
			s.submitted("j")
			s.doc("j").Fence = 4
			s.runs("a", "j").succeeds("a", "j")
		}},
		{name: "AttemptCountedTwice", broken: "began_twice fence_broken", tell: func(s *tale) {
			s.submitted("j").runs("a", "j").failsOnce("a", "j")
			s.doc("j").Attempt--
			s.runs("b", "j").succeeds("b", "j")
		}},
		{name: "ClaimedWhileAnotherHoldsIt", broken: "illegal_transition unjustified_ack", tell: func(s *tale) {
			s.submitted("j").takes("a", "j").claims("a", "j").isRepublished("b", "j").takes("b", "j").claims("b", "j")
			s.begins("b", "j").acks("b", "j").succeeds("b", "j")
		}},
		{name: "TerminalStateLeft", broken: "illegal_transition lost", tell: func(s *tale) {
			s.submitted("j").isKilled("j").isUnparked("j")
		}},
		{name: "InsertedTwice", broken: "illegal_transition", tell: func(s *tale) {
			s.submitted("j").inserted("j").runs("a", "j").succeeds("a", "j")
		}},
		{name: "NeedlessRepublish", broken: "needless_republish", tell: func(s *tale) {
			s.submitted("j").add(Event{Kind: Republished, Job: "j", Host: "b", Needless: true}).runs("a", "j").succeeds("a", "j")
		}},
	}
}

// rename gives the writes of one host under a claim another identity.
func rename(events []Event, claim, host, to string) []Event {
	for i := range events {
		if e := &events[i]; e.Kind == Changed && e.Host == host && strings.HasSuffix(e.ID, claim) {
			e.ID = strings.TrimSuffix(e.ID, claim) + to
			if e.Claim != "" {
				e.Claim = to
			}
		}
	}
	return events
}
