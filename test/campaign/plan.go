package campaign

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Fault is one planned fault.
type Fault struct {
	Number int // from 1, in the order of At
	Class  Class
	At     time.Duration // since the first could come
	Lasts  time.Duration // 0: it is over at once
	// Pick chooses among the targets that there are when it comes.
	Pick int
}

// String is one line for a person.
func (f Fault) String() string {
	return fmt.Sprintf("%3d %7.1f s  %-17s %4.1f s", f.Number, f.At.Seconds(), f.Class, f.Lasts.Seconds())
}

// PlanOptions say how faults are drawn.
type PlanOptions struct {
	Faults  int
	Gap     time.Duration // between two faults on average; they may overlap
	Classes []Class       // empty: all
	// Brief gives each fault that lasts the shortest length of its class.
	Brief bool
}

// streams of random numbers: one plan does not change with another's length.
const (
	streamFaults = iota + 1
	streamWork
	streamClients
)

func source(seed uint64, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }

// Plan returns the faults of a seed. Every class comes as often as every other,
// within one, in random order.
func Plan(seed uint64, o PlanOptions) []Fault {
	r := source(seed, streamFaults)
	classes := o.Classes
	if len(classes) == 0 {
		classes = Classes()
	}
	var plan []Fault
	var at time.Duration
	for len(plan) < o.Faults {
		for _, i := range r.Perm(len(classes)) {
			if len(plan) == o.Faults {
				break
			}
			k := kindOf(classes[i])
			at += o.Gap/4 + between(r, 0, o.Gap*3/2)
			f := Fault{Number: len(plan) + 1, Class: k.class, At: at, Lasts: between(r, k.lastsMin, k.lastsMax), Pick: r.IntN(1 << 30)}
			if o.Brief {
				f.Lasts = k.lastsMin
			}
			plan = append(plan, f)
		}
	}
	return plan
}

// between draws from least to most.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	if most <= least {
		return least
	}
	return least + time.Duration(r.Int64N(int64(most-least))).Truncate(100*time.Millisecond)
}

// Span returns when the last fault of a plan begins.
func Span(plan []Fault) time.Duration {
	if len(plan) == 0 {
		return 0
	}
	return plan[len(plan)-1].At
}
