package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"gpuqd/daemon/runner"
)

// drainWait bounds the wait for the rest of the output once nothing of the
// attempt is left: somebody else may hold the pipe open.
const drainWait = 500 * time.Millisecond

// output copies what the command writes to the attempt's log: the first bytes
// up to a bound. What does not fit, there or on the disk, is counted and
// dropped; the command is never held up by it.
type output struct {
	read, write *os.File // of the command's pipe
	log         *os.File // nil where it cannot be opened
	room        int64    // bytes the log may still take
	kept        int64
	dropped     int64
	journal     *forwarder
	done        chan struct{} // closed when the copying has ended; guards the counts
}

// openOutput makes the pipe and opens the log.
func openOutput(a *runner.Attempt) *output {
	o := &output{room: a.Intent().LogBytesMax, journal: newForwarder(a.Intent()), done: make(chan struct{})}
	var err error
	if o.log, err = os.OpenFile(a.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		note("the output is dropped: %v", err)
		o.log = nil
	}
	if o.read, o.write, err = os.Pipe(); err != nil {
		panic("no pipe for the command's output: " + err.Error()) // before the start: nothing is lost
	}
	return o
}

// writeEndGiven closes the shim's own copy of the pipe's write end, so that the
// end of the last writer is seen, and starts to copy.
func (o *output) writeEndGiven() {
	_ = o.write.Close() // a pipe: nothing is buffered
	go o.copy()
}

func (o *output) copy() {
	defer close(o.done)
	buf := make([]byte, 32<<10)
	for {
		n, err := o.read.Read(buf)
		o.keep(buf[:n])
		o.journal.take(buf[:n])
		if err != nil {
			if err != io.EOF {
				note("read the command's output: %v", err)
			}
			return
		}
	}
}

// say adds a line of gpuqd's own. It is for before the start: later it would stand
// in the middle of the command's lines.
func (o *output) say(text string) { o.keep(fmt.Appendf(nil, "gpuqd: %s\n", text)) }

// keep writes what fits and counts the rest.
func (o *output) keep(data []byte) {
	fits := min(int64(len(data)), o.room)
	wrote := 0
	if o.log != nil && fits > 0 {
		// A full disk takes a part or nothing. It is tried again with the next
		// data: space may be free by then.
		wrote, _ = o.log.Write(data[:fits])
	}
	o.kept += int64(wrote)
	o.room -= int64(wrote)
	o.dropped += int64(len(data) - wrote)
}

// finish takes the rest of the output and says in a last line how much is
// missing. Nothing of the attempt may be left.
func (o *output) finish() (kept, dropped int64) {
	_ = o.read.SetReadDeadline(time.Now().Add(drainWait))
	<-o.done
	if o.dropped > 0 && o.log != nil {
		// On a full disk this line is missing too; the exit record has the count.
		_, _ = fmt.Fprintf(o.log, "\ngpuqd: %d bytes of output were dropped after the first %d: the log is bounded, or the disk is full\n", o.dropped, o.kept)
	}
	if o.log != nil && o.kept > 0 {
		if err := runner.Datasync(o.log); err != nil {
			note("sync the output: %v", err)
		}
	}
	return o.kept, o.dropped
}
