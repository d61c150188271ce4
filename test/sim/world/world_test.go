package world

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(1).NewHost("h")
		first := h.Now()
		if !first.Round(0).Equal(time.Now()) {
			t.Errorf("the wall clock reads %s at %s", first, time.Now())
		}
		time.Sleep(time.Minute)
		h.StepClock(-time.Hour)
		second := h.Now()
		if d := second.Sub(first); d != time.Minute {
			t.Errorf("the monotonic reading went on by %s in a minute", d)
		}
		if d := second.Round(0).Sub(first.Round(0)); d != time.Minute-time.Hour {
			t.Errorf("the wall clock went on by %s in a minute, stepped back by an hour", d)
		}
		if d := first.Add(time.Second).Sub(first); d != time.Second {
			t.Errorf("a second later is %s later", d)
		}
	})
}

// bench is one host with one process and one part, which takes a while to answer.
func bench(w *World) *Process {
	w.SetRates("part", Rates{Fast: time.Millisecond, Slow: 2 * time.Millisecond})
	return w.NewHost("h").Start("gpuqd", nil)
}

func TestCall(t *testing.T) {
	const timeout = time.Second
	for _, c := range []struct {
		name    string
		prepare func(w *World)
		want    error
		effect  bool // by the time the caller hears
		later   bool // in the end
	}{
		{"Answered", func(*World) {}, nil, true, true},
		{"Refused", func(w *World) { w.SetLink("h", "part", Refused) }, ErrRefused, false, false},
		{"Cut", func(w *World) { w.SetLink("h", "part", Cut) }, ErrNoAnswer, false, false},
		{"CutForAll", func(w *World) { w.SetLink(Everyone, "part", Cut) }, ErrNoAnswer, false, false},
		{"OthersCut", func(w *World) { w.SetLink("i", "part", Cut) }, nil, true, true},
		{"RequestLost", func(w *World) { w.SetRates("part", Rates{LoseAsk: 1}) }, ErrNoAnswer, false, false},
		{"AnswerLost", func(w *World) { w.SetRates("part", Rates{LoseAnswer: 1}) }, ErrNoAnswer, true, true},
		{"Late", func(w *World) { w.SetRates("part", Rates{Late: 1}) }, ErrNoAnswer, false, true},
		{"FrozenPart", func(w *World) {
			w.SetLink("h", "part", Frozen)
			time.AfterFunc(3*timeout, func() { w.SetLink("h", "part", Up) })
		}, ErrNoAnswer, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := New(1)
				p := bench(w)
				c.prepare(w)
				effect := false
				err := p.Do(t.Context(), Call{Part: "part", Step: "ask", Timeout: timeout, Effect: func() { effect = true }})
				if !errors.Is(err, c.want) || effect != c.effect {
					t.Errorf("the call ended in %v, effect %t", err, effect)
				}
				time.Sleep(time.Minute)
				if effect != c.later {
					t.Errorf("in the end its effect was %t", effect)
				}
			})
		})
	}
}

func TestFrozenProcessHearsAfterTheThaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(1)
		p := bench(w)
		p.Host().Freeze("gpuqd")
		time.AfterFunc(time.Minute, func() { p.Host().Thaw("gpuqd") })
		var at time.Duration
		if err := p.Do(t.Context(), Call{Part: "part", Step: "ask", Effect: func() { at = w.Now() }}); err != nil || at < time.Minute {
			t.Errorf("the call ended in %v, its effect was at %s", err, at)
		}
	})
}

func TestDeadProcessReachesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(1)
		p := bench(w)
		w.OnStep(func(s Step) {
			if s.Nth == 2 && s.After {
				p.Kill()
			}
		})
		effects := 0
		var errs []error
		for range 3 {
			errs = append(errs, p.Do(context.Background(), Call{Part: "part", Step: "ask", Effect: func() { effects++ }}))
		}
		if effects != 2 || errs[0] != nil || !errors.Is(errs[1], ErrDead) || !errors.Is(errs[2], ErrDead) {
			t.Errorf("%d effects, %v", effects, errs)
		}
		if q := p.Host().Start("gpuqd", nil); q.Wait() != nil {
			t.Error("its host cannot start another")
		}
		p.Host().Crash()
		if q := p.Host().Start("gpuqd", nil); !errors.Is(q.Wait(), ErrDead) {
			t.Error("a host that is down started a process")
		}
	})
}

func TestSameSeedSameChance(t *testing.T) {
	draw := func(seed uint64) (list []time.Duration) {
		synctest.Test(t, func(*testing.T) {
			w := New(seed)
			for range 100 {
				list = append(list, w.Between(0, time.Second, "a", "b"))
				time.Sleep(time.Millisecond)
			}
		})
		return list
	}
	a, b, c := draw(7), draw(7), draw(8)
	same := 0
	for i := range a {
		if a[i] != b[i] {
			t.Fatal("one seed gave two histories")
		}
		if a[i] == c[i] {
			same++
		}
	}
	if same > 0 {
		t.Errorf("another seed drew %d equal numbers", same)
	}
}
