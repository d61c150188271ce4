package sim

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
)

var (
	from    = flag.Uint64("sim.from", 0, "first seed of TestSimulate")
	to      = flag.Uint64("sim.to", 0, "seed after the last")
	lasting = flag.Duration("sim.for", 0, "how long TestSimulate goes on with new seeds, where it has no range")
	verbose = flag.Bool("sim.seeds", false, "print each seed before its history")
	plan    = flag.String("sim.plan", "", "file of the plan that TestPlan runs")
)

// One thread, and no collector at work during a history: what happens depends on
// the plan alone.
func TestMain(m *testing.M) {
	flag.Parse()
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	code := m.Run()
	if code != 0 {
		fmt.Fprintln(os.Stderr, "one plan again: go test ./test/sim -run TestPlan -args -sim.plan FILE")
	}
	os.Exit(code)
}

// collect frees what histories have left, between two of them.
func collect(histories uint64) {
	if histories%64 == 0 {
		runtime.GC()
	}
}
