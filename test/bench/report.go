package bench

import (
	"fmt"
	"slices"
	"strings"

	"gpuqd/test/bench/floor"
)

// Report writes a result as the page docs/performance.md: nothing on it is written
// by hand.
func Report(r *Result) []byte {
	p := &page{}
	p.text(intro)
	p.table(r.described())
	p.text(figures)
	p.table(r.summary())
	p.text(procedure)
	p.text(rounds)
	p.table(r.rounds())
	p.text(operations)
	p.table(r.operations())
	p.text(fmt.Sprintf(shims, r.Recipe.ShimSyncs, cgroupText(r.Machine.Cgroups)))
	p.text(processor)
	p.table(r.processor())
	p.text(rest)
	p.text(limits)
	return []byte(p.b.String())
}

const intro = `# Performance

<!-- Written by gpuq-bench from test/bench/results: run ` + "`make bench/report`" + `, do not edit. -->

Measured by ` + "`make bench`" + ` on one machine: RabbitMQ nodes, Redis, one gpuqd with simulated devices, the jobs and the
measuring program share its cores, so that every figure is of all of them together. Settings are the defaults; the
devices are simulated, so that nothing here depends on a GPU.
`

const figures = `
## The figures
`

const procedure = `
How each is measured:

- **Submit**: wall time of one ` + "`gpuqctl submit -f`" + `, its start included, over the jobs that it reports confirmed, while the
  host is drained: nothing runs beside it.
- **Submission to first instruction**: from before the request to the time that the job's command reads from the clock as
  the first thing it does. The command is a small static Go program; what its own exec and start take without any queue
  is the line *payload's own start*. Before each submission the job before is over, and nothing else waits.
- **` + "`/bin/true`" + `**: the jobs are queued while the host is drained; then it is resumed. From the first start to the last
  commit, by the ledger's documents.
- **Device time, gap**: jobs that sleep, and write down themselves when they began and ended. The share is the sum of
  their times by the devices' time from the first start to the last end; the gap is from the end of one to the first
  instruction of the next on the same device.
- **While many wait**: documents are put into the ledger by the thousand, and their messages into the same work queue, as
  submissions would; when the broker has written them out and is idle, the host takes from it until some hundred are
  committed, and is drained again.
- **Idle**: processor time of all threads by the kernel's own count, and memory at the end of it.
`

const rounds = `
## The floor

The floor is a program that does, for each job, the operations that gpuqd does on broker, ledger, Redis and disk, starts the
same number of processes, and does nothing else: no lease, no crash safety beyond the synced records, no timeouts, no
search for what a command left behind, no logs, no metrics. ` + "`test/bench/floor/doc.go`" + ` says step by step what it does
and what it leaves out. It runs on the same servers and the same disk, with as many jobs at a time; gpuqd and the floor
take turns, and the shares are of one round each.
`

const operations = `
### Operations per job

From intake to ack, in a batch of ` + "`/bin/true`" + `. Those of gpuqd are from its own metrics, with what it does in the
background in the same time; the floor counts its own. How often the floor looks, reads and syncs is gpuqd's own number,
rounded.
`

const shims = `
Not in any metric, and the same on both sides: at most %d syncs by the shim (start, exit, and the output, of which
` + "`/bin/true`" + ` has none), two forks and three execs (the shim, its second stage, the command), %s. A write to the
ledger is one transaction of SQLite with synchronous=FULL, and the floor's too; files are synced with fdatasync on both
sides, directories with fsync.
`

const processor = `
### Processor time per job

In milliseconds; medians of the rounds.
`

const rest = `
What is between the two columns, what was done about it and what was not: [decision 0010](decisions/0010-where-a-jobs-time-goes.md).
`

const limits = `
## What this does not tell

One machine, with all servers on it: on hosts of their own broker and ledger do not take turns with the jobs for the same
cores, and the network adds its way. MongoDB is not measured: there is no genuine one where this runs. What a GPU needs to
be handed from one job to the next (contexts, memory) is the driver's and the job's time, and not in the gap.
`

func cgroupText(has bool) string {
	if has {
		return "and a cgroup made and removed"
	}
	return "and no cgroup, since none can be made here"
}

// table is a table's rows, the first of which is its head.
type table [][]string

// page is a report that grows.
type page struct{ b strings.Builder }

func (p *page) text(s string) { p.b.WriteString(s) }

func (p *page) table(rows table) {
	p.text("\n")
	for i, row := range rows {
		p.text("| " + strings.Join(row, " | ") + " |\n")
		if i == 0 {
			p.text("|" + strings.Repeat(" --- |", len(row)) + "\n")
		}
	}
}

func (r *Result) described() table {
	m, o := r.Machine, r.Options
	load := make([]string, len(m.Load))
	for i, l := range m.Load {
		load[i] = fmt.Sprintf("%.2f", l)
	}
	return table{
		{"Measured", "on"},
		{"date", r.Began.Format("2006-01-02 15:04 MST") + fmt.Sprintf(", %.1f minutes", r.Minutes)},
		{"commit", m.Commit},
		{"processor", fmt.Sprintf("%s, %d cores", m.CPU, m.Cores)},
		{"memory", fmt.Sprintf("%.0f GiB", m.Memory)},
		{"kernel", "Linux " + m.Kernel},
		{"file system", m.FileSystem},
		{"load before (1, 5, 15 minutes)", strings.Join(load, ", ")},
		{"broker", fmt.Sprintf("RabbitMQ %s, %d nodes", m.RabbitMQ, o.Nodes)},
		{"done-cache", "Redis " + m.Redis},
		{"ledger", m.Ledger},
		{"toolchain", m.Go},
		{"host", fmt.Sprintf("one gpuqd, %d simulated devices", o.Devices)},
	}
}

func (r *Result) summary() table {
	rows := table{{"What", "Figure", "How"}}
	for _, l := range r.lines() {
		rows = append(rows, []string{l.what, "**" + l.figure + "**", l.detail})
	}
	return rows
}

func (r *Result) rounds() table {
	rows := table{{"Round", "gpuqd, jobs/s", "floor, jobs/s", "share", "gpuqd, p50 ms", "floor, p50 ms", "multiple"}}
	for i, round := range r.Rounds {
		a, b := round.Gpuqd, round.Floor
		rows = append(rows, []string{
			fmt.Sprint(i + 1), number(a.Rate), number(b.Rate), fmt.Sprintf("%.0f %%", 100*ratio(a.Rate, b.Rate)),
			number(a.Latency.P50), number(b.Latency.P50), fmt.Sprintf("%.2f", ratio(a.Latency.P50, b.Latency.P50)),
		})
	}
	rate, floorRate, rateShare := r.sides(rateOf)
	latency, floorLatency, latencyShare := r.sides(latencyOf)
	return append(rows, []string{
		"median", number(rate.P50), number(floorRate.P50), fmt.Sprintf("**%.0f %%**", 100*rateShare.P50),
		number(latency.P50), number(floorLatency.P50), fmt.Sprintf("**%.2f**", latencyShare.P50),
	})
}

// names of operations on the page.
var names = []struct{ operation, name string }{
	{floor.LedgerInsert, "ledger: insert"},
	{floor.LedgerUpdate, "ledger: compare-and-set"},
	{floor.LedgerGet, "ledger: read of one document"},
	{floor.LedgerFind, "ledger: query"},
	{floor.Publish, "broker: publish, confirmed"},
	{floor.Bell, "broker: bell"},
	{floor.Depth, "broker: look at a depth"},
	{floor.Get, "broker: get"},
	{floor.Ack, "broker: ack"},
	{floor.CacheGet, "Redis: get"},
	{floor.CacheSet, "Redis: set"},
	{floor.JournalSync, "journal: sync, by gpuqd"},
	{floor.Start, "start of a shim"},
}

func (r *Result) operations() table {
	rows := table{{"Operation", "gpuqd per job", "floor per job"}}
	for _, n := range names {
		a, b, _ := r.sides(func(s Side) float64 { return s.PerJob[n.operation] })
		rows = append(rows, []string{n.name, fmt.Sprintf("%.2f", a.P50), fmt.Sprintf("%.2f", b.P50)})
	}
	return rows
}

func (r *Result) processor() table {
	rows := table{{"Processor time", "gpuqd", "floor"}}
	total := func(s Side) float64 { return s.CPU.Intake + s.CPU.Own + s.CPU.Children + s.CPU.Broker + s.CPU.Redis }
	for _, n := range []struct {
		name string
		of   func(Side) float64
	}{
		{"gpuqd, or the floor: intake", func(s Side) float64 { return s.CPU.Intake }},
		{"the same: take to ack", func(s Side) float64 { return s.CPU.Own }},
		{"shims and commands", func(s Side) float64 { return s.CPU.Children }},
		{"RabbitMQ, all nodes", func(s Side) float64 { return s.CPU.Broker }},
		{"Redis", func(s Side) float64 { return s.CPU.Redis }},
		{"together", total},
	} {
		a, b, _ := r.sides(n.of)
		rows = append(rows, []string{n.name, fmt.Sprintf("%.2f", a.P50), fmt.Sprintf("%.2f", b.P50)})
	}
	return slices.Clip(rows)
}
