// Program gpuq-floor-shim does for the floor what gpuqd-shim must do, and nothing
// else: it starts a second stage of itself in a cgroup and a session of its own,
// records the start, lets the stage become the command, keeps the output, and
// records the exit. Each record is a block of the attempt's file, written in place
// and synced. It guards nothing: no lease, no time limit, no leftovers.
//
//	gpuq-floor-shim run DIRECTORY CGROUP SYNCS COMMAND [ARG...]
//	gpuq-floor-shim exec COMMAND [ARG...]      (by itself only)
//
// CGROUP is a directory to be made, or - for none. SYNCS is how many of its writes
// are synced, of start, exit, and the output where there is any, in this order.
// Descriptor 3 takes a byte when the start is recorded.
package main

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	fdAnswer  = 3    // of run
	fdGate    = 3    // of exec
	slotBytes = 4096 // of a record, as daemon/runner
	slotExit  = 4
)

// init keeps main on the first thread: the kernel ties a PDEATHSIG to the thread
// that forked.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) > 2 && os.Args[1] == "exec" {
		execCommand(os.Args[2:])
	}
	if len(os.Args) < 6 || os.Args[1] != "run" {
		os.Exit(2)
	}
	syncs, err := strconv.Atoi(os.Args[4])
	if err != nil {
		os.Exit(2)
	}
	s := &shim{dir: os.Args[2], cgroup: os.Args[3], syncs: syncs}
	if err := s.run(os.Args[5:]); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

// execCommand waits for a byte, then becomes the command.
func execCommand(argv []string) {
	syscall.CloseOnExec(fdGate)
	var b [1]byte
	if n, err := syscall.Read(fdGate, b[:]); n != 1 || err != nil {
		os.Exit(3)
	}
	var env []string // less what is the shim's own
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GO") {
			env = append(env, v)
		}
	}
	_ = syscall.Exec(argv[0], argv, env)
	os.Exit(127)
}

type shim struct {
	dir, cgroup string
	syncs       int

	record, log *os.File
}

// run runs the command from the lock to the record of its exit.
func (s *shim) run(argv []string) error {
	syscall.CloseOnExec(fdAnswer)
	lock, err := os.OpenFile(s.dir+"/lock", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return err
	}
	if s.record, err = os.OpenFile(s.dir+"/record", os.O_WRONLY, 0); err != nil {
		return err
	}
	if s.log, err = os.OpenFile(s.dir+"/output.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	output, gate, pid, err := s.fork(argv)
	runtime.UnlockOSThread()
	if err != nil {
		return err
	}
	if err := s.note(0, "started "+strconv.Itoa(pid), s.syncs > 0); err != nil {
		return err
	}
	if _, err := gate.Write([]byte{1}); err != nil {
		return err
	}
	if _, err := syscall.Write(fdAnswer, []byte{1}); err != nil {
		return err
	}
	_ = syscall.Close(fdAnswer)
	kept, err := output.WriteTo(s.log) // until nobody has the other end
	if err != nil {
		return err
	}
	var status syscall.WaitStatus
	var usage syscall.Rusage
	if _, err := syscall.Wait4(pid, &status, 0, &usage); err != nil {
		return err
	}
	if s.cgroup != "-" {
		if err := s.removeCgroup(); err != nil {
			return err
		}
	}
	if s.syncs > 2 && kept > 0 {
		if err := syscall.Fdatasync(int(s.log.Fd())); err != nil {
			return err
		}
	}
	return s.note(slotExit, "exit "+strconv.Itoa(status.ExitStatus()), s.syncs > 1)
}

// fork starts the second stage; its output comes out of the first file, a byte
// into the second lets it go on.
func (s *shim) fork(argv []string) (output, gate *os.File, pid int, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, 0, err
	}
	defer null.Close()
	output, outWrite, err := os.Pipe()
	if err != nil {
		return nil, nil, 0, err
	}
	defer outWrite.Close()
	gateRead, gate, err := os.Pipe()
	if err != nil {
		return nil, nil, 0, err
	}
	defer gateRead.Close()
	attr := &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(),
		Files: []uintptr{null.Fd(), outWrite.Fd(), outWrite.Fd(), gateRead.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	}
	if s.cgroup != "-" {
		if err := os.Mkdir(s.cgroup, 0o755); err != nil {
			return nil, nil, 0, err
		}
		dir, err := os.Open(s.cgroup)
		if err != nil {
			return nil, nil, 0, err
		}
		defer dir.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd())
	}
	pid, err = syscall.ForkExec("/proc/self/exe", append([]string{"gpuq-floor-shim", "exec"}, argv...), attr)
	return output, gate, pid, err
}

// removeCgroup tries for a moment: a process that was reaped just now can still
// count as a member.
func (s *shim) removeCgroup() (err error) {
	for range 1000 {
		if err = syscall.Rmdir(s.cgroup); err != syscall.EBUSY {
			return err
		}
		time.Sleep(100 * time.Microsecond)
	}
	return err
}

// note writes one block of the record.
func (s *shim) note(slot int, text string, sync bool) error {
	block := make([]byte, slotBytes)
	copy(block, text)
	if _, err := s.record.WriteAt(block, int64(slot)*slotBytes); err != nil || !sync {
		return err
	}
	return syscall.Fdatasync(int(s.record.Fd()))
}
