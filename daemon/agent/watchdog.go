package agent

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

const (
	// machineMargin is added to every allowance: for a machine that has little time
	// for this process, and for a disk that takes long to sync.
	machineMargin = 30 * time.Second
	// brokerDeclare bounds a declaration or a depth at the broker.
	brokerDeclare = 15 * time.Second
	// ledgerCalls is how many calls, each bounded by ledger.timeout, one transition
	// may take: the write, the read that settles an unknown outcome, and their like.
	ledgerCalls = 4
	// openCalls is how many it takes to open a ledger and prove its compare-and-set.
	openCalls = 40
	// notifyTurn is how often the feeder looks where the service manager has set no
	// watchdog: start-up still has to be heard of.
	notifyTurn = 10 * time.Second
	// stackBytesMax bounds the stacks that are logged of a stuck loop.
	stackBytesMax = 32 << 10
)

// follow watches one loop under its allowance: the longest of what it may wait for
// between two of its signs, and a margin. Each of these waits has a bound of its
// own, from the settings.
func (a *Agent) follow(ctx context.Context, name string) (context.Context, func()) {
	ask := ledgerCalls * a.cfg.Ledger.Timeout.Std()
	publish := 2*a.cfg.Broker.ConfirmTimeout.Std() + brokerDeclare // again, once the queue is declared
	take := 2*a.cfg.Broker.TakeTimeout.Std() + brokerDeclare       // wait for one's turn, then for the answer
	renew, slack := a.cfg.Lease.Renew.Std(), a.cfg.Take.Slack.Std()
	longest := map[string]time.Duration{
		loopStart:       openCalls * a.cfg.Ledger.Timeout.Std(),
		loopLease:       max(renew, ask),
		loopWatch:       max(renew, ask+publish),
		loopTake:        max(a.cfg.Take.Tick.Std(), ask, take),
		loopAlarms:      ask,
		loopDrain:       max(renew, drainLookMax, ask),
		loopSweep:       max(slack, tidyInterval, ask+publish, take),
		loopProbe:       max(probeInterval, ask),
		loopIntake:      ask + 2*publish,
		loopDeadLetters: ask + publish,
	}[name]
	return a.progress.follow(ctx, name, longest+machineMargin)
}

// feed tells the service manager that this daemon lives, as long as all its loops
// make progress: WATCHDOG=1 once it is ready, and before that a longer time for the
// start, which waits for the ledger as long as it takes. It has no other ground to
// do so: where a loop is stuck it stops, and the service manager strikes.
//
// Source: sd_notify(3), WATCHDOG=1 and EXTEND_TIMEOUT_USEC=.
func (a *Agent) feed(ctx context.Context) error {
	turn := notifyTurn
	if a.watchdog > 0 {
		turn = a.watchdog / 4
	}
	ticks := time.NewTicker(turn)
	defer ticks.Stop()
	reported := false
	for {
		late := a.progress.turn(turn)
		a.metrics.loopsStuck.Set(float64(len(late)))
		switch {
		case len(late) == 0 && reported:
			a.log.Warn("loop makes progress again")
			reported = false
			fallthrough
		case len(late) == 0:
			a.sayAlive(turn)
		case !reported:
			a.reportStuck(late)
			reported = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
	}
}

func (a *Agent) sayAlive(turn time.Duration) {
	if !a.ready.Load() {
		// The start may take so much longer, counted from now.
		a.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (4*turn + machineMargin).Microseconds()))
	} else if a.watchdog > 0 {
		a.notify("WATCHDOG=1")
	}
}

// reportStuck says what the service manager will end this daemon for.
func (a *Agent) reportStuck(late []stuck) {
	for _, one := range late {
		a.log.Error("loop makes no progress; the service manager is not told that this daemon lives until it does, and restarts it",
			"step", one.name, "duration_seconds", one.silence.Seconds(), "reason",
			fmt.Sprintf("no sign of it since %s, more than %s before the next is not right", a.clock.Now().Add(-one.silence).UTC().Format(time.RFC3339), one.allowance))
	}
	a.log.Error("goroutines of the stuck daemon", "stack", stacks(loopCode[late[0].name], stackBytesMax))
}

// loopCode names the function of each loop, as stacks show it.
var loopCode = map[string]string{
	loopStart: "enter", loopLease: "renewLoop", loopWatch: "watchLoop", loopTake: "takeLoop", loopDrain: "drainLoop",
	loopAlarms: "alarmLoop",
	loopSweep:  "sweepLoop", loopProbe: "probeLoop", loopIntake: "takeIn", loopDeadLetters: "drainDead",
}

// stacks returns the stacks of all goroutines, at most so many bytes: first those in
// a function of that name, then those of loops, then the rest of this package's. A
// lock that the loop waits for is held by one of them.
func stacks(function string, most int) string {
	buf := make([]byte, 4<<20)
	all := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	rank := func(stack string) int {
		switch {
		case strings.Contains(stack, "agent.(*Agent).feed("):
			return 4 // this one
		case strings.Contains(stack, "."+function+"("), strings.Contains(stack, "."+function+"."):
			return 0
		case strings.Contains(stack, "Loop("):
			return 1
		case strings.Contains(stack, "/agent."):
			return 2
		}
		return 3
	}
	slices.SortStableFunc(all, func(a, b string) int { return rank(a) - rank(b) })
	text := strings.Join(all, "\n\n")
	if len(text) > most {
		text = text[:most] + "..."
	}
	return text
}
