package runnertest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/journald/journaldtest"
	"gpuqd/daemon/runner"
)

// outputTests: output is kept up to its bound and never holds the command up.
var outputTests = map[string]func(*Bench){
	"BothStreamsInOrder":       bothStreams,
	"LogIsBoundedAndCounted":   boundedLog,
	"FullDiskLosesOnlyOutput":  fullDisk,
	"HeldPipeDoesNotDelayExit": heldPipe,
	"JournalHasTheOutput":      journalHasOutput,
	"JournalThatStandsStill":   journalStandsStill,
	"JournalThatVanishes":      journalVanishes,
}

func bothStreams(b *Bench) {
	a := b.Start(b.Intent("echo one; echo two >&2; echo three; cat"))
	e := b.Wait(a) // cat ends: stdin is empty
	log, err := a.ReadLog(0, 100)
	b.Must(err)
	tail, err := a.LogTail(6)
	b.Must(err)
	rest, err := a.ReadLog(4, 3)
	b.Must(err)
	if string(log) != "one\ntwo\nthree\n" || string(tail) != "three\n" || string(rest) != "two" || e.LogBytes != 14 || e.LogDroppedBytes != 0 {
		b.Errorf("log %q, tail %q, part %q, exit %+v", log, tail, rest, e)
	}
}

func boundedLog(b *Bench) {
	in := b.Intent("head -c 1000000 /dev/zero; exit 2")
	in.LogBytesMax = 1000
	a := b.Start(in)
	e := b.Wait(a)
	if e.Code != 2 || e.LogBytes != 1000 || e.LogDroppedBytes != 999000 {
		b.Errorf("got %+v", e)
	}
	log, err := a.ReadLog(0, 10000)
	b.Must(err)
	if !bytes.HasPrefix(log, make([]byte, 1000)) || !strings.Contains(string(log[1000:]), "999000 bytes of output were dropped") {
		b.Errorf("the log has %d bytes and ends in %q", len(log), log[min(len(log), 1000):])
	}
}

// fullDisk runs an attempt whose state directory is on a disk that its own
// output fills. It must run to its end, be recorded, and be stoppable.
func fullDisk(b *Bench) {
	mount := filepath.Join(b.TempDir(), "small")
	b.Must(os.Mkdir(mount, 0o700))
	if err := unix.Mount("gpuqd-test", mount, "tmpfs", 0, "size=1m"); err != nil {
		b.Skipf("a small file system cannot be mounted, which needs root: %v", err)
	}
	b.atEnd = append(b.atEnd, func() {
		// A process that another test is forking just now shares our files.
		b.Until("the file system is unmounted", func() bool { return unix.Unmount(mount, 0) == nil })
	})
	b.Must(b.Journal.Close())
	b.State = mount
	b.Open()
	deadline := b.Lease(0, runner.SessionLive) // made while there is room
	b.Lease(1<<50, runner.SessionLive)

	in := b.Intent("head -c 3000000 /dev/zero; exit 9")
	in.DeadlineFile, in.Workdir = deadline, "/tmp"
	stopped := b.Intent("sleep 1000")
	stopped.DeadlineFile, stopped.Workdir = deadline, "/tmp"
	second := b.Begin(stopped)
	a := b.Start(in)
	e := b.Wait(a)
	if e.Code != 9 || e.LogBytes+e.LogDroppedBytes != 3000000 || e.LogDroppedBytes < 2000000 {
		b.Errorf("got %+v", e)
	}
	if err := os.WriteFile(filepath.Join(mount, "more"), make([]byte, 64<<10), 0o600); err == nil {
		b.Fatal("the disk is not full: the test proves nothing")
	}
	b.Must(b.Starter.Start(b.ctx(), second))
	b.Lease(1<<50, runner.SessionLive)
	b.Must(second.RequestStop(runner.Stop{Reason: runner.StopKilled}))
	if e := b.Wait(second); e.StopReason != runner.StopKilled {
		b.Errorf("got %+v", e)
	}
	b.Must(a.MarkCommitted("c1"))
	if v, ok, err := a.Verdict(); err != nil || !ok || v.CommitID != "c1" {
		b.Errorf("verdict %+v, %v, %v", v, ok, err)
	}
}

// heldPipe: a process that is not the attempt's holds its output open.
func heldPipe(b *Bench) {
	fifo := b.File("fifo")
	b.Must(unix.Mkfifo(fifo, 0o600))
	a := b.Start(b.Intent(fmt.Sprintf("echo before; cat %s; exit 1", fifo)))
	s := b.Started(a)
	var out *os.File
	b.Until("the command's output can be opened", func() bool {
		var err error
		out, err = os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", s.PID), os.O_WRONLY, 0)
		return err == nil && b.Size(a.LogPath()) > 0
	})
	defer out.Close()
	in, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	b.Must(err)
	b.Must(in.Close())
	if e := b.Wait(a); e.Code != 1 || e.LogBytes != 7 {
		b.Errorf("got %+v", e)
	}
}

// The output and the shim's own notes also go to journald: here a socket that
// takes entries as journald does.
func journalHasOutput(b *Bench) {
	r := journaldtest.Listen(b, "")
	in := b.Intent("echo one; echo two >&2; printf last; sleep 1000")
	in.JournalSocket, in.Submitter = r.Path, "alice"
	a := b.Start(in)
	b.Until("the output is kept", func() bool { return b.Size(a.LogPath()) == int64(len("one\ntwo\nlast")) })
	b.Must(a.RequestStop(runner.Stop{Reason: runner.StopKilled, Grace: -1}))
	exit := b.Wait(a)
	var output, notes []string
	for _, e := range r.Rest(b) {
		if e["GPUQ_JOB_ID"] != string(in.JobID) || e["GPUQ_ATTEMPT"] != "1" || e["GPUQ_SUBMITTER"] != "alice" {
			b.Errorf("an entry is not known to be the attempt's: %v", e)
		}
		if e["SYSLOG_IDENTIFIER"] == "gpuqd-job" {
			output = append(output, e["MESSAGE"])
		} else {
			notes = append(notes, e["SYSLOG_IDENTIFIER"]+" "+e["MESSAGE"])
		}
	}
	if !slices.Equal(output, []string{"one", "two", "last"}) || exit.JournalDroppedLines != 0 {
		b.Errorf("the journal has %q, %d lines were dropped", output, exit.JournalDroppedLines)
	}
	if !slices.ContainsFunc(notes, func(n string) bool { return strings.HasPrefix(n, "gpuqd-shim stopping: ") }) {
		b.Errorf("the shim's notes are %q", notes)
	}
}

// journalStandsStill: a socket that nobody reads takes a few entries and then no
// more. The command does not notice, its log has all, and the record says how much
// journald has not.
func journalStandsStill(b *Bench) {
	r := journaldtest.Listen(b, "")
	const lines = 100_000
	in := b.Intent(fmt.Sprintf("seq %d", lines))
	in.JournalSocket = r.Path
	a := b.Start(in)
	exit := b.Wait(a)
	taken := len(r.Rest(b))
	if exit.Code != 0 || exit.LogDroppedBytes != 0 || exit.LogBytes != 588895 {
		b.Errorf("got %+v", exit)
	}
	if taken == 0 || taken >= lines/2 || exit.JournalDroppedLines < int64(lines-taken) {
		b.Errorf("of %d lines %d entries were taken, and %d lines are said to be dropped", lines, taken, exit.JournalDroppedLines)
	}
}

// journalVanishes: one that goes while the command writes costs lines alone, each of
// them counted, and is used again when it is back.
func journalVanishes(b *Bench) {
	r := journaldtest.Listen(b, "")
	fifo := b.File("fifo")
	b.Must(unix.Mkfifo(fifo, 0o600))
	in := b.Intent(fmt.Sprintf("echo before; cat %s", fifo))
	in.JournalSocket = r.Path
	a := b.Start(in)
	if got := r.Next(b)["MESSAGE"]; got != "before" {
		b.Fatalf("got %q", got)
	}
	r.Vanish(b)
	to, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	b.Must(err)
	written := int64(0)
	write := func() {
		_, err := to.WriteString("line\n")
		b.Must(err)
		written++
	}
	write()
	b.Until("the output is kept", func() bool { return b.Size(a.LogPath()) == int64(len("before\nline\n")) })
	r.Return(b)
	var entries []journaldtest.Entry
	b.Until("a line arrives again", func() bool {
		write()
		entries = append(entries, r.Rest(b)...)
		return slices.ContainsFunc(entries, func(e journaldtest.Entry) bool { return e["MESSAGE"] == "line" })
	})
	b.Must(to.Close())
	exit := b.Wait(a)
	arrived, missing := int64(0), int64(0)
	for _, e := range append(entries, r.Rest(b)...) {
		if n, err := strconv.ParseInt(e["GPUQ_MISSING"], 10, 64); err == nil {
			missing += n
		} else if e["MESSAGE"] == "line" {
			arrived++
		}
	}
	if arrived+exit.JournalDroppedLines != written || missing > exit.JournalDroppedLines {
		b.Errorf("of %d lines %d arrived, %d are counted as dropped, and the journal tells of %d", written, arrived, exit.JournalDroppedLines, missing)
	}
}
