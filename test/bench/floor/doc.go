// Package floor is what a job costs at least: a program that does, for each job,
// the operations on broker, ledger, Redis and disk that gpuqd does, starts the same
// number of processes, and does nothing else. What gpuqd takes beyond it is the
// price of its own code, not of the design.
//
// One job's way, in the order of gpuqd's:
//
//	intake   insert the job's document; publish its message to a quorum queue,
//	         persistent, mandatory, and wait for the confirm; ring a bell
//	take     look at the depth of the two queues of the shape; get one message
//	claim    ask Redis for the job; claim it: queued → claimed, owner, attempt and
//	         fence, a row of history
//	begin    make the attempt's directory: intent, record of six blocks, lock; sync
//	         them as gpuqd does, their directory and the one around it
//	start    start gpuq-floor-shim: it starts a second stage of itself in a cgroup of
//	         its own, syncs the record of the start, and lets the stage become the
//	         command
//	running  claimed → running, while the command runs
//	end      the shim takes the output until its end, reaps the command, removes the
//	         cgroup, syncs the output, if any, and the record of the exit
//	commit   running → succeeded, with a result; sync the verdict; tell Redis; ack
//
// It is honest in both directions. It leaves out what is gpuqd's own care: no
// lease, no deadline file, no reconciling after a crash, no retries, no search of
// /proc for what a command left behind, no timeouts, no logs, no metrics, no
// decision of placement, no check of what was read. And it saves nothing that the
// design demands: the documents are gpuqd's own and as large, each write to the
// ledger is a transaction of its own that is synced when it returns, each message
// is confirmed and acked by itself, and eight jobs run at a time. How often it
// looks, reads and syncs is not written down here: it takes that from what gpuqd's
// metrics showed in the same run (Recipe), and counts what it does itself
// (Outcome.Operations), so that the two can be compared line by line.
//
// Two things it does in a better way than code that must also be right would: the
// statements of SQL are prepared text instead of being made for each write, and
// the program that stands in for gpuqd-shim is smaller.
package floor
