package campaign

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// times are the times to normal work of some faults.
type times []float64

// classTimes collects the times of a class, in order; never is how often there was no
// normal work any more.
func (r *Result) classTimes(class Class, pick func(FaultResult) float64) (list times, never int) {
	for _, f := range r.Faults {
		switch {
		case f.Class != class || f.Error != "":
		case pick(f) < 0:
			never++
		default:
			list = append(list, pick(f))
		}
	}
	slices.Sort(list)
	return list, never
}

func (t times) median() string { return t.at(len(t) / 2) }
func (t times) max() string    { return t.at(len(t) - 1) }

func (t times) at(i int) string {
	if i < 0 || i >= len(t) {
		return "-"
	}
	return fmt.Sprintf("%.1f", t[i])
}

func first(f FaultResult) float64 { return f.First }
func all(f FaultResult) float64   { return f.All }

// Print writes the result as text.
func (r *Result) Print(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "seed\t%d\nledger\t%s\nmachine\t%s\nminutes\t%.1f\n", r.Seed, r.Store, r.Machine, r.Minutes)
	fmt.Fprintf(w, "faults\t%d done of %d, and %d consumer timeouts\n", r.Done(), len(r.Faults), len(r.Timeouts))
	fmt.Fprintf(w, "jobs\t%d submitted, %d confirmed, and %d probes; at the end %s\n", r.Jobs.Submitted, r.Jobs.Confirmed, r.Jobs.Probes, counts(r.Jobs.States))
	fmt.Fprintf(w, "attempts\t%d claimed, %d executions, %d requeued, %d failed, %d frozen, %d late results refused\n",
		r.Jobs.Attempts, r.Jobs.Executions, r.Jobs.Requeued, r.Jobs.Retried, r.Jobs.Frozen, r.Jobs.Discarded)
	fmt.Fprintf(w, "requests\t%d, of which %d with an unknown outcome, %d not answered or refused for now; %d submissions found themselves confirmed\n",
		r.Outcomes.Requests, r.Outcomes.Unknown, r.Outcomes.Unavailable, r.Outcomes.Existing)
	fmt.Fprintf(w, "lost\t%d\ndoubled\t%d\noverlaps\t%d (longest %.3f s, %d excused)\nproblems\t%d\n", r.Lost, r.Doubled, r.Overlaps, r.Overlap, r.Excused, len(r.Problems))
	fmt.Fprintf(w, "drained\t%.1f s after the last fault\n\n", r.Drain)
	fmt.Fprintln(w, "CLASS\tFAULTS\tNORMAL WORK AFTER, s: MEDIAN\tMAX\tON ALL HOSTS: MEDIAN\tMAX\tNEVER")
	for _, k := range kinds {
		one, never := r.classTimes(k.class, first)
		every, _ := r.classTimes(k.class, all)
		if len(one)+never > 0 {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%d\n", k.class, len(one)+never, one.median(), one.max(), every.median(), every.max(), never)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, p := range r.Problems {
		if _, err := fmt.Fprintf(to, "PROBLEM: %s\n", p); err != nil {
			return err
		}
	}
	return nil
}

// counts writes a map of counts in the order of its keys.
func counts(n map[string]int) string {
	var parts []string
	for key, count := range n {
		parts = append(parts, fmt.Sprintf("%d %s", count, key))
	}
	slices.SortFunc(parts, func(a, b string) int {
		return strings.Compare(a[strings.Index(a, " "):], b[strings.Index(b, " "):])
	})
	return strings.Join(parts, ", ")
}
