package campaign

import (
	"slices"
	"testing"
	"time"
)

func TestPlan(t *testing.T) {
	opts := PlanOptions{Faults: 100, Gap: 15 * time.Second}
	t.Run("IsAFunctionOfItsSeed", func(t *testing.T) {
		if !slices.Equal(Plan(7, opts), Plan(7, opts)) {
			t.Error("two plans of one seed differ")
		}
		if slices.Equal(Plan(7, opts), Plan(8, opts)) {
			t.Error("two seeds give one plan")
		}
	})
	t.Run("EveryClassComesAsOftenAsTheOthers", func(t *testing.T) {
		for seed := range uint64(50) {
			n := map[Class]int{}
			for _, f := range Plan(seed, opts) {
				n[f.Class]++
			}
			least := opts.Faults / len(Classes())
			most := least + 1
			for _, class := range Classes() {
				if n[class] < least || n[class] > most {
					t.Errorf("seed %d: %s comes %d times, want %d to %d", seed, class, n[class], least, most)
				}
			}
		}
	})
	t.Run("FaultsComeInTheirOrderAndLastAsTheirClassDoes", func(t *testing.T) {
		for seed := range uint64(50) {
			plan := Plan(seed, opts)
			for i, f := range plan {
				k := kindOf(f.Class)
				if f.Number != i+1 || f.Lasts < k.lastsMin || f.Lasts > k.lastsMax || i > 0 && f.At <= plan[i-1].At {
					t.Fatalf("seed %d: fault %+v after %+v", seed, f, plan[max(0, i-1)])
				}
			}
			if span := Span(plan); span < 20*time.Minute || span > 30*time.Minute {
				t.Errorf("seed %d: 100 faults take %s, want about 25 minutes", seed, span)
			}
		}
	})
	t.Run("ChosenClassesAloneCome", func(t *testing.T) {
		chosen := []Class{ShimKilled, DiskFull}
		for _, f := range Plan(3, PlanOptions{Faults: 9, Gap: time.Second, Classes: chosen, Brief: true}) {
			if !slices.Contains(chosen, f.Class) || f.Lasts != kindOf(f.Class).lastsMin {
				t.Errorf("unexpected %+v", f)
			}
		}
	})
	t.Run("FreezeOutlastsTheLease", func(t *testing.T) {
		if k := kindOf(DaemonFrozen); k.lastsMin <= leaseTTL+5*time.Second {
			t.Errorf("a daemon is frozen for %s at least, within lease and grace", k.lastsMin)
		}
	})
}

func TestWork(t *testing.T) {
	opts := WorkOptions{Jobs: 500, Span: 25 * time.Minute}
	same := func(a, b Job) bool { return a == b }
	if !slices.EqualFunc(Work(7, opts), Work(7, opts), same) {
		t.Error("the work of one seed differs")
	}
	for seed := range uint64(10) {
		jobs := Work(seed, opts)
		if len(jobs) != 500 {
			t.Fatalf("%d jobs, want 500", len(jobs))
		}
		ids, kinds := map[string]bool{}, map[Kind]int{}
		for i, j := range jobs {
			if err := j.Spec("/gpuq-campaign", "/witness").Validate(); err != nil {
				t.Errorf("job %+v: %v", j, err)
			}
			if i > 0 && j.At < jobs[i-1].At || ids[string(j.ID)] {
				t.Errorf("job %+v is out of order or not alone with its ID", j)
			}
			if j.Kind == Long && j.Runs <= consumerTimeout {
				t.Errorf("a long job runs for %s", j.Runs)
			}
			ids[string(j.ID)] = true
			kinds[j.Kind]++
		}
		for _, w := range weights {
			if kinds[w.kind] == 0 {
				t.Errorf("seed %d: no %s job", seed, w.kind)
			}
		}
	}
}
