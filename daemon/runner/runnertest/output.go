package runnertest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/runner"
)

// outputTests: output is kept up to its bound and never holds the command up.
var outputTests = map[string]func(*Bench){
	"BothStreamsInOrder":       bothStreams,
	"LogIsBoundedAndCounted":   boundedLog,
	"FullDiskLosesOnlyOutput":  fullDisk,
	"HeldPipeDoesNotDelayExit": heldPipe,
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
