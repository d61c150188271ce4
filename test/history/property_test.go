package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"gpuqd/daemon/job"

	"pgregory.net/rapid"
)

// TestLegalPlaysPass: whatever a site does that keeps the protocol, with acks that
// arrive at any time, is legal.
func TestLegalPlaysPass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		choose := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") }
		p := newPlay(1+choose(4), 1+choose(3), choose).run(choose(120))
		if found := Check(p.events, p.end, p.rules); len(found) > 0 {
			t.Fatalf("a legal history is found to break something:\n%s", p)
		}
		for id, doc := range p.end.Jobs {
			if !doc.State.Terminal() {
				t.Fatalf("the play is stuck: %s is %s\n%s", id, doc.State, p)
			}
		}
	})
}

// seeded is a play whose choices come of a seed.
func seeded(seed uint64, jobs, hosts, steps int) *play {
	r := rand.New(rand.NewPCG(seed, 1))
	return newPlay(jobs, hosts, r.IntN).run(steps)
}

// mutation is a change of a legal history that breaks it, always.
type mutation struct {
	name string
	want Invariant
	// at reports whether it can be made at an event.
	at   func(p *play, i int) bool
	make func(p *play, i int)
}

// mutations are told one by one; where several events would do, one is drawn.
var mutations = []mutation{
	{"TerminalTransitionIsLost", RolledBack, changesTo(job.Succeeded), drop},
	{"ClaimIsLost", FenceBroken, changesTo(job.Claimed), drop},
	{"CommitIsRepeated", CommittedTwice, changesTo(job.Succeeded), double},
	{"ClaimIsRepeated", CommittedTwice, changesTo(job.Claimed), double},
	{"EndedBySomebodyElseToo", TwoEnds, changesTo(job.Succeeded), func(p *play, i int) {
		double(p, i)
		p.events[i+1].ID = "other"
	}},
	{"PayloadBeginsTwice", BeganTwice, is(Began), double},
	{"PayloadNeverBegan", ResultDiffers, func(p *play, i int) bool {
		return is(Began)(p, i) && p.endsWith(p.events[i])
	}, drop},
	{"PayloadBeginsElsewhere", BeganUnclaimed, is(Began), func(p *play, i int) { p.events[i].Host = "host-9" }},
	{"PayloadNeverEnds", LeftOver, is(Finished), drop},
	{"PayloadEndsOtherwise", ResultDiffers, func(p *play, i int) bool {
		return is(Finished)(p, i) && p.endsWith(p.events[i])
	}, func(p *play, i int) { p.events[i].Code = 9 }},
	{"RepublishIsNeedless", NeedlessRepublish, is(Republished), func(p *play, i int) { p.events[i].Needless = true }},
	{"CommitOfAnotherClaim", StaleCommit, changesTo(job.Succeeded), func(p *play, i int) { p.events[i].ID = "commit-other" }},
	{"ReleaseThatNobodyAskedFor", StartedHeld, func(p *play, i int) bool {
		e := p.events[i]
		return e.Kind == Released && slices.ContainsFunc(p.events[i:], func(o Event) bool {
			return o.Kind == Changed && o.Job == e.Job && o.State == job.Claimed
		})
	}, drop},
	{"DrainThatDoesNotEnd", StartedDrained, func(p *play, i int) bool {
		return is(Undrained)(p, i) && p.claimsAndBegins(p.events[i].Host, i)
	}, drop},
	{"FailurePaidTwice", Overcharged, changesTo(job.Succeeded), func(p *play, i int) { p.end.Jobs[p.events[i].Job].Failures = 99 }},
	{"AckWhileItRuns", UnjustifiedAck, func(p *play, i int) bool {
		// The only delivery of its job that its host has taken in this history.
		e := p.events[i]
		return e.Kind == Began && p.endsWith(e) && p.takenBy(e) == 1
	}, func(p *play, i int) {
		e := p.events[i]
		taken := slices.IndexFunc(p.events, func(o Event) bool { return o.Kind == Taken && o.Job == e.Job && o.Host == e.Host })
		p.events = slices.Insert(p.events, i+1, Event{At: e.At, Kind: Acked, Job: e.Job, Host: e.Host, Tag: p.events[taken].Tag})
	}},
}

func is(k Kind) func(*play, int) bool {
	return func(p *play, i int) bool { return p.events[i].Kind == k }
}

func changesTo(s job.State) func(*play, int) bool {
	return func(p *play, i int) bool { return p.events[i].Kind == Changed && p.events[i].State == s }
}

func drop(p *play, i int) { p.events = slices.Delete(p.events, i, i+1) }

func double(p *play, i int) { p.events = slices.Insert(p.events, i, p.events[i]) }

// endsWith reports whether the job succeeded with the attempt of an event.
func (p *play) endsWith(e Event) bool {
	doc := p.end.Jobs[e.Job]
	return doc.State == job.Succeeded && doc.Attempt == e.Attempt
}

// claimsAndBegins reports whether a host does both for one job after a place, and
// before its next drain has ended.
func (p *play) claimsAndBegins(host string, after int) bool {
	claims := map[job.ID]bool{}
	for _, e := range p.events[after+1:] {
		if e.Host != host {
			continue
		}
		switch {
		case e.Kind == Undrained:
			return false
		case e.Kind == Changed && e.State == job.Claimed:
			claims[e.Job] = true
		case e.Kind == Changed:
			claims[e.Job] = claims[e.Job] && e.State == job.Running
		case e.Kind == Began && claims[e.Job]:
			return true
		}
	}
	return false
}

// takenBy counts the deliveries of an event's job that its host took.
func (p *play) takenBy(e Event) (n int) {
	for _, o := range p.events {
		if o.Kind == Taken && o.Job == e.Job && o.Host == e.Host {
			n++
		}
	}
	return n
}

// TestMutationsAreCaught makes each mutation in some hundred legal histories, and
// looks for its name.
func TestMutationsAreCaught(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			made := 0
			for seed := range uint64(300) {
				p := seeded(seed, 3, 2, 60)
				var places []int
				for i := range p.events {
					if m.at(p, i) {
						places = append(places, i)
					}
				}
				if len(places) == 0 {
					continue
				}
				made++
				m.make(p, places[int(seed)%len(places)])
				found := Check(p.events, p.end, p.rules)
				if !slices.ContainsFunc(found, func(v Violation) bool { return v.Invariant == m.want && !v.Excused }) {
					t.Fatalf("seed %d: %s is not found:\n%s", seed, m.want, p)
				}
			}
			if made < 50 {
				t.Errorf("it could be made in %d histories only", made)
			}
		})
	}
}

// TestCheckChangesNothing: the events are the caller's, and the verdict is the
// same each time.
func TestCheckChangesNothing(t *testing.T) {
	p := seeded(7, 4, 3, 120)
	double(p, placeOf(p.events, Began, 0))
	before := fmt.Sprint(p.events)
	first := fmt.Sprint(Check(p.events, p.end, p.rules))
	if second := fmt.Sprint(Check(p.events, p.end, p.rules)); second != first || fmt.Sprint(p.events) != before {
		t.Error("a second check of one history differs")
	}
}

// BenchmarkCheck is one history of the size of a simulated one.
func BenchmarkCheck(b *testing.B) {
	p := seeded(3, 6, 3, 400)
	p.rules.Deadline = p.now.Add(time.Minute)
	b.ReportAllocs()
	for b.Loop() {
		if found := Check(p.events, p.end, p.rules); len(found) > 0 {
			b.Fatal(found)
		}
	}
	b.ReportMetric(float64(len(p.events)), "events")
}
