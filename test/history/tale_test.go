package history

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gpuqd/daemon/job"
)

// tale tells a history as a story, for tests: who did what, in order. Every event
// comes a second after the one before, unless wait says otherwise. A tale knows
// what a legal site knows (the documents, the tags, who holds what), so that only
// what goes wrong has to be spelled out.
//
// In a tale jobs are "j" and "k", hosts "a", "b" and "c".
type tale struct {
	now    time.Time
	events []Event
	end    End
	rules  Rules
	tags   map[string]Tag // of the last delivery, by host and job
	next   map[string]Tag // by host: the tag of the next one
	mine   map[string]*job.Job
	writes int
}

func begin() *tale {
	now := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	return &tale{
		now: now, end: End{Jobs: map[job.ID]*job.Job{}},
		rules: Rules{OnLoss: "freeze", Tick: 200 * time.Millisecond, Recovery: time.Hour},
		tags:  map[string]Tag{}, next: map[string]Tag{}, mine: map[string]*job.Job{},
	}
}

// wait puts the next event off: it comes this long after the last one.
func (s *tale) wait(d time.Duration) *tale {
	s.now = s.now.Add(d - time.Second)
	return s
}

func (s *tale) add(e Event) *tale {
	s.now = s.now.Add(time.Second)
	e.At = s.now
	s.events = append(s.events, e)
	return s
}

func (s *tale) doc(j job.ID) *job.Job {
	if s.end.Jobs[j] == nil {
		s.end.Jobs[j] = &job.Job{ID: j}
	}
	return s.end.Jobs[j]
}

// write moves the document and tells it.
func (s *tale) write(host string, j job.ID, to job.State, class job.Class, id string) *tale {
	doc := s.doc(j)
	doc.State = to
	e := Event{Kind: Changed, Job: j, Host: host, State: to, Class: string(class), ID: id, Attempt: doc.Attempt, Fence: doc.Fence}
	if doc.Owner != nil {
		e.Claim, e.Devices = doc.Owner.ClaimID, doc.Owner.Devices
	}
	return s.add(e)
}

// The ledger.

func (s *tale) inserted(j job.ID) *tale { return s.write("", j, job.Queued, "", "") }

func (s *tale) confirmed(j job.ID) *tale { return s.add(Event{Kind: Submitted, Job: j}) }

func (s *tale) submitted(j job.ID) *tale { return s.inserted(j).confirmed(j) }

// claims is a claim that took effect.
func (s *tale) claims(host string, j job.ID, devices ...string) *tale {
	doc := s.doc(j)
	doc.Attempt++
	doc.Fence++
	doc.Owner = &job.Owner{Host: host, ClaimID: fmt.Sprintf("%s%d", j, doc.Fence), Devices: devices}
	mine := *doc
	s.mine[host+string(j)] = &mine
	return s.write(host, j, job.Claimed, "", doc.Owner.ClaimID)
}

// started records the start of the host's own claim.
func (s *tale) started(host string, j job.ID) *tale {
	return s.write(host, j, job.Running, "", "start-"+s.claimOf(host, j))
}

func (s *tale) claimOf(host string, j job.ID) string { return s.mine[host+string(j)].Owner.ClaimID }

// commits ends the host's own claim, with a result where the job is over.
func (s *tale) commits(host string, j job.ID, to job.State, class job.Class, code int) *tale {
	doc := s.doc(j)
	doc.Owner = nil
	attempt := s.mine[host+string(j)].Attempt
	doc.Result = &job.Result{
		Attempt: attempt, Host: host, Outcome: to, Class: class, ExitCode: code,
		LogTail: fmt.Sprintf("witness %s %d %s\n", j, attempt, host),
	}
	return s.write(host, j, to, class, "commit-"+s.claimOf(host, j))
}

// releases gives the host's own claim back.
func (s *tale) releases(host string, j job.ID) *tale {
	s.doc(j).Owner = nil
	return s.write(host, j, job.Queued, "", "release-"+s.claimOf(host, j))
}

// isTakenOver is a takeover of the claim of a host.
func (s *tale) isTakenOver(j job.ID, from string) *tale {
	s.doc(j).Owner = nil
	s.writes++
	return s.write(from, j, job.Queued, job.ClassHostLost, fmt.Sprint("takeover-", s.writes))
}

// isKilled is a kill of a job that nobody holds.
func (s *tale) isKilled(j job.ID) *tale {
	s.writes++
	return s.write("", j, job.Killed, job.ClassKilled, fmt.Sprint("kill-", s.writes))
}

func (s *tale) isParked(j job.ID) *tale { return s.write("", j, job.Waiting, "", "") }

func (s *tale) isUnparked(j job.ID) *tale { return s.write("", j, job.Queued, "", "") }

func (s *tale) isRepublished(host string, j job.ID) *tale {
	return s.add(Event{Kind: Republished, Job: j, Host: host})
}

// The broker.

func (s *tale) publishes(host string, j job.ID) *tale {
	return s.add(Event{Kind: Published, Job: j, Host: host})
}

func (s *tale) takes(host string, j job.ID) *tale {
	tag := s.next[host]
	tag.Generation = max(tag.Generation, 1)
	tag.Delivery++
	s.next[host], s.tags[host+string(j)] = tag, tag
	return s.add(Event{Kind: Taken, Job: j, Host: host, Tag: tag})
}

// acks removes the last message that the host took of the job.
func (s *tale) acks(host string, j job.ID) *tale { return s.acksTag(host, j, s.tags[host+string(j)]) }

func (s *tale) acksTag(host string, j job.ID, tag Tag) *tale {
	return s.add(Event{Kind: Acked, Job: j, Host: host, Tag: tag})
}

func (s *tale) givesBack(host string, j job.ID) *tale {
	return s.add(Event{Kind: Returned, Job: j, Host: host, Tag: s.tags[host+string(j)]})
}

// loses is the loss of the host's connection, with its delivery of the job.
func (s *tale) loses(host string, j job.ID) *tale {
	s.givesBack(host, j)
	s.next[host] = Tag{Generation: s.next[host].Generation + 1}
	return s
}

func (s *tale) setsAside(host string, j job.ID) *tale {
	return s.add(Event{Kind: SetAside, Job: j, Host: host, Reason: "no such job"})
}

// The payload, as the host's own claim has it.

func (s *tale) payload(kind Kind, host string, j job.ID) *tale {
	mine := s.mine[host+string(j)]
	return s.add(Event{Kind: kind, Job: j, Host: host, Attempt: mine.Attempt, Devices: mine.Owner.Devices})
}

func (s *tale) begins(host string, j job.ID) *tale { return s.payload(Began, host, j) }

func (s *tale) freezes(host string, j job.ID) *tale { return s.payload(Halted, host, j) }

func (s *tale) thaws(host string, j job.ID) *tale { return s.payload(Went, host, j) }

func (s *tale) ends(host string, j job.ID, code int) *tale {
	return s.add(Event{Kind: Finished, Job: j, Host: host, Attempt: s.mine[host+string(j)].Attempt, Code: code, Complete: true})
}

func (s *tale) dies(host string, j job.ID) *tale {
	return s.add(Event{Kind: Finished, Job: j, Host: host, Attempt: s.mine[host+string(j)].Attempt, Code: 137})
}

// The site.

func (s *tale) breaks(class, host string) *tale {
	return s.add(Event{Kind: Fault, Host: host, Class: class})
}

func (s *tale) heals() *tale { return s.add(Event{Kind: Healed}) }

func (s *tale) pauses(host string) *tale { return s.add(Event{Kind: Paused, Host: host}) }

func (s *tale) resumes(host string) *tale { return s.add(Event{Kind: Resumed, Host: host}) }

// People.

func (s *tale) isHeld(j job.ID) *tale { return s.add(Event{Kind: Held, Job: j}) }

func (s *tale) asksRelease(j job.ID) *tale { return s.add(Event{Kind: Released, Job: j}) }

// isDrained is a drain of a host, or of a device, that the host does not know of.
func (s *tale) isDrained(host string, device ...string) *tale {
	return s.add(Event{Kind: Drained, Host: host, Devices: device})
}

// drains is one that it knows of.
func (s *tale) drains(host string, device ...string) *tale {
	return s.isDrained(host, device...).add(Event{Kind: Learnt, Host: host, Devices: device})
}

func (s *tale) undrains(host string, device ...string) *tale {
	return s.add(Event{Kind: Undrained, Host: host, Devices: device})
}

// closes is a host that releases its session.
func (s *tale) closes(host string) *tale { return s.add(Event{Kind: SessionReleased, Host: host}) }

// Whole chapters.

// runs is everything from the take to the record of the start.
func (s *tale) runs(host string, j job.ID, devices ...string) *tale {
	return s.takes(host, j).claims(host, j, devices...).begins(host, j).started(host, j)
}

// succeeds is everything from the payload's end to the ack.
func (s *tale) succeeds(host string, j job.ID) *tale {
	return s.ends(host, j, 0).commits(host, j, job.Succeeded, "", 0).acks(host, j)
}

// failsOnce is a failure with another attempt to come.
func (s *tale) failsOnce(host string, j job.ID) *tale {
	return s.ends(host, j, 3).commits(host, j, job.Retrying, job.ClassUser, 3).publishes(host, j).acks(host, j)
}

// judged returns the names of what is broken, and of what is excused, each once
// and sorted.
func (s *tale) judged() (broken, excused []string) {
	for _, v := range Check(s.events, s.end, s.rules) {
		list := &broken
		if v.Excused {
			list = &excused
		}
		if !slices.Contains(*list, string(v.Invariant)) {
			*list = append(*list, string(v.Invariant))
		}
	}
	slices.Sort(broken)
	slices.Sort(excused)
	return broken, excused
}

// String is the whole history, for a test that fails.
func (s *tale) String() string {
	var b strings.Builder
	for _, e := range s.events {
		b.WriteString(e.String() + "\n")
	}
	for _, v := range Check(s.events, s.end, s.rules) {
		b.WriteString(v.String() + "\n")
	}
	return b.String()
}
