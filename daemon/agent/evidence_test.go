package agent

import (
	"testing"
	"time"

	"gpuqd/daemon/job"
)

// look is one get of a queue: what it brought, and when.
type look struct {
	at       time.Duration // after the test's zero hour
	enqueued time.Duration // of the message taken; noMessage where the get was empty
}

const noMessage = time.Duration(-1)

var zeroHour = time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)

func empty(at time.Duration) look           { return look{at, noMessage} }
func taken(at, enqueued time.Duration) look { return look{at, enqueued} }

func (l look) tell(e *evidence, queue string) {
	if now := zeroHour.Add(l.at); l.enqueued == noMessage {
		e.empty(queue, now)
	} else {
		e.taken(queue, job.At(zeroHour.Add(l.enqueued)), now)
	}
}

// TestLost: a message is lost when a much later one has been taken, or two empty
// gets, well apart, came after it. In the table the job entered the queue at 10 s
// and slack is 5 s.
func TestLost(t *testing.T) {
	const slack, entered = 5 * time.Second, 10 * time.Second
	const tick = time.Millisecond
	for _, c := range []struct {
		name  string
		looks []look
		want  bool
	}{
		{"NobodyHasLooked", nil, false},

		{"OlderMessageTaken", []look{taken(60*time.Second, 9*time.Second)}, false},
		{"ItsOwnMessageTaken", []look{taken(60*time.Second, entered)}, false},
		{"LaterMessageWithinSlackTaken", []look{taken(60*time.Second, entered+slack)}, false},
		{"MuchLaterMessageTaken", []look{taken(60*time.Second, entered+slack+tick)}, true},
		{"MuchLaterMessageTakenBeforeAnOlderOne", []look{
			taken(60*time.Second, entered+slack+tick), taken(61*time.Second, 0),
		}, true},

		{"OneEmptyGet", []look{empty(60 * time.Second)}, false},
		{"TwoEmptyGetsAtOnce", []look{empty(60 * time.Second), empty(60 * time.Second)}, false},
		{"TwoEmptyGetsTooClose", []look{empty(20 * time.Second), empty(25*time.Second - tick)}, false},
		{"TwoEmptyGetsASlackApart", []look{empty(20 * time.Second), empty(25 * time.Second)}, true},
		{"ManyCloseEmptyGetsOverASlack", []look{
			empty(20 * time.Second), empty(22 * time.Second), empty(24 * time.Second), empty(26 * time.Second),
		}, true},
		{"BothEmptyGetsBeforeIt", []look{empty(0), empty(9 * time.Second)}, false},
		{"EmptyGetBeforeItAndOneAfter", []look{empty(9 * time.Second), empty(60 * time.Second)}, false},
		{"EmptyGetAtItsEntryAndOneAfter", []look{empty(entered), empty(60 * time.Second)}, false},
		{"MessageTakenBetweenEmptyGets", []look{
			empty(20 * time.Second), taken(24*time.Second, 9*time.Second), empty(28 * time.Second),
		}, false},
		{"MessageTakenAfterEmptyGets", []look{
			empty(20 * time.Second), empty(30 * time.Second), taken(31*time.Second, 9*time.Second),
		}, false},
		{"TwoEmptyGetsAfterAMessage", []look{
			empty(20 * time.Second), taken(24*time.Second, 9*time.Second), empty(28 * time.Second), empty(33 * time.Second),
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEvidence(slack)
			for _, l := range c.looks {
				l.tell(e, "q")
			}
			if got := e.lost("q", job.At(zeroHour.Add(entered))); got != c.want {
				t.Errorf("lost is %v, want %v", got, c.want)
			}
		})
	}
}

func TestEvidenceIsOfOneQueue(t *testing.T) {
	e := newEvidence(time.Second)
	taken(60*time.Second, 50*time.Second).tell(e, "a")
	empty(60*time.Second).tell(e, "b")
	empty(70*time.Second).tell(e, "b")
	entered := job.At(zeroHour.Add(10 * time.Second))
	for queue, want := range map[string]bool{"a": true, "b": true, "c": false} {
		if got := e.lost(queue, entered); got != want {
			t.Errorf("%s: lost is %v, want %v", queue, got, want)
		}
	}
}

// TestStale: a queue is looked into again a slack after the last get, whatever
// that brought.
func TestStale(t *testing.T) {
	const slack = 5 * time.Second
	e := newEvidence(slack)
	if !e.stale("q", zeroHour) {
		t.Error("a queue that nobody looked into is not stale")
	}
	for _, l := range []look{empty(10 * time.Second), taken(20*time.Second, 0), empty(30 * time.Second)} {
		l.tell(e, "q")
		at := zeroHour.Add(l.at)
		if e.stale("q", at) || e.stale("q", at.Add(slack-1)) {
			t.Errorf("stale within a slack of %+v", l)
		}
		if !e.stale("q", at.Add(slack)) {
			t.Errorf("not stale a slack after %+v", l)
		}
	}
	if !e.stale("other", zeroHour.Add(30*time.Second)) {
		t.Error("a look into one queue counts for another")
	}
}

// TestSecondLossInAQuietQueueIsSeen defends promise 1: a queue that has been
// empty for long tells no less of a message that was lost today.
func TestSecondLossInAQuietQueueIsSeen(t *testing.T) {
	const slack = 5 * time.Second
	e := newEvidence(slack)
	for at := time.Duration(0); at <= 10*time.Minute; at += slack {
		empty(at).tell(e, "q")
	}
	entered := job.At(zeroHour.Add(5*time.Minute + time.Second))
	if !e.lost("q", entered) {
		t.Error("ten minutes of empty gets, five of them after it entered: not lost")
	}
}
