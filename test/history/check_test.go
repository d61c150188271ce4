package history

import (
	"slices"
	"strings"
	"testing"
)

// chapter is one history: what it breaks, by name, and what is excused. One that
// breaks nothing is legal.
type chapter struct {
	name    string
	tell    func(s *tale)
	broken  string
	excused string
}

// chapters are all hand-written histories, by what they are about.
var chapters = map[string][]chapter{
	"Legal": legalChapters(), "Ledger": ledgerChapters(), "Acks": ackChapters(), "Payloads": payloadChapters(), "Devices": deviceChapters(),
	"Held": heldChapters(), "Drained": drainedChapters(), "ShutDown": shutDownChapters(), "Results": resultChapters(), "End": endChapters(),
}

// TestCheck: each history breaks what it is said to break, under that name, and
// nothing else.
func TestCheck(t *testing.T) {
	for about, list := range chapters {
		for _, c := range list {
			t.Run(about+"/"+c.name, func(t *testing.T) {
				s := begin()
				c.tell(s)
				broken, excused := s.judged()
				if got := strings.Join(broken, " "); got != c.broken {
					t.Errorf("broken: %q, want %q", got, c.broken)
				}
				if got := strings.Join(excused, " "); got != c.excused {
					t.Errorf("excused: %q, want %q", got, c.excused)
				}
				if t.Failed() {
					t.Log("\n" + s.String())
				}
			})
		}
	}
}

// TestEveryInvariantIsBroken: each by a history that breaks it alone, since a bug
// must be caught by its name.
func TestEveryInvariantIsBroken(t *testing.T) {
	for _, i := range Invariants {
		alone := func(c chapter) bool { return c.broken == string(i) }
		found := false
		for _, list := range chapters {
			found = found || slices.ContainsFunc(list, alone)
		}
		if !found {
			t.Errorf("no hand-written history breaks %s alone", i)
		}
	}
}

// TestViolationsShowTheirEvents: a violation names its job, shows the events that
// prove it in the order in which they came, and reads as text.
func TestViolationsShowTheirEvents(t *testing.T) {
	for _, list := range chapters {
		for _, c := range list {
			s := begin()
			c.tell(s)
			for _, v := range Check(s.events, s.end, s.rules) {
				if v.Invariant == LeftOver && v.Job == "" {
					continue // what is left is told by the site
				}
				if len(v.Events) == 0 || v.Job == "" || v.Detail == "" || strings.Contains(v.String(), "%!") {
					t.Errorf("%s: not shown: %s", c.name, v)
				}
				for i := 1; i < len(v.Events); i++ {
					if v.Events[i].At.Before(v.Events[i-1].At) {
						t.Errorf("%s: events out of order: %s", c.name, v)
					}
				}
			}
		}
	}
}

func TestBrokenLeavesOutWhatIsExcused(t *testing.T) {
	all := []Violation{{Invariant: Overlap, Excused: true}, {Invariant: Lost}}
	if got := Broken(all); len(got) != 1 || got[0].Invariant != Lost {
		t.Errorf("got %v", got)
	}
}
