package history

import (
	"maps"
	"testing"
	"time"

	"gpuqd/daemon/job"
)

// outage is a history in which a host is lost under one job, and another job
// runs elsewhere meanwhile.
func outage() *tale {
	return begin().submitted("j").runs("a", "j", "g0").breaks("crash_host", "a").dies("a", "j").loses("a", "j").
		submitted("k").runs("b", "k", "g1").succeeds("b", "k").
		isTakenOver("j", "a").publishes("b", "j").runs("b", "j", "g0").succeeds("b", "j").heals().breaks("flush_cache", "")
}

func TestFaultsAreCountedByClass(t *testing.T) {
	events := outage().breaks("crash_host", "b").events
	if got, want := Faults(events), map[string]int{"crash_host": 2, "flush_cache": 1}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestExecutionsAreCountedByJob(t *testing.T) {
	if got, want := Executions(outage().events), map[job.ID]int{"j": 2, "k": 1}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestRecoveryTimes: work goes on elsewhere at once, on the lost host never, and
// for the lost job when it has run again.
func TestRecoveryTimes(t *testing.T) {
	for _, c := range []struct {
		name            string
		tell            func() *tale
		site, host, all time.Duration
	}{
		{"HostIsLost", outage, 10 * time.Second, -1, 19 * time.Second},
		{"FaultWithoutAHost", func() *tale {
			return begin().submitted("j").breaks("leaderless", "").runs("a", "j").succeeds("a", "j")
		}, 6 * time.Second, 6 * time.Second, 6 * time.Second},
		{"FrozenAndThawed", func() *tale {
			return begin().submitted("j").runs("a", "j").breaks("cut_wire", "a").freezes("a", "j").thaws("a", "j").succeeds("a", "j")
		}, 4 * time.Second, 4 * time.Second, 4 * time.Second},
		{"WhatEndedBeforeDoesNotCount", func() *tale {
			return begin().submitted("j").runs("a", "j").succeeds("a", "j").breaks("crash_host", "a")
		}, -1, -1, 0},
		{"WhatBeganBeforeIsNoSignOfLife", func() *tale {
			return begin().submitted("j").runs("a", "j").breaks("drop_broker", "a").succeeds("a", "j")
		}, -1, -1, 2 * time.Second},
		{"NeverAgain", func() *tale {
			return begin().submitted("j").breaks("crash_host", "a")
		}, -1, -1, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := RecoveryTimes(c.tell().events)
			if len(got) == 0 {
				t.Fatal("no fault was seen")
			}
			if r := got[0]; r.Site != c.site || r.Host != c.host || r.All != c.all {
				t.Errorf("site %s, host %s, all %s; want %s, %s, %s", r.Site, r.Host, r.All, c.site, c.host, c.all)
			}
		})
	}
}

func TestStoryTellsOneJob(t *testing.T) {
	s := outage().wait(time.Minute).submitted("late")
	const want = `job j
     0.000s  is queued
     1.000s  its submission is confirmed
     2.000s  a takes message 1/1
     3.000s  is claimed (a), attempt 1, fence 1 [j1]
     4.000s  attempt 1 begins on a with g0
     5.000s  is running (a), attempt 1, fence 1 [start-j1]
     6.000s  *** fault: crash_host on a
     7.000s  attempt 1 on a dies, code 137
     8.000s  message 1/1 of a is back in its queue
    18.000s  is queued (a), attempt 1, fence 1, class host_lost [takeover-1]
    19.000s  b published a message
    20.000s  b takes message 1/2
    21.000s  is claimed (b), attempt 2, fence 2 [j2]
    22.000s  attempt 2 begins on b with g0
    23.000s  is running (b), attempt 2, fence 2 [start-j2]
    24.000s  attempt 2 on b comes to its end, code 0
    25.000s  is succeeded (b), attempt 2, fence 2 [commit-j2]
    26.000s  b acks message 1/2
`
	if got := Story(s.events, "j"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := Story(s.events, "nobody"); got != "job nobody\n" {
		t.Errorf("of a job that is not there: %q", got)
	}
}

// TestEveryKindIsTold: no event is left to its bare fields.
func TestEveryKindIsTold(t *testing.T) {
	kinds := []Kind{
		Submitted, Changed, Republished, Published, Taken, Acked, Returned, SetAside, Began, Halted, Went, Finished,
		Fault, Healed, Paused, Resumed,
	}
	told := map[string]Kind{}
	for _, k := range kinds {
		e := Event{Kind: k, Job: "j", Host: "a", State: job.Queued, Class: "x", Reason: "y"}
		text := tell(&e)
		if text == e.String() || text == "" {
			t.Errorf("%s is not told", k)
		}
		if other, is := told[text]; is {
			t.Errorf("%s and %s are told alike: %s", k, other, text)
		}
		told[text] = k
	}
}
