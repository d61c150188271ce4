// Package health has the words in which each part of the daemon says how it
// fares. A part knows its own facts and what they are worth; the agent collects
// them for gpuqctl doctor.
package health

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// State is how a check ended.
type State string

// The ends of a check.
const (
	OK      State = "ok"
	Warn    State = "warn"    // works, and will not under some failure or load
	Fail    State = "fail"    // does not work, or breaks a promise
	Unknown State = "unknown" // could not be looked at; Advice says how it can
)

// Check is one thing that was looked at. docs/doctor.md has a section of its
// part and name.
type Check struct {
	Name   string // a few words
	State  State
	Saw    string // what was found, with figures; never a secret
	Advice string // what to do; "" where State is OK
}

// Good is a check that found nothing wrong.
func Good(name, format string, args ...any) Check {
	return Check{Name: name, State: OK, Saw: line(fmt.Sprintf(format, args...))}
}

// Bad is a check that ended otherwise, with what to do about it.
func Bad(name string, state State, advice, format string, args ...any) Check {
	return Check{Name: name, State: state, Saw: line(fmt.Sprintf(format, args...)), Advice: advice}
}

// line joins the lines of a text that has several, such as one error per node.
func line(text string) string { return strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ") }

// Spread returns the median and the largest of some durations, 0 of none.
func Spread(list []time.Duration) (median, most time.Duration) {
	if len(list) == 0 {
		return 0, 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2], sorted[len(sorted)-1]
}

// Figure writes a duration with the digits that a person reads: 0.42 ms, 13 ms,
// 2.5 s; from a minute on as Go does, 30m0s.
func Figure(d time.Duration) string {
	size := d.Abs()
	switch {
	case size >= time.Minute:
		return d.Round(time.Second).String()
	case size >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case size >= 10*time.Millisecond:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2g ms", float64(d)/float64(time.Millisecond))
}

// Names joins a few names and counts the rest.
func Names(names []string) string {
	const most = 8
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
