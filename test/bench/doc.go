// Package bench measures gpuqd on a real cluster of its own, on one machine: three
// RabbitMQ nodes, Redis, a SQLite ledger, one daemon with simulated devices, and
// the gpuqctl that users have. It measures what a job costs at least with the same
// operations on the same servers, too: the floor, in a package of its own.
//
// Nothing here judges: no test asserts a time. `make bench` prints a table and
// writes docs/performance.md from its result, which is kept in results/.
//
//	run.go                    a run from its start to its result
//	rig.go                    the cluster, and the ways to it
//	latency.go, batch.go      one job after the other; many jobs at once
//	compare.go                gpuqd and the floor in turn; floor/ is the floor
//	idle.go, process.go       what processes use while nothing is to be done
//	waiting.go, preload.go    dispatch from among very many jobs
//	stamps.go, metrics.go     the words of payloads and of gpuqd that figures rest on
//	stats.go                  percentiles
//	machine.go, result.go, text.go, report.go   what is told and kept
//	gpuq-bench/, gpuq-stamp/, gpuq-floor-shim/  the programs
package bench
