package proctree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// All returns every process that /proc shows, by PID.
func All() (map[int]Stat, error) {
	proc, err := openProc()
	if err != nil {
		return nil, err
	}
	defer proc.close()
	return proc.all()
}

// scan reads files below /proc. An attempt ends with a look at every process of
// the host, so that takes three system calls a file, and no memory.
type scan struct {
	dir  *os.File
	fd   int    // of dir
	name []byte // path below /proc, ending in a zero byte
	data []byte // what was read last
}

func openProc() (*scan, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	return &scan{dir: dir, fd: int(dir.Fd()), data: make([]byte, 4096)}, nil
}

func (s *scan) close() { _ = s.dir.Close() } // read only

// all returns every process. Beside an error it returns those that could be read.
func (s *scan) all() (map[int]Stat, error) {
	before, beforeErr := s.lastPID()
	if _, err := s.dir.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	names, err := s.dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	all := make(map[int]Stat, len(names))
	var failed error
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if err := s.add(all, pid); err != nil && failed == nil {
			failed = err
		}
	}
	// And what the listed ones have forked before they were looked at; some may be
	// gone by then.
	if beforeErr == nil {
		_, err := s.addFrom(all, before+1)
		failed = errors.Join(failed, err)
	}
	return all, failed
}

// The bounds of a search among the latest PIDs alone.
const (
	// youth is the greatest age, in clock ticks, of the process they are counted
	// from: in half a second no host uses up its PIDs (32,768 at the least) more
	// than once.
	youth = 50
	// rangeMost is the greatest number of PIDs: a look at all processes is cheaper
	// than at more.
	rangeMost = 2000
)

// since returns every process that can have started after p, and more where that
// is not cheaper. At the end of a short attempt it looks at some tens of
// processes, not at all of a host.
func (s *scan) since(p Process) (map[int]Stat, error) {
	if p.PID <= 0 || p.Ticks+youth < ticks() {
		return s.all()
	}
	found := make(map[int]Stat)
	if whole, err := s.addFrom(found, p.PID); err != nil || !whole {
		return s.all()
	}
	return found, nil
}

// addFrom adds the processes that have a PID from first on, to the last that was
// given. It asks for that again at the end: what was forked meanwhile, and whose
// parent is gone before it was looked at, has a later PID. It reports false where
// it stopped: the last is not known, the PIDs began anew, or there are too many.
func (s *scan) addFrom(to map[int]Stat, first int) (whole bool, err error) {
	last := first - 1
	for pid := first; ; pid++ {
		if pid > last {
			now, err := s.lastPID()
			if err != nil || now < first-1 || now-first > rangeMost {
				return false, nil
			}
			if now < pid {
				return true, nil
			}
			last = now
		}
		if err := s.add(to, pid); err != nil {
			return false, err
		}
		if to[pid].Thread {
			delete(to, pid) // /proc answers for it, but does not list it
		}
	}
}

// lastPID returns the PID that was given last in this PID namespace; not every
// kernel tells. The one in /proc/loadavg can be the host's in a container.
//
// Source: proc_sys_kernel(5), ns_last_pid.
func (s *scan) lastPID() (int, error) {
	data, err := s.readAt("sys/kernel/ns_last_pid")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(bytes.TrimSpace(data)))
}

// add puts a process's state into the map, unless it is gone.
func (s *scan) add(to map[int]Stat, pid int) error {
	data, err := s.read(pid, "/stat")
	if isGoneOrHidden(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read state of process %d: %w", pid, err)
	}
	if stat, err := parseStat(pid, data); err == nil {
		to[pid] = stat
	}
	return nil
}

// isGoneOrHidden reports whether a process ended while it was looked at, or is
// another user's whom this one may not look at.
func isGoneOrHidden(err error) bool {
	return isGone(err) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}

func isGone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

// read returns a file of a process; the bytes are good until the next call.
func (s *scan) read(pid int, file string) ([]byte, error) {
	s.name = append(strconv.AppendInt(s.name[:0], int64(pid), 10), file...)
	return s.readAt(string(s.name))
}

func (s *scan) readAt(name string) ([]byte, error) {
	fd, err := unix.Openat(s.fd, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for n := 0; ; {
		got, err := unix.Read(fd, s.data[n:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		}
		// These files are written out whole: a read that is not filled was the last.
		if n += got; n < len(s.data) {
			return s.data[:n], nil
		}
		s.data = append(s.data, make([]byte, len(s.data))...)
	}
}

// environ returns the variables as hasEnviron looks for them.
func (m Mark) environ() [][]byte {
	want := make([][]byte, len(m.Environ))
	for i, w := range m.Environ {
		want[i] = append(append([]byte{0}, w...), 0)
	}
	return want
}

// hasEnviron reports whether a process was executed with each of want in its
// environment. What may not be read (another user's process) has not. It returns
// errGone where that cannot be told now.
func (s *scan) hasEnviron(pid int, want [][]byte) (bool, error) {
	data, err := s.read(pid, "/environ")
	if isGone(err) || err == nil && len(data) == 0 {
		return false, errGone // none at its end, nor in the middle of an exec
	}
	if isGoneOrHidden(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read environment of process %d: %w", pid, err)
	}
	for _, w := range want {
		// The first variable follows nothing, and the last may lack its end.
		if !bytes.Contains(data, w) && !bytes.HasPrefix(data, w[1:]) && !bytes.HasSuffix(data, w[:len(w)-1]) && !bytes.Equal(data, w[1:len(w)-1]) {
			return false, nil
		}
	}
	return true, nil
}

// errGone: a process ended, or became another program, while it was looked at.
var errGone = errors.New("the process has no environment now")

var errFormat = errors.New("/proc shows no known format")

// parseStat reads a line of /proc/<pid>/stat.
//
// Source: proc_pid_stat(5).
func parseStat(pid int, data []byte) (Stat, error) {
	// The name stands in parentheses and may itself hold any character.
	rest := data[bytes.LastIndexByte(data, ')')+1:]
	stat := Stat{Process: Process{PID: pid}}
	for field := 3; field <= 38; field++ {
		rest = bytes.TrimLeft(rest, " ")
		end := bytes.IndexAny(rest, " \n")
		if end <= 0 && field > 22 {
			break
		}
		if end <= 0 {
			return Stat{}, errFormat
		}
		text := rest[:end]
		rest = rest[end:]
		var err error
		switch field {
		case 3:
			stat.State = text[0]
		case 4:
			stat.PPID, err = strconv.Atoi(string(text))
		case 6:
			stat.Session, err = strconv.Atoi(string(text))
		case 22:
			stat.Ticks, err = strconv.ParseUint(string(text), 10, 64)
		case 38: // the signal that its end sends
			stat.Thread = string(text) == "-1"
		}
		if err != nil {
			return Stat{}, errFormat
		}
	}
	return stat, nil
}
