package device

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"gpuqd/daemon/job"
)

func TestEndingSays(t *testing.T) {
	const fast = 30 * time.Second
	for _, c := range []struct {
		class  job.Class
		lasted time.Duration
		want   outcome
	}{
		{"", 0, ranWell},
		{job.ClassUser, time.Second, failedFast},
		{job.ClassUser, fast, ranWell},
		{job.ClassDevice, time.Second, failedFast},
		{job.ClassOOMGPU, time.Second, failedFast},
		{job.ClassKilled, time.Second, saysNothing},
		{job.ClassKilled, time.Hour, saysNothing},
		{job.ClassDrained, time.Second, saysNothing},
		{job.ClassPreempted, time.Second, saysNothing},
		{job.ClassHostLost, time.Second, saysNothing},
		{job.ClassOOMHost, time.Second, saysNothing},
		{job.ClassTimeout, time.Second, saysNothing},
	} {
		if got := (Ending{Class: c.class, Lasted: c.lasted}).says(fast); got != c.want {
			t.Errorf("%q after %s says %d, want %d", c.class, c.lasted, got, c.want)
		}
	}
}

// story drives one breaker: each word is a job that ends, "a1!" for job 1 of kind a
// that fails fast, "a1" one that runs well, "a1?" one that says nothing.
func story(t *testing.T, b *breaker, now *time.Time, elsewhere bool, words string) (opened int) {
	t.Helper()
	for word := range strings.FieldsSeq(words) {
		said := ranWell
		switch {
		case strings.HasSuffix(word, "!"):
			said = failedFast
		case strings.HasSuffix(word, "?"):
			said = saysNothing
		}
		who := attemptKey{job.ID(strings.TrimRight(word, "!?")), 1}
		b.grant(who, *now)
		if b.end(who, word[:1], said, *now, func(string, time.Time) bool { return elsewhere }) {
			opened++
		}
		*now = now.Add(time.Second)
	}
	return opened
}

func TestBreakerOpens(t *testing.T) {
	for words, want := range map[string]bool{
		"a1! b2! a3!":         true,
		"a1! a2! a3!":         false, // one kind
		"a1! a2! a3! b4!":     true,
		"a1! b2! a1!":         false,
		"a1! a1! b2! b2!":     false, // two jobs
		"a1! b2! a3 b4! a5!":  false, // one ran well between
		"a1! b2! a3? b4?":     false,
		"a1! b2! x9? a3!":     true, // what says nothing is passed over
		"a1! b2! a3 b4! c5!":  false,
		"a1 b2! a3! a4!":      true,
		"a1! a2! a3! a4! a5!": false,
	} {
		b, now := &breaker{}, time.Unix(1000, 0)
		if opened := story(t, b, &now, false, words) > 0; opened != want || b.closed() == want {
			t.Errorf("%s: opened %t, want %t", words, opened, want)
		}
	}
	b, now := &breaker{}, time.Unix(1000, 0)
	if story(t, b, &now, true, "a1! a2! a3!") != 1 {
		t.Error("one kind that runs well elsewhere does not open it")
	}
}

func TestBreakerTriesOneJobAndWaitsLongerEachTime(t *testing.T) {
	b, now := &breaker{}, time.Unix(1000, 0)
	if story(t, b, &now, false, "a1! b2! a3!") != 1 {
		t.Fatal("it is closed")
	}
	for i, wait := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		wait *= time.Minute
		if left := b.Until.Sub(now); left > wait || left < wait-2*time.Second {
			t.Fatalf("turn %d: out for %s, want %s", i, left, wait)
		}
		if !b.open(now) || b.probing(now) {
			t.Fatalf("turn %d: it is not open", i)
		}
		now = b.Until
		if b.open(now) || !b.probing(now) {
			t.Fatalf("turn %d: it does not try a job after its time", i)
		}
		if story(t, b, &now, false, "a9?") != 0 || !b.probing(now) || b.probe != (attemptKey{}) {
			t.Fatalf("turn %d: a probe that says nothing decides, or stays", i)
		}
		if story(t, b, &now, false, string(rune('c'+i))+"9!") != 1 { // of another kind each time
			t.Fatalf("turn %d: a probe that fails does not open it", i)
		}
	}
	now = b.Until
	if story(t, b, &now, false, "a9"); !b.closed() || len(b.Row) != 0 {
		t.Error("a probe that runs well does not close it")
	}
}

// One user's broken batch, of which one job after the other is tried, does not keep the
// place closed for hours; where its kind runs well elsewhere it does.
func TestBreakerLearnsNothingFromMoreOfTheSame(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		b, now := &breaker{}, time.Unix(1000, 0)
		story(t, b, &now, false, "b1! a1! a2!")
		for i := range 5 {
			now = b.Until
			if story(t, b, &now, elsewhere, fmt.Sprintf("a%d!", i+3)) != 1 {
				t.Fatal("a probe that fails does not open it")
			}
		}
		want := breakerFirst
		if elsewhere {
			want <<= 5
		}
		if b.Wait != want {
			t.Errorf("elsewhere %t: out for %s, want %s", elsewhere, b.Wait, want)
		}
	}
}

// A probe that goes on running is answer enough: the rest of the host, and of a shared
// device, does not wait for its end.
func TestProbeThatRunsOnClosesTheBreakers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{BreakerFast: 30 * time.Second}, "a", "b")
		fail := func(id job.ID, uuid, kind string) {
			b.grant(id, 1, uuid)
			b.Release(id, 1)
			b.report()
			b.Ended(Ending{JobID: id, Attempt: 1, Devices: []string{uuid}, Kind: kind, Class: job.ClassUser, Lasted: time.Second})
			b.Release(id, 1)
		}
		fail("j1", "a", "x")
		fail("j2", "a", "y")
		fail("j3", "b", "x")
		b.want("b", Sick, "the devices of this host")
		time.Sleep(breakerFirst)
		if err := b.Acquire("probe", 1, []string{"a"}, 1<<30); err != nil {
			t.Fatal(err)
		}
		b.want("b", Sick, "attempt 1 of job probe is the one that is tried")
		time.Sleep(30*time.Second - 1)
		b.want("b", Sick)
		time.Sleep(time.Nanosecond)
		b.want("b", Free)
		if err := b.Acquire("beside", 1, []string{"a"}, 1<<30); err != nil {
			t.Error(err)
		}
		b.Release("probe", 1)
		b.Ended(Ending{JobID: "probe", Attempt: 1, Devices: []string{"a"}, Kind: "x", Class: job.ClassKilled, Lasted: time.Minute})
		b.want("b", Free)
	})
}

// What was started before it opened is no probe, and closes it where it runs well.
func TestBreakerHearsWhatRanOn(t *testing.T) {
	b, now := &breaker{}, time.Unix(1000, 0)
	old := attemptKey{"old", 1}
	b.grant(old, now)
	story(t, b, &now, false, "a1! b2! a3!")
	until := b.Until
	if b.end(old, "z", failedFast, now, nobodyElse) || b.Until != until {
		t.Error("what ran on has opened it again")
	}
	other := attemptKey{"other", 1}
	if b.end(other, "z", ranWell, now, nobodyElse); !b.closed() {
		t.Error("what ran on and ran well has not closed it")
	}
}

// TestBreakerProperties: whatever happens, one kind alone opens nothing unless it
// ran well elsewhere; an open breaker always gets to its probe within an hour; one
// that runs well always closes it.
func TestBreakerProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, now := &breaker{}, time.Unix(1000, 0)
		kinds := map[string]bool{} // of the fast failures since the last good run
		elsewhere := false
		t.Repeat(map[string]func(*rapid.T){
			"end": func(t *rapid.T) {
				if b.open(now) {
					return // nothing is granted
				}
				kind := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "kind")
				who := attemptKey{job.ID(fmt.Sprint(kind, rapid.IntRange(1, 6).Draw(t, "job"))), 1}
				said := rapid.SampledFrom([]outcome{saysNothing, ranWell, failedFast, failedFast, failedFast}).Draw(t, "said")
				elsewhere = rapid.Bool().Draw(t, "elsewhere")
				was := b.closed()
				b.grant(who, now)
				opened := b.end(who, kind, said, now, func(string, time.Time) bool { return elsewhere })
				switch said {
				case ranWell:
					kinds = map[string]bool{}
					if !b.closed() || opened {
						t.Fatal("a good run has not closed it")
					}
				case failedFast:
					kinds[kind] = true
					if !was && !opened {
						t.Fatal("a probe has failed, and it is not open")
					}
				case saysNothing:
					if opened {
						t.Fatal("what says nothing has opened it")
					}
				}
				if opened && was && len(kinds) < 2 && !elsewhere {
					t.Fatalf("one kind alone has opened it: %v", b.Row)
				}
			},
			"wait": func(*rapid.T) { now = now.Add(10 * time.Minute) },
			"": func(t *rapid.T) {
				if b.open(now.Add(breakerMost)) {
					t.Fatalf("it is out until %s, and it is %s", b.Until, now)
				}
				if !b.closed() && b.reason("it", time.Second) == "" {
					t.Fatal("it is open for no reason")
				}
			},
		})
	})
}

func TestHostBreakerTakesMoreThanOneDevice(t *testing.T) {
	for words, want := range map[string]bool{
		"a1!x b2!x a3!x":           false,
		"a1!x b2!y a3!x":           true,
		"a1!x b2!x a3!x a4!y":      true,
		"a1!x a2!y a3!x":           false,
		"a1!x b2!y c3x a4!x":       false,
		"a1!x b2!x c3x a4!y b5!y":  false,
		"a1!x b2!x a3!x b4!x a5!x": false,
	} {
		h, now, opened := &hostBreaker{}, time.Unix(1000, 0), false
		for word := range strings.FieldsSeq(words) {
			said := ranWell
			if strings.Contains(word, "!") {
				said = failedFast
			}
			opened = h.end(attemptKey{job.ID(word[:2]), 1}, word[:1], []string{word[len(word)-1:]}, said, now) || opened
		}
		if opened != want || h.closed() == want {
			t.Errorf("%s: opened %t, want %t", words, opened, want)
		}
	}
}

func TestBreakersOfAManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{BreakerFast: 30 * time.Second}, "a", "b")
		run := func(id job.ID, uuid, kind string, class job.Class) {
			t.Helper()
			b.grant(id, 1, uuid)
			b.Release(id, 1)
			b.report()
			b.Ended(Ending{JobID: id, Attempt: 1, Devices: []string{uuid}, Kind: kind, Class: class, Lasted: time.Second})
			b.Release(id, 1)
		}
		run("j0", "b", "other", "")
		run("j1", "a", "x", job.ClassUser)
		run("j2", "a", "y", job.ClassUser)
		run("j3", "a", "x", job.ClassUser)
		b.want("a", Sick, "j1, j2, j3", "gpuqctl resume gpu7/0")
		b.want("b", Free)
		if got := b.Tally(); got.DeviceBreakers != 1 || got.HostBreakers != 0 {
			t.Errorf("counted %+v", got)
		}
		open := func(devices int, host bool) {
			t.Helper()
			if n, all := b.OpenBreakers(); n != devices || all != host {
				t.Errorf("%d breakers of devices are open, the host's %t; want %d, %t", n, all, devices, host)
			}
		}
		open(1, false)
		time.Sleep(breakerFirst)
		b.want("a", Free)
		b.grant("probe", 1, "a")
		b.Release("probe", 1)
		b.report()
		b.want("a", Checking, "probe")
		b.Ended(Ending{JobID: "probe", Attempt: 1, Devices: []string{"a"}, Kind: "x", Class: job.ClassKilled, Lasted: time.Second})
		b.want("a", Free)
		run("j4", "a", "x", job.ClassUser)
		b.want("a", Sick, "j2, j3, j4")
		run("j5", "b", "z", job.ClassUser) // the host's: failures on a second device
		b.want("b", Sick, "the devices of this host", "gpuqctl resume gpu7 ends it")
		open(1, true)
		if !b.Resume("", "ada") {
			t.Error("nothing was resumed")
		}
		b.want("a", Free)
		b.want("b", Free)
	})
}
