package sim

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/test/history"
)

// newSeedsFor is how long go test runs seeds that nobody has run; CI takes two
// minutes of them.
func newSeedsFor() time.Duration {
	switch {
	case *lasting > 0:
		return *lasting
	case os.Getenv("CI") != "":
		return 2 * time.Minute
	}
	return 20 * time.Second
}

// TestSimulate runs seeds: a range, or new ones for a while. Every history must
// keep every promise.
func TestSimulate(t *testing.T) {
	first, end := *from, *to
	began := time.Now()
	if end == 0 {
		first = uint64(began.Unix()) << 24
		end = first + 1<<24
	}
	done := uint64(0)
	tally := &tally{excused: map[history.Invariant]int{}}
	for seed := first; seed < end; seed++ {
		if *to == 0 && time.Since(began) > newSeedsFor() {
			break
		}
		if *verbose {
			fmt.Println("seed", seed)
		}
		out := Run(t, NewPlan(seed), nil)
		tally.add(out)
		if len(out.Violations) > 0 {
			fail(t, out)
		}
		done++
		collect(done)
	}
	took := time.Since(began)
	t.Logf("histories: %d, seeds %d to %d, in %s, %.1f ms each", done, first, first+done, took.Round(time.Second),
		took.Seconds()*1000/float64(max(done, 1)))
	t.Log(tally)
}

// fail shrinks a broken history and shows what is left of it.
func fail(t *testing.T, out Outcome) {
	t.Helper()
	v := out.Violations[0]
	t.Errorf("seed %d breaks %s: job %s: %s", out.Plan.Seed, v.Invariant, v.Job, v.Detail)
	small := Shrink(t, out.Plan, v.Invariant)
	t.Fatalf("shrunk:\n%s", Report(t, small, v.Invariant))
}

// tally counts what the histories went through, so that one can see that they
// went through something.
type tally struct {
	events, begun, faults  int
	parts                  int // executions on a part of a device
	held, drained, cleared int // cleared: attempts ended by a drain
	excused                map[history.Invariant]int
	kinds                  map[string]int
}

func (s *tally) add(o Outcome) {
	if s.kinds == nil {
		s.kinds = map[string]int{}
	}
	s.events += len(o.Events)
	for _, e := range o.Events {
		switch e.Kind {
		case history.Began:
			s.begun++
			if e.Share > 0 {
				s.parts++
			}
		case history.Held:
			s.held++
		case history.Drained:
			s.drained++
		case history.Changed:
			if e.Class == string(job.ClassDrained) {
				s.cleared++
			}
		case history.Fault:
			s.faults++
			s.kinds[e.Class]++
		}
	}
	for _, v := range o.Excused {
		s.excused[v.Invariant]++
	}
}

func (s *tally) String() string {
	return fmt.Sprintf("%d events, %d executions, %d of them on a part of a device, %d holds, %d drains, which ended %d attempts, %d faults %v, not promised away: %v",
		s.events, s.begun, s.parts, s.held, s.drained, s.cleared, s.faults, s.kinds, s.excused)
}

// One plan is one history, event by event.
func TestReplayIsExact(t *testing.T) {
	for seed := range uint64(300) {
		first, again := Run(t, NewPlan(seed), nil), Run(t, NewPlan(seed), nil)
		same := slices.EqualFunc(first.Events, again.Events, func(a, b history.Event) bool { return a.String() == b.String() })
		if !same {
			for i := range first.Events {
				if i >= len(again.Events) || first.Events[i].String() != again.Events[i].String() {
					t.Fatalf("seed %d: event %d differs:\n%s\n%s", seed, i, first.Events[i], at(again.Events, i))
				}
			}
			t.Fatalf("seed %d: the second run has more events", seed)
		}
		collect(seed)
	}
}

func at(events []history.Event, i int) string {
	if i < len(events) {
		return events[i].String()
	}
	return "nothing"
}

// Plans that showed a mistake once, in testdata, hold now; -sim.plan runs another.
func TestPlan(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if *plan != "" {
		files = []string{*plan}
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var p Plan
		if err := json.Unmarshal(text, &p); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		out := Run(t, p, nil)
		for _, v := range out.Violations {
			t.Errorf("%s breaks %s: job %s: %s", file, v.Invariant, v.Job, v.Detail)
		}
		if len(out.Violations) > 0 || *plan != "" {
			invariant := history.Invariant("")
			if len(out.Violations) > 0 {
				invariant = out.Violations[0].Invariant
			}
			t.Log(Report(t, p, invariant))
		}
	}
}
