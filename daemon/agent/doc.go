// Package agent is the daemon's loop: it ties broker, ledger, done-cache,
// devices and runner together into the life of a job.
//
//	gpuq.submit ─▶ intake ─▶ ledger ─▶ job queue ─▶ take ─▶ claim ─▶ run ─▶ commit ─▶ ack
//
// Its goroutines, each owned by Run, which waits for them:
//
//	control       answers gpuqctl, over the socket and the broker   control.go, logs.go, status.go
//	shutdown      ends what runs here when the host goes down       shutdown.go
//	lease         renews the session, looks after own jobs          lease.go
//	watch         expires silent sessions, takes over their jobs    watch.go
//	take          takes messages while jobs fit                     take.go
//	drain         ends what runs on what is drained                 drained.go
//	device alarms ends what runs on what has failed                 alarms.go
//	sweep         publishes lost messages again, ends the expired   sweep.go, evidence.go
//	intake        takes submissions in                              intake.go
//	dead letters  records what was set aside                        intake.go
//	ledger probe  notices that a ledger which failed is back        agent.go
//	watchdog      tells the service manager that all of these       watchdog.go, progress.go
//	              make progress
//	status        says how this host fares, in one line             standing.go
//	one per job   from the delivery to the ack                      claim.go, run.go, finish.go
//
// Start-up (reconcile.go) adopts what an earlier daemon left running. Each loop
// is a thin shell over a step (renewOnce, watchOnce, takeNext, sweepOnce, settle,
// drive), and everything outside is behind the interfaces of ports.go.
package agent
