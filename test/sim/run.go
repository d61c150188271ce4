package sim

import (
	"encoding/binary"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gpuqd/test/history"
	"gpuqd/test/sim/world"

	"github.com/google/uuid"
)

// Outcome is what came of a plan.
type Outcome struct {
	Plan       Plan
	Events     []history.Event
	Violations []history.Violation // broken promises
	Excused    []history.Violation // overlaps that the design does not promise away
}

// Run runs a plan in a bubble of its own and judges it. The log, nil for none,
// gets what the agents log. One history runs at a time in a process.
func Run(t *testing.T, p Plan, log slog.Handler) Outcome { return run(t, p, log, nil) }

// run is Run; watch, nil for none, is told of every step.
func run(t *testing.T, p Plan, log slog.Handler, watch func(world.Step)) Outcome {
	out := Outcome{Plan: p}
	synctest.Test(t, func(*testing.T) {
		s := newSite(p, log)
		s.watch = watch
		uuid.SetRand(&ids{world: s.world})
		defer uuid.SetRand(nil)
		s.run()
		for _, v := range s.judge() {
			if v.Excused {
				out.Excused = append(out.Excused, v)
			} else {
				out.Violations = append(out.Violations, v)
			}
		}
		out.Events = s.world.Events()
		s.close()
	})
	return out
}

// Broken reports whether the outcome breaks an invariant.
func (o Outcome) Broken(i history.Invariant) bool {
	for _, v := range o.Violations {
		if v.Invariant == i {
			return true
		}
	}
	return false
}

// ids is the source of random IDs: they depend on the instant alone, and on how
// many came before at the same one.
type ids struct {
	world *world.World

	mu sync.Mutex
	at time.Duration
	n  int
}

// Read implements io.Reader.
func (r *ids) Read(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.world.Now(); now != r.at {
		r.at, r.n = now, 0
	}
	for i := 0; i < len(b); i += 8 {
		r.n++
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], r.world.Draw("id", strconv.Itoa(r.n)))
		copy(b[i:], word[:])
	}
	return len(b), nil
}
