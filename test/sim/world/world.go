// Package world is the ground on which a simulated site stands: its time, its
// chance, its hosts and processes, and the wires between them and the parts they
// use. The parts themselves (broker, ledger, cache, disk) are packages beside it.
//
// It runs inside a testing/synctest bubble, whose fake clock is the only
// scheduler: every call of a part takes a time drawn from the seed, to the
// nanosecond, so that no two things happen at one instant, and one seed is one
// history. Draws depend on who asks for what and when, not on the order in which
// goroutines come to ask.
package world

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"time"

	"gpuqd/test/history"
)

// World is one simulated site.
type World struct {
	seed  uint64
	began time.Time

	mu     sync.Mutex // held for one instant at a time: no effect waits
	events []history.Event
	links  map[wire]Link
	held   map[wire][]func()
	rates  map[string]Rates
	steps  map[step]int
	lost   int
	onStep func(Step)
}

// New returns a world at its first instant. Call it in a bubble.
func New(seed uint64) *World {
	return &World{
		seed: seed, began: time.Now(), links: map[wire]Link{}, held: map[wire][]func(){},
		rates: map[string]Rates{}, steps: map[step]int{},
	}
}

// Now returns the true time since the world began. No process can read it.
func (w *World) Now() time.Duration { return time.Since(w.began) }

// Do lets f happen at one instant: nothing else happens meanwhile. f must not
// wait, nor call Do.
func (w *World) Do(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// Record adds an event at this instant. Call it within Do.
func (w *World) Record(e history.Event) {
	e.At = time.Now()
	w.events = append(w.events, e)
}

// Note is Record outside of Do.
func (w *World) Note(e history.Event) { w.Do(func() { w.Record(e) }) }

// Events returns what was recorded. Call it when nothing runs any more.
func (w *World) Events() []history.Event { return w.events }

// Mishaps counts the calls that went wrong by the parts' own rates, so far.
func (w *World) Mishaps() (n int) {
	w.Do(func() { n = w.lost })
	return n
}

// Draw returns a number that depends on the seed, the instant, and the words.
func (w *World) Draw(words ...string) uint64 {
	var b [8]byte
	h := offset ^ w.seed
	binary.LittleEndian.PutUint64(b[:], uint64(w.Now()))
	for _, c := range b {
		h = (h ^ uint64(c)) * prime
	}
	for _, word := range words {
		for i := range len(word) {
			h = (h ^ uint64(word[i])) * prime
		}
		h = (h ^ 0xff) * prime
	}
	return mix(h)
}

// FNV-1a, and the finaliser of splitmix64 over it: FNV alone moves its high bits
// too little.
const (
	offset = 14695981039346656037
	prime  = 1099511628211
)

func mix(z uint64) uint64 {
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

// Chance reports whether what happens with probability p happens.
func (w *World) Chance(p float64, words ...string) bool {
	return p > 0 && float64(w.Draw(words...)>>11)/(1<<53) < p
}

// Between returns a duration of at least low and below high.
func (w *World) Between(low, high time.Duration, words ...string) time.Duration {
	if high <= low {
		return low
	}
	n, _ := bits.Mul64(w.Draw(words...), uint64(high-low))
	return low + time.Duration(n)
}
