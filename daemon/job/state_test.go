package job

import (
	"slices"
	"strings"
	"testing"
)

// arrow is one transition as drawn or told.
type arrow struct{ from, to State }

// drawn are the arrows of the drawing above State, and of the same drawing in
// the design, read off by hand. Every edge out of running ends at a column of
// its own; dead is drawn beside the other terminal states.
var drawn = []arrow{
	{Waiting, Queued},
	{Queued, Waiting},
	{Queued, Claimed},
	{Claimed, Running},
	{Claimed, Queued},
	{Running, Succeeded},
	{Running, Failed},
	{Running, Killed},
	{Running, Queued},
	{Running, Retrying},
	{Retrying, Queued},
	// "dead (from any state before running, and from running as poison)"
	{Waiting, Dead},
	{Queued, Dead},
	{Claimed, Dead},
	{Retrying, Dead},
	{Running, Dead},
}

// told are the transitions that the drawing leaves to the text, with the rule
// that makes each legal.
var told = map[arrow]string{
	{Claimed, Waiting}:   "a job that cannot start for a reason other than capacity is parked",
	{Retrying, Waiting}:  "the same, of a job whose retry is due",
	{Retrying, Claimed}:  "a claim takes a retrying job that is due within slack",
	{Claimed, Succeeded}: "a command can end before its start was recorded",
	{Claimed, Failed}:    "a command can end before its start was recorded",
	{Claimed, Retrying}:  "a command can end before its start was recorded",
	{Waiting, Killed}:    "a kill ends a job that nobody holds at once",
	{Queued, Killed}:     "a kill ends a job that nobody holds at once",
	{Retrying, Killed}:   "a kill ends a job that nobody holds at once",
	{Claimed, Killed}:    "start, retry and requeue turn the kill flag into killed",
}

// TestTransitionsAreTheDrawnAndToldOnes goes through every pair of states: a
// pair is legal if, and only if, the drawing or a written rule has it.
func TestTransitionsAreTheDrawnAndToldOnes(t *testing.T) {
	for _, from := range States {
		for _, to := range States {
			_, inText := told[arrow{from, to}]
			want := slices.Contains(drawn, arrow{from, to}) || inText
			if got := Allowed(from, to); got != want {
				t.Errorf("Allowed(%s, %s) = %v, want %v", from, to, got, want)
			}
		}
	}
	for a := range told {
		if slices.Contains(drawn, a) {
			t.Errorf("%s to %s is drawn: the rule beside the drawing is not needed", a.from, a.to)
		}
	}
}

func TestTransitionsFromOrToNoStateAreIllegal(t *testing.T) {
	for _, s := range States {
		for _, unknown := range []State{"", "done", "Queued", "queued "} {
			if Allowed(s, unknown) || Allowed(unknown, s) {
				t.Errorf("a transition between %s and %q is allowed", s, unknown)
			}
			if unknown.Valid() || unknown.Terminal() || unknown.Held() {
				t.Errorf("%q passes for a state", unknown)
			}
		}
	}
}

// TestEveryStateHasARow: a state that is missing from the table would count as
// terminal, and its jobs would be stuck.
func TestEveryStateHasARow(t *testing.T) {
	if len(next) != len(States) {
		t.Errorf("the table has %d rows, there are %d states", len(next), len(States))
	}
	for _, s := range States {
		to, ok := next[s]
		if !ok {
			t.Errorf("%s has no row", s)
		}
		if slices.Contains(to, s) {
			t.Errorf("%s leads to itself: a compare-and-set could not tell it from a repetition", s)
		}
		if !s.Valid() {
			t.Errorf("%s is not valid", s)
		}
	}
}

func TestTerminalStatesAreTheFour(t *testing.T) {
	terminal := []State{Succeeded, Failed, Killed, Dead}
	for _, s := range States {
		if got, want := s.Terminal(), slices.Contains(terminal, s); got != want {
			t.Errorf("%s: Terminal() = %v, want %v", s, got, want)
		}
	}
}

func TestHeldStatesAreClaimedAndRunning(t *testing.T) {
	for _, s := range States {
		if got, want := s.Held(), s == Claimed || s == Running; got != want {
			t.Errorf("%s: Held() = %v, want %v", s, got, want)
		}
	}
}

func TestSourcesInvertTheTable(t *testing.T) {
	for _, to := range States {
		sources := Sources(to)
		for _, from := range States {
			if got, want := slices.Contains(sources, from), Allowed(from, to); got != want {
				t.Errorf("Sources(%s) has %s: %v, want %v", to, from, got, want)
			}
		}
	}
	if got := Sources("nowhere"); len(got) != 0 {
		t.Errorf("Sources of no state = %v", got)
	}
}

// TestEveryJobCanEnd: from each state there is a way to each terminal state that
// a job can meet, and from queued to every state.
func TestEveryJobCanEnd(t *testing.T) {
	for _, from := range States {
		seen := reachable(from)
		if from.Terminal() {
			if len(seen) != 0 {
				t.Errorf("%s is terminal and leads to %v", from, seen)
			}
			continue
		}
		for _, to := range States {
			if !slices.Contains(seen, to) {
				t.Errorf("no way from %s to %s", from, to)
			}
		}
	}
}

func reachable(from State) []State {
	var seen []State
	for todo := []State{from}; len(todo) > 0; todo = todo[1:] {
		for _, to := range next[todo[0]] {
			if !slices.Contains(seen, to) {
				seen = append(seen, to)
				todo = append(todo, to)
			}
		}
	}
	return seen
}

func TestStateNamesAreLowerCaseWords(t *testing.T) {
	for _, s := range States {
		if s == "" || strings.Trim(string(s), "abcdefghijklmnopqrstuvwxyz") != "" {
			t.Errorf("%q is stored, and matched by other programs: keep it a lower-case word", s)
		}
	}
}
