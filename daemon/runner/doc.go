// Package runner keeps the attempts of one host: their directories on disk (the
// host's journal), the programs that run them, and what is left of them.
//
// An attempt's directory is made complete or not at all, and holds:
//
//	intent      what to run; written once by the daemon
//	lock        flock: held by the shim for its whole life, for a moment by the daemon
//	record      what happened: fixed slots of one block each, written in place
//	            and fsynced, with their disk space taken before the start
//	output.log  the command's stdout and stderr
//	shim.log    what the shim has to say about itself
//	witness     what systemd saw of the unit's end, where the attempt was a unit
//	answer.*    a FIFO by which a starter learns of the start; gone after it
//
// The slots of the record, and who writes them:
//
//	started   shim, under the lock, before the command's first instruction
//	revoked   daemon or shim, under the lock, where there is no start: a later
//	          shim exits without running anything
//	stop      daemon: the request to end the attempt
//	stopping  shim, before the first signal: why the attempt is being ended
//	exit      shim, under the lock, when nothing of the attempt is left; or the
//	          daemon, under the lock, where a start has no shim any more
//	verdict   daemon: the result is committed, or discarded
//
// Every step of an attempt's life after its intent is such a write in place, so
// a full disk neither loses a result nor keeps a job from being stopped. (On a
// copy-on-write file system a write in place needs space all the same.)
package runner
