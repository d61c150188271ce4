package job

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var anyShape = rapid.Custom(func(t *rapid.T) Shape {
	return Shape{
		Pool:     rapid.StringMatching(`[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?`).Draw(t, "pool"),
		Priority: rapid.SampledFrom(Priorities).Draw(t, "priority"),
		GPUs:     rapid.IntRange(0, gpusMax).Draw(t, "gpus"),
		Class:    ClassAny,
	}
})

func TestQueueRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anyShape.Draw(t, "shape")
		for _, queue := range []string{s.Queue(), s.AgainQueue()} {
			if got, err := ParseQueue(queue); err != nil || got != s {
				t.Fatalf("ParseQueue(%q) = %+v, %v, want %+v", queue, got, err, s)
			}
			if len(queue) > 255 {
				t.Fatalf("%q is longer than AMQP allows", queue)
			}
		}
		if s.String() != s.Queue() {
			t.Fatalf("the shape is called %q, its queue %q", s, s.Queue())
		}
	})
}

func TestQueueHasTheDocumentedName(t *testing.T) {
	s := Shape{Pool: "train", Priority: High, GPUs: 8, Class: ClassAny}
	if got := s.Queue(); got != "gpuq.job.train.high.g8.any" {
		t.Errorf("plain queue %q", got)
	}
	if got := s.AgainQueue(); got != "gpuq.job.train.high.g8.any.again" {
		t.Errorf("again queue %q", got)
	}
}

func TestDifferentShapesHaveDifferentQueues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyShape.Draw(t, "a"), anyShape.Draw(t, "b")
		if (a.Queue() == b.Queue()) != (a == b) || a.Queue() == b.AgainQueue() {
			t.Fatalf("%+v and %+v wait in %q and %q", a, b, a.Queue(), b.Queue())
		}
	})
}

func TestParseQueueRefusesWhatIsNoJobQueue(t *testing.T) {
	long := strings.Repeat("p", 33)
	for _, name := range []string{
		"", ".", "gpuq.submit", "gpuq.retry.10s", "gpuq.dead", "gpuq.job.",
		"gpuq.job.default.normal.g1",
		"gpuq.job.default.normal.g1.any.again.again",
		"gpuq.job.default.normal.g1.any.again.",
		"gpuq.job.default.normal.g1.any.more",
		"gpuq.job..normal.g1.any",
		"gpuq.job.default.urgent.g1.any",
		"gpuq.job.default.High.g1.any",
		"gpuq.job.default.normal.1.any",
		"gpuq.job.default.normal.g.any",
		"gpuq.job.default.normal.g01.any",
		"gpuq.job.default.normal.g+1.any",
		"gpuq.job.default.normal.g-1.any",
		"gpuq.job.default.normal.gg1.any",
		"gpuq.job.default.normal.g99999999999999999999.any",
		"gpuq.job.Default.normal.g1.any",
		"gpuq.job.-default.normal.g1.any",
		"gpuq.job.default-.normal.g1.any",
		"gpuq.job." + long + ".normal.g1.any",
		"gpuq.job.default.normal.g1.",
		"gpuq.job.default.normal.g1.any\n",
		"gpuq.job.default.normal.g1.*",
		" gpuq.job.default.normal.g1.any",
		"GPUQ.job.default.normal.g1.any",
	} {
		if s, err := ParseQueue(name); err == nil || s != (Shape{}) {
			t.Errorf("ParseQueue(%q) = %+v, %v", name, s, err)
		} else if !strings.Contains(err.Error(), "<pool>.<priority>") {
			t.Errorf("ParseQueue(%q): %v does not say what it wants", name, err)
		}
	}
}

// TestParsedQueueIsTheShapesOwn: no two names pass for one queue, whatever is
// thrown at the parser.
func TestParsedQueueIsTheShapesOwn(t *testing.T) {
	word := rapid.OneOf(
		rapid.SampledFrom([]string{"gpuq", "job", "default", "normal", "high", "g0", "g1", "g01", "any", "again", ""}),
		rapid.StringN(0, 5, -1))
	rapid.Check(t, func(t *rapid.T) {
		name := strings.Join(rapid.SliceOfN(word, 0, 8).Draw(t, "words"), ".")
		if rapid.Bool().Draw(t, "prefixed") {
			name = "gpuq.job." + name
		}
		s, err := ParseQueue(name)
		if err == nil && name != s.Queue() && name != s.AgainQueue() {
			t.Fatalf("%q passes for the queue of %+v", name, s)
		}
	})
}

func TestPrioritiesRankHighestFirst(t *testing.T) {
	if !(High.Rank() < Normal.Rank() && Normal.Rank() < Low.Rank()) {
		t.Error("high, normal and low do not rank in this order")
	}
	for _, unknown := range []Priority{"", "urgent", "HIGH"} {
		if unknown.Rank() <= Low.Rank() {
			t.Errorf("%q ranks %d, among the known ones", unknown, unknown.Rank())
		}
	}
}

func TestSpecWaitsInItsShape(t *testing.T) {
	s := DefaultSpec()
	s.Pool, s.Priority, s.GPUs = "render", Low, 3
	if got, want := s.Shape(), (Shape{"render", Low, 3, ClassAny}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
