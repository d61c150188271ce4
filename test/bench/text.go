package bench

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
)

// line is one measured figure, for people.
type line struct{ what, figure, detail string }

// lines are the figures of a result, in the order of the page.
func (r *Result) lines() []line {
	o := r.Options
	list := []line{
		{"submit, `gpuqctl submit -f`", perSecond(r.Submit.P50) + " confirmed", fmt.Sprintf("median of %d files of %d jobs; %s to %s",
			r.Submit.Samples, o.Jobs, number(r.Submit.Min), number(r.Submit.Max))},
		{"submission to first instruction, idle", percentiles(r.Latency), fmt.Sprintf("%d jobs one after the other, through gpuqd's socket", r.Latency.Samples)},
		{"the same with gpuqctl's own start", percentiles(r.WithGpuqctl), fmt.Sprintf("%d jobs", r.WithGpuqctl.Samples)},
		{"of these, the payload's own start", percentiles(r.Payload), fmt.Sprintf("%d times, without a queue", r.Payload.Samples)},
		{"`/bin/true`, all queued before", perSecond(r.Rate.P50), fmt.Sprintf("median of %d batches of %d jobs on %d devices; %s to %s",
			r.Rate.Samples, o.Jobs, o.Devices, number(r.Rate.Min), number(r.Rate.Max))},
		{fmt.Sprintf("device time used by jobs of %g s", o.Work.Seconds()), fmt.Sprintf("%.1f %%", r.Share*100), fmt.Sprintf("%d jobs on %d devices, by their own clocks", o.Busy, o.Devices)},
		{"gap between two of them on a device", percentiles(r.Gap), fmt.Sprintf("end of one to the first instruction of the next; %d gaps", r.Gap.Samples)},
	}
	for _, w := range r.Waiting {
		list = append(list, line{
			fmt.Sprintf("`/bin/true` while %s jobs wait", thousands(w.Waiting)), perSecond(w.Rate),
			fmt.Sprintf("%d jobs; processor time of each: gpuqd %.1f ms, shim and command %.1f, RabbitMQ %.1f", w.Jobs, w.CPU.Own, w.CPU.Children, w.CPU.Broker),
		})
	}
	for _, p := range []struct {
		name string
		Idle
	}{{"gpuqd, idle", r.Daemon}, {"gpuqd-shim, its job asleep", r.Shim}} {
		list = append(list, line{
			p.name, fmt.Sprintf("%s MiB resident, %s %% of a core", number(p.Memory.Resident), digits(p.CPU, 3)),
			fmt.Sprintf("over %.0f s; %s MiB counting shared pages by their users", p.Seconds, number(p.Memory.Proportional)),
		})
	}
	return append(list, r.floorLines()...)
}

func (r *Result) floorLines() []line {
	_, rates, rateShares := r.sides(rateOf)
	_, latencies, latencyShares := r.sides(latencyOf)
	between := func(s Spread) string { return fmt.Sprintf("%.0f %% to %.0f %%", s.Min*100, s.Max*100) }
	return []line{
		{"the floor, `/bin/true`", perSecond(rates.P50), fmt.Sprintf("median of %d batches; %s to %s", rates.Samples, number(rates.Min), number(rates.Max))},
		{"gpuqd's share of it", fmt.Sprintf("%.0f %%", rateShares.P50*100), fmt.Sprintf("median of %d rounds; %s; goal: at least 60 %%", rateShares.Samples, between(rateShares))},
		{"the floor, submission to first instruction", percentiles(r.FloorLatency), fmt.Sprintf("%d jobs; medians of rounds %s to %s ms",
			r.FloorLatency.Samples, number(latencies.Min), number(latencies.Max))},
		{"gpuqd's multiple of it", fmt.Sprintf("%.2f ×", latencyShares.P50), fmt.Sprintf("median of %d rounds' medians; %.2f to %.2f; goal: at most 2", latencyShares.Samples, latencyShares.Min, latencyShares.Max)},
	}
}

// Print writes the result as one table.
func (r *Result) Print(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	m := r.Machine
	fmt.Fprintf(w, "%s, %d cores, %.0f GiB, Linux %s, %s; load before %.2f; commit %s\n\n", m.CPU, m.Cores, m.Memory, m.Kernel, m.FileSystem, m.Load[0], m.Commit)
	for _, l := range r.lines() {
		fmt.Fprintf(w, "%s\t%s\t%s\n", l.what, l.figure, l.detail)
	}
	fmt.Fprintln(w)
	for _, table := range []table{r.operations(), r.processor()} {
		for _, row := range table {
			for _, cell := range row {
				fmt.Fprintf(w, "%s\t", cell)
			}
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

func perSecond(rate float64) string { return number(rate) + " jobs/s" }

func percentiles(s Spread) string {
	return fmt.Sprintf("p50 %s ms, p99 %s ms", number(s.P50), number(s.P99))
}

// number writes a figure with three digits that count.
func number(f float64) string { return digits(f, 3) }

func digits(f float64, n int) string {
	switch {
	case f == 0:
		return "0"
	case f >= 100 || f <= -100:
		return thousands(int(f + 0.5))
	case f >= 10 || f <= -10:
		return strconv.FormatFloat(f, 'f', max(n-2, 0), 64)
	case f >= 1 || f <= -1:
		return strconv.FormatFloat(f, 'f', max(n-1, 0), 64)
	}
	return strconv.FormatFloat(f, 'f', n, 64)
}

// thousands groups the digits of a count: 1,000,000.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
