// Package campaign breaks a real cluster on purpose and judges what comes of its
// jobs: three daemons, three RabbitMQ nodes, Redis and a ledger run as ordinary
// processes, are killed, frozen, starved of disk and cut off at random, while
// jobs go in, run, fail, are retried and are killed by their owner.
//
// A campaign is a function of its seed: Plan gives the faults with their times,
// targets and lengths, Work the jobs. What a fault meets is up to the machine, so
// a campaign is repeated, not replayed.
//
//	plan.go, classes.go   the faults
//	work.go               the jobs
//	payload.go            what a job runs: it is its own witness
//	rig.go, disk.go, isolate.go   the cluster, and disks that can be filled
//	strike.go, attempts.go, hold.go   how each class of fault is done
//	submit.go, probe.go   the clients
//	run.go                a campaign from its start to its result
//	harvest.go, journal.go, logs.go, witness.go, timeouts.go   what is read afterwards
//	events.go, judge.go, leftovers.go   how it is judged
//	result.go, text.go, report.go, evidence.go   and what is told and kept
//
// The word of a payload counts for what ran, the ledger's document for what was
// decided, the daemons' logs for what was taken and acked. Package history holds
// them against the promises of the design.
package campaign
