package agent

import (
	"context"
	"strings"
	"testing"
	"time"
)

func TestProgress(t *testing.T) {
	const turn = 10 * time.Second
	turns := func(p *progress, n int) (late []stuck) {
		for range n {
			late = p.turn(turn)
		}
		return late
	}
	t.Run("SilenceCountsInTurns", func(t *testing.T) {
		var p progress
		ctx, end := p.follow(t.Context(), "take", 25*time.Second)
		if late := turns(&p, 3); len(late) > 0 { // 20 s at least: the first turn may come at once
			t.Errorf("late after 3 turns: %+v", late)
		}
		late := turns(&p, 1)
		if len(late) != 1 || late[0].name != "take" || late[0].silence != 30*time.Second {
			t.Errorf("after 4 turns: %+v", late)
		}
		beat(ctx)
		if late := turns(&p, 3); len(late) > 0 {
			t.Errorf("late after a sign and 3 turns: %+v", late)
		}
		turns(&p, 10)
		end()
		if late := turns(&p, 1); len(late) > 0 {
			t.Errorf("late after its end: %+v", late)
		}
	})
	t.Run("RestIsNoSilence", func(t *testing.T) {
		var p progress
		ctx, _ := p.follow(t.Context(), "lease", 0)
		wake := rest(ctx)
		inner := rest(ctx)
		inner()
		if late := turns(&p, 100); len(late) > 0 {
			t.Errorf("late at rest: %+v", late)
		}
		wake()
		if late := turns(&p, 2); len(late) != 1 {
			t.Errorf("awake and silent: %+v", late)
		}
	})
	t.Run("JobsDoNotSpeakForTheirLoop", func(t *testing.T) {
		var p progress
		ctx, _ := p.follow(t.Context(), "take", 0)
		own := apart(ctx)
		turns(&p, 5)
		beat(own)
		rest(own)
		if late := turns(&p, 1); len(late) != 1 {
			t.Errorf("a job's sign passed for its loop's: %+v", late)
		}
		beat(context.Background()) // nobody's
	})
	t.Run("LongestSilentComesFirst", func(t *testing.T) {
		var p progress
		p.follow(t.Context(), "watch", 0)
		turns(&p, 5)
		p.follow(t.Context(), "take", 0)
		if late := turns(&p, 2); len(late) != 2 || late[0].name != "watch" {
			t.Errorf("got %+v", late)
		}
	})
	t.Run("WedgedAtTheNextSign", func(t *testing.T) {
		blocked := 0
		p := progress{block: func() { blocked++ }}
		ctx, _ := p.follow(t.Context(), "take", 0)
		if p.wedge("other") || !p.wedge("take") || blocked > 0 {
			t.Error("wedge does not find what there is")
		}
		if beat(ctx); blocked != 1 {
			t.Errorf("blocked %d times", blocked)
		}
	})
}

// The stack of what is stuck comes first, and the whole is bounded.
func TestStackOfTheStuckLoopComesFirst(t *testing.T) {
	stop := make(chan struct{})
	go otherLoop(stop)
	go stuckLoop(stop)
	defer close(stop)
	both := func() bool {
		text := stacks("stuckLoop", 1<<20)
		return strings.Contains(text, "stuckLoop(") && strings.Contains(text, "otherLoop(")
	}
	for !both() {
		time.Sleep(time.Millisecond) // until they have begun
	}
	const most = 1 << 10
	text := stacks("stuckLoop", most)
	if first, _, _ := strings.Cut(text, "\n\n"); !strings.Contains(first, "stuckLoop(") || len(text) > most+3 {
		t.Errorf("%d bytes, first:\n%s", len(text), first)
	}
	for _, name := range []string{loopStart, loopLease, loopWatch, loopTake, loopDrain, loopAlarms, loopSweep, loopProbe, loopIntake, loopDeadLetters} {
		if loopCode[name] == "" {
			t.Errorf("the stack of loop %s is not known", name)
		}
	}
}

func stuckLoop(stop chan struct{}) { <-stop }

func otherLoop(stop chan struct{}) { <-stop }
