package campaign

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Report writes results as this package's part of docs/reliability.md: nothing on that
// page is written by hand.
func Report(results []*Result) []byte {
	p := &page{results: results}
	p.text(intro)
	p.summary()
	p.text(definition)
	p.byClass()
	p.text(handled)
	p.daemons()
	p.problems()
	p.text(judged)
	p.each()
	return []byte(p.b.String())
}

// PageEnd ends this package's part of the page: what follows is test/watch's.
const PageEnd = "\n<!-- End of what gpuq-campaign writes. -->"

// Parts returns this package's part of a page, and what follows it.
func Parts(page []byte) (ours, theirs []byte) {
	if end := bytes.Index(page, []byte(PageEnd)); end >= 0 {
		return page[:end], page[end:]
	}
	return page, nil
}

const intro = `# Reliability

<!-- Written by gpuq-campaign from test/campaign/results: run ` + "`make campaign/report`" + `, do not edit. -->

A campaign runs a real cluster on one machine (three RabbitMQ nodes, Redis, a ledger, three daemons with two simulated
devices each), breaks it at random while jobs go in and run, and then asks what came of the jobs. The faults are drawn
from a seed, each class as often as every other; they come at random times and overlap. The lease is that of
` + "`make up`" + ` (15 s, and 5 s of grace); the broker's ` + "`consumer_timeout`" + ` is one minute, and some jobs run for longer;
everything else is at its default. The stand-in for MongoDB reads every document at every operation, so it gets fewer jobs.
`

const definition = `
## Time to normal work

Right after a fault, a small job is submitted to every host that the fault concerned: one host, or all three where
it hit what they share. For a fault that lasts and leaves nothing to work with (marked *end*), that is at its end. The
time to normal work is from there until that job has succeeded, by the ledger: the *first* host's, and the last's (*all*).
It has in it the client's repetitions, whatever other faults were in force then (faults overlap on purpose), and,
where the message could not be published since the broker was away, the sweeper's patience (` + "`take.slack`" + `, 30 s, twice).
*Claim* is the time to the first claim of any job by one of these hosts, which shows when work went on at all. All in
seconds.
`

const handled = `
## What the daemons had to do

How often the daemons logged what they do when something is broken.
`

const judged = `
## How it is judged

Each job runs a program that is its own witness: it appends its start, a beat every 100 ms and its end to a file of its
own, and syncs start and end. These files, the ledger's documents, the journals on the hosts and the deliveries and acks in
the daemons' logs make one history, which package ` + "`test/history`" + ` holds against the promises of the design: every confirmed job
is over once, no write of an old fence took effect, attempts of one job did not overlap, no device had two jobs, every ack
had its reason, the stored result is the witness's, nothing is left over. Lost, doubled and overlapping are counted a
second time from the files alone. A payload's death is known to 100 ms; an overlap of at most a shim's tick and a beat
(300 ms) would be excused, and told.

Besides, every job has to end as its kind must: most succeed, also those that fail once or twice or ignore SIGTERM; some
have to fail, run into their time limit, or are killed by their owner.

Not shown here: more than one machine, a network that loses packets, disks that lie, real GPUs, real clocks that step. The
simulation of the protocol covers what of this can be simulated.
`

// page is a report that grows.
type page struct {
	b       strings.Builder
	results []*Result
}

func (p *page) text(s string) { p.b.WriteString(s) }

func (p *page) row(cells ...string) {
	p.b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

// head writes the head of a table; all columns but the first are numbers.
func (p *page) head(cells ...string) {
	p.text("\n")
	p.row(cells...)
	rule := slices.Repeat([]string{"---:"}, len(cells))
	rule[0] = "---"
	p.row(rule...)
}

// columns are the numbers by which the page names the campaigns.
func (p *page) columns() []string {
	var list []string
	for i := range p.results {
		list = append(list, fmt.Sprint(i+1))
	}
	return list
}

// summary has a column per campaign.
func (p *page) summary() {
	p.head(append([]string{"Campaign"}, p.columns()...)...)
	for _, line := range []struct {
		name string
		of   func(*Result) string
	}{
		{"ledger", func(r *Result) string { return r.Store }},
		{"seed", func(r *Result) string { return fmt.Sprint(r.Seed) }},
		{"began", func(r *Result) string { return r.Began.Format("2006-01-02 15:04 MST") }},
		{"machine", func(r *Result) string { return r.Machine }},
		{"broker", func(r *Result) string { return r.Broker }},
		{"minutes", func(r *Result) string { return fmt.Sprintf("%.1f", r.Minutes) }},
		{"faults done", func(r *Result) string { return fmt.Sprint(r.Done()) }},
		{"and consumer timeouts", func(r *Result) string { return fmt.Sprint(len(r.Timeouts)) }},
		{"jobs submitted and confirmed", func(r *Result) string { return fmt.Sprintf("%d, %d", r.Jobs.Submitted, r.Jobs.Confirmed) }},
		{"their ends", func(r *Result) string { return counts(r.Jobs.States) }},
		{"probes", func(r *Result) string { return fmt.Sprint(r.Jobs.Probes) }},
		{"**lost**", func(r *Result) string { return fmt.Sprintf("**%d**", r.Lost) }},
		{"**doubled**", func(r *Result) string { return fmt.Sprintf("**%d**", r.Doubled) }},
		{"**overlaps**", func(r *Result) string { return fmt.Sprintf("**%d**", r.Overlaps) }},
		{"other broken promises", func(r *Result) string { return fmt.Sprint(len(r.Problems)) }},
		{"attempts claimed, executions begun", func(r *Result) string { return fmt.Sprintf("%d, %d", r.Jobs.Attempts, r.Jobs.Executions) }},
		{"attempts lost to faults (requeued)", func(r *Result) string { return fmt.Sprint(r.Jobs.Requeued) }},
		{"attempts failed by the jobs themselves", func(r *Result) string { return fmt.Sprint(r.Jobs.Retried) }},
		{"executions frozen by their shims", func(r *Result) string { return fmt.Sprint(r.Jobs.Frozen) }},
		{"late results refused", func(r *Result) string { return fmt.Sprint(r.Jobs.Discarded) }},
		{"clients' requests", func(r *Result) string { return fmt.Sprint(r.Outcomes.Requests) }},
		{"of these, outcome unknown, repeated", func(r *Result) string { return fmt.Sprint(r.Outcomes.Unknown) }},
		{"not answered or not possible, repeated", func(r *Result) string { return fmt.Sprint(r.Outcomes.Unavailable) }},
		{"repeated submissions that had been carried out", func(r *Result) string { return fmt.Sprint(r.Outcomes.Existing) }},
		{"publications with an unknown outcome", func(r *Result) string { return fmt.Sprint(r.Daemons[unknownPublish]) }},
		{"seconds from the last fault's end to the last job's", func(r *Result) string { return fmt.Sprintf("%.0f", r.Drain) }},
	} {
		cells := []string{line.name}
		for _, r := range p.results {
			cells = append(cells, line.of(r))
		}
		p.row(cells...)
	}
	if slices.ContainsFunc(p.results, func(r *Result) bool { return len(r.Ended) > 0 }) {
		p.text("\nDaemons that ended by themselves, and were started again:\n\n")
		for i, r := range p.results {
			for _, ended := range r.Ended {
				p.text(fmt.Sprintf("- campaign %d: %s\n", i+1, oneLine(ended)))
			}
		}
	}
}

// byClass has a row per class and campaign.
func (p *page) byClass() {
	p.head("Class", "campaign", "faults", "first: median", "max", "all: median", "max", "claim: median", "max")
	for _, k := range kinds {
		for i, r := range p.results {
			first, never := r.classTimes(k.class, first)
			all, _ := r.classTimes(k.class, all)
			claim, _ := r.classTimes(k.class, claim)
			if len(first)+never == 0 {
				continue
			}
			name := string(k.class)
			if k.fromEnd {
				name += " (*end*)"
			}
			p.row(name, fmt.Sprint(i+1), fmt.Sprint(len(first)+never), first.median(), first.max(), all.median(), all.max(), claim.median(), claim.max())
		}
	}
	for i, r := range p.results {
		var took times
		for _, t := range r.Timeouts {
			if t >= 0 {
				took = append(took, t)
			}
		}
		slices.Sort(took)
		p.row(string(DeliveryTimeout), fmt.Sprint(i+1), fmt.Sprint(len(r.Timeouts)), "-", "-", "-", "-", took.median(), took.max())
	}
	p.text("\nThe classes:\n\n")
	for _, k := range kinds {
		p.text(fmt.Sprintf("- %s: %s.\n", k.class, k.describe(p.results)))
	}
	p.text(fmt.Sprintf("- %s: the broker closes the channel of a delivery that is open for more than a minute, since its job runs; "+
		"it comes by itself, beside the planned faults. Its claim is the next message that the host took.\n", DeliveryTimeout))
}

// describe says what a class does, with what only a result knows.
func (k kind) describe(results []*Result) string {
	text := k.what
	if k.class == LedgerLost {
		text = "SQLite: a process takes the write lock, writes, holds both and is ended with kill -9, its transaction half done; " +
			"MongoDB: kill -9 of the server, kept down for a while"
	}
	if k.lastsMax > 0 {
		text += fmt.Sprintf(", for %g to %g s", k.lastsMin.Seconds(), k.lastsMax.Seconds())
	}
	if k.class == DiskFull {
		for i, r := range results {
			if !strings.HasPrefix(r.DiskFull, "a tmpfs") {
				text += fmt.Sprintf(" (campaign %d: %s)", i+1, r.DiskFull)
			}
		}
	}
	return text
}

func claim(f FaultResult) float64 { return f.Claim }

func (p *page) daemons() {
	p.head(append([]string{"Message, by campaign"}, p.columns()...)...)
	for _, msg := range append(slices.Clone(told), unknownPublish) {
		cells := []string{msg}
		for _, r := range p.results {
			cells = append(cells, fmt.Sprint(r.Daemons[msg]))
		}
		p.row(cells...)
	}
}

func (p *page) problems() {
	for i, r := range p.results {
		if len(r.Problems) == 0 {
			continue
		}
		p.text(fmt.Sprintf("\n## What broke in campaign %d\n\n", i+1))
		for _, problem := range r.Problems {
			p.text("- " + oneLine(problem) + "\n")
		}
	}
}

// each has a row per fault.
func (p *page) each() {
	for i, r := range p.results {
		p.text(fmt.Sprintf("\n## Each fault of campaign %d (%s, seed %d)\n", i+1, r.Store, r.Seed))
		p.head("Fault", "at, s", "lasted, s", "target", "first, s", "all, s", "claim, s", "other faults meanwhile")
		for _, f := range r.Faults {
			name := fmt.Sprintf("%d %s", f.Number, f.Class)
			if f.Error != "" {
				p.row(name, "-", "-", "not done: "+oneLine(f.Error), "-", "-", "-", "-")
				continue
			}
			p.row(name, fmt.Sprintf("%.1f", f.At), fmt.Sprintf("%.1f", f.Lasted), f.Target,
				orNever(f.First), orNever(f.All), orNever(f.Claim), fmt.Sprint(f.Others))
		}
	}
}

func orNever(t float64) string {
	if t < 0 {
		return "never"
	}
	return fmt.Sprintf("%.1f", t)
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
