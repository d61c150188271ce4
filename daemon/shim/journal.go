package main

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"gpuqd/daemon/journald"
	"gpuqd/daemon/runner"
)

const (
	// lineBytesMax bounds what is sent as one line; the rest follows as further
	// ones. With it a line is always one datagram.
	lineBytesMax = 16 << 10
	// What one attempt offers journald: that many lines a second, and at once.
	// A flood then costs a few percent of a processor, and its writer no time.
	linesPerSecond = 1000
	linesAtOnce    = 5000
	// noteLevel is syslog's notice: what the shim has to say is rare.
	noteLevel = "5"
)

// What journald has no room for just now is kept for a moment: a burst of lines is
// more than its socket holds, and it reads them in milliseconds.
const (
	backlogBytesMax = 256 << 10
	backlogWaitMin  = 5 * time.Millisecond   // between two tries
	backlogWaitMax  = 320 * time.Millisecond // without progress, twice as long each time; then it is given up
)

// forwarder sends the command's output to journald, a line as an entry. Nothing
// in it waits, and nobody waits for it. A nil one forwards nothing.
type forwarder struct {
	sender *journald.Sender

	mu      sync.Mutex // never held across a call that waits
	pending []byte     // of a line that has not ended
	entry   []byte     // room for an entry
	tokens  int        // lines that may be offered now
	filled  time.Time
	backlog [][]byte // lines that are to be offered again, in order
	kept    int      // bytes of them
	skipped uint64   // lines that were dropped after them
	again   *time.Timer
	wait    time.Duration // of again
	hope    time.Duration // the longest wait; then the backlog is given up
}

// newForwarder returns nil where the intent wants none, or the host has no
// journald.
func newForwarder(in *runner.Intent) *forwarder {
	if in.JournalSocket == "" || !journald.Present(in.JournalSocket) {
		return nil
	}
	return &forwarder{
		sender: journald.New(in.JournalSocket, journalFields(in, "gpuqd-job")...),
		tokens: linesAtOnce, filled: time.Now(), hope: backlogWaitMax,
	}
}

// journalFields are those of every entry about an attempt.
func journalFields(in *runner.Intent, identifier string) []journald.Field {
	fields := []journald.Field{
		{Name: "SYSLOG_IDENTIFIER", Value: identifier},
		{Name: "GPUQ_JOB_ID", Value: string(in.JobID)},
		{Name: "GPUQ_ATTEMPT", Value: strconv.Itoa(in.Attempt)},
		{Name: "GPUQ_FENCE", Value: strconv.FormatInt(in.Fence, 10)},
		{Name: "GPUQ_QUEUE", Value: in.Queue},
		{Name: "GPUQ_SUBMITTER", Value: in.Submitter},
	}
	for _, device := range in.Devices {
		fields = append(fields, journald.Field{Name: "GPUQ_DEVICE_UUID", Value: device})
	}
	return fields
}

// take forwards the lines that end in data.
func (f *forwarder) take(data []byte) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refill()
	for {
		if last := bytes.LastIndexByte(data, '\n'); f.tokens == 0 && last >= 0 {
			f.drop(uint64(bytes.Count(data, []byte{'\n'}))) // not one by one
			f.pending, data = f.pending[:0], data[last+1:]
		}
		line, rest, ended := bytes.Cut(data, []byte{'\n'})
		f.pending = append(f.pending, line...)
		for len(f.pending) > lineBytesMax {
			n := wholeRunes(f.pending[:lineBytesMax])
			f.offer(f.pending[:n])
			f.pending = append(f.pending[:0], f.pending[n:]...)
		}
		if !ended {
			return
		}
		f.offer(f.pending)
		f.pending, data = f.pending[:0], rest
	}
}

// wholeRunes is the length of line without a rune that its end cuts.
func wholeRunes(line []byte) int {
	for n := len(line) - 1; n > len(line)-utf8.UTFMax; n-- {
		if utf8.RuneStart(line[n]) {
			if !utf8.FullRune(line[n:]) {
				return n
			}
			break
		}
	}
	return len(line)
}

// offer sends one line as a terminal would show it: of what carriage returns
// overwrite the last is left. Empty lines are none, as for journald itself.
func (f *forwarder) offer(line []byte) {
	line = bytes.TrimRight(line, "\r")
	line = line[bytes.LastIndexByte(line, '\r')+1:]
	if len(line) == 0 {
		return
	}
	if f.tokens == 0 {
		f.drop(1)
		return
	}
	f.tokens--
	switch {
	case len(f.backlog) == 0 && f.send(line):
	case f.kept+len(line) > backlogBytesMax:
		f.drop(1)
	default:
		f.backlog = append(f.backlog, bytes.Clone(line))
		f.kept += len(line)
		if f.again == nil {
			f.wait = backlogWaitMin
			f.again = time.AfterFunc(f.wait, f.retry)
		}
	}
}

func (f *forwarder) send(line []byte) bool {
	f.entry = journald.Append(f.entry[:0], "MESSAGE", line)
	f.entry = journald.Append(f.entry, "PRIORITY", journald.Info)
	return f.sender.Offer(f.entry)
}

// drop gives n lines up. Those before them are told of first.
func (f *forwarder) drop(n uint64) {
	if len(f.backlog) > 0 {
		f.skipped += n
		return
	}
	f.sender.Drop(n)
}

// flush offers the backlog again, and reports whether any of it was taken.
func (f *forwarder) flush() (progress bool) {
	for len(f.backlog) > 0 && f.send(f.backlog[0]) {
		f.kept -= len(f.backlog[0])
		f.backlog = f.backlog[1:]
		progress = true
	}
	if len(f.backlog) == 0 {
		f.giveUp()
	}
	return progress
}

// giveUp drops the backlog, where there is one, and counts what came after it.
func (f *forwarder) giveUp() {
	f.sender.Drop(uint64(len(f.backlog)) + f.skipped)
	f.backlog, f.kept, f.skipped = nil, 0, 0
}

// retry flushes, and comes again while there is a backlog and hope.
func (f *forwarder) retry() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.again = nil
	if f.flush() {
		f.wait = backlogWaitMin
	} else if f.wait *= 2; f.wait > f.hope {
		f.giveUp()
	}
	if len(f.backlog) > 0 {
		f.again = time.AfterFunc(f.wait, f.retry)
	}
}

// refill allows for the time since the last turn.
func (f *forwarder) refill() {
	now := time.Now()
	if more := int(now.Sub(f.filled).Seconds() * linesPerSecond); more > 0 {
		f.tokens, f.filled = min(f.tokens+more, linesAtOnce), now
	}
}

// endWait bounds the wait for a journald that takes a backlog.
const endWait = 100 * time.Millisecond

// end forwards the last line, where it has no end, and what is left of a backlog,
// as long as journald takes some of it; then it returns how many lines journald
// did not get.
func (f *forwarder) end() (dropped int64) {
	if f == nil {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.offer(f.pending)
	if f.again != nil {
		f.again.Stop() // if it fires all the same, it finds nothing to do
	}
	for until := time.Now().Add(endWait); len(f.backlog) > 0 && time.Now().Before(until); {
		time.Sleep(backlogWaitMin) // the sender offers nothing before
		if !f.flush() {
			break
		}
	}
	f.giveUp()
	dropped = int64(f.sender.Dropped())
	f.sender.Close()
	return dropped
}

// journalOfNotes is where notes go beside the shim's log; nil for nowhere.
var journalOfNotes atomic.Pointer[journald.Sender]

// notesToJournal sends the notes from now on to journald, too.
func notesToJournal(in *runner.Intent) {
	if in.JournalSocket != "" && journald.Present(in.JournalSocket) {
		journalOfNotes.Store(journald.New(in.JournalSocket, journalFields(in, "gpuqd-shim")...))
	}
}

// noteToJournal sends one note. It never waits.
func noteToJournal(format string, args ...any) {
	sender := journalOfNotes.Load()
	if sender == nil {
		return
	}
	entry := journald.Append(nil, "MESSAGE", fmt.Sprintf(format, args...))
	sender.Send(journald.Append(entry, "PRIORITY", noteLevel)) // shim.log has it all the same
}
