package journald

import (
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is where journald listens.
const Socket = "/run/systemd/journal/socket"

// Present reports whether there is, or was, a journald behind the socket at path.
func Present(path string) bool {
	var stat unix.Stat_t
	return unix.Stat(path, &stat) == nil && stat.Mode&unix.S_IFMT == unix.S_IFSOCK
}

// How long nothing is offered after an entry was not taken. A flood then costs
// its sender next to nothing, and a journald that is only behind can catch up.
const (
	pauseFull   = 5 * time.Millisecond // its queue is full
	pauseAbsent = time.Second          // nobody listens
)

// Sender sends entries to one socket, for any number of goroutines. Its zero
// value is not usable; see New.
type Sender struct {
	to    unix.SockaddrUnix
	fixed []byte // fields of every entry, encoded

	mu      sync.Mutex // never held across a call that waits
	fd      int        // -1: not open
	closed  bool
	after   time.Time // nothing is offered before
	dropped uint64    // in all
	unsaid  uint64    // of these, those no entry has told of
}

// New returns a sender to the socket at path, which need not be there (yet). The
// fixed fields are part of every entry.
func New(path string, fixed ...Field) *Sender {
	s := &Sender{to: unix.SockaddrUnix{Name: path}, fd: -1}
	for _, f := range fixed {
		s.fixed = Append(s.fixed, f.Name, f.Value)
	}
	return s
}

// Send offers an entry, made by Append, and reports whether journald took it. One
// that it did not take is counted as dropped.
func (s *Sender) Send(entry []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.try(entry) {
		return true
	}
	s.dropped++
	s.unsaid++
	return false
}

// Offer is Send, but what is not taken is not counted: the caller offers it again,
// or calls Drop.
func (s *Sender) Offer(entry []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.try(entry)
}

// Drop counts n entries that the caller gave up, so that the gap is told of.
func (s *Sender) Drop(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped += n
	s.unsaid += n
}

func (s *Sender) try(entry []byte) bool {
	if s.closed || (!s.after.IsZero() && time.Now().Before(s.after)) {
		return false
	}
	return (s.unsaid == 0 || s.sayGap()) && s.offer(entry)
}

// Dropped returns how many entries were not taken so far.
func (s *Sender) Dropped() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped
}

// Close tells of a gap that nothing has told of, if journald takes that, and ends
// the sender: what is sent after it is dropped.
func (s *Sender) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsaid > 0 && !s.closed {
		s.sayGap()
	}
	s.closed = true
	s.shut()
}

// sayGap sends the one entry that tells of the dropped ones.
func (s *Sender) sayGap() bool {
	n := strconv.FormatUint(s.unsaid, 10)
	entry := Append(nil, "MESSAGE", n+" entries are missing here: journald did not take them in time")
	entry = Append(entry, "PRIORITY", Warning)
	entry = Append(entry, "GPUQ_MISSING", n)
	if !s.offer(entry) {
		return false
	}
	s.unsaid = 0
	return true
}

// offer makes one attempt to send, and notes when the next may be.
func (s *Sender) offer(entry []byte) bool {
	err := s.open()
	if err == nil {
		_, err = retried(func() (int, error) {
			return unix.SendmsgBuffers(s.fd, [][]byte{s.fixed, entry}, nil, &s.to, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		})
	}
	switch err {
	case unix.EMSGSIZE, unix.ENOBUFS: // more than a datagram of this socket holds
		err = s.sendFile(entry)
	}
	switch err {
	case nil:
		s.after = time.Time{}
		return true
	case unix.EAGAIN, unix.ETOOMANYREFS: // the latter: descriptors that it has not read yet
		s.after = time.Now().Add(pauseFull)
	case unix.ENOENT, unix.ECONNREFUSED:
		s.after = time.Now().Add(pauseAbsent)
	default:
		s.after = time.Now().Add(pauseAbsent)
		s.shut() // whatever is wrong with it, the next one is new
	}
	return false
}

// sendFile hands the entry over as a file in memory, which nobody can change any
// more: journald takes no other.
func (s *Sender) sendFile(entry []byte) error {
	fd, err := unix.MemfdCreate("gpuqd-journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, part := range [][]byte{s.fixed, entry} {
		for len(part) > 0 {
			n, err := retried(func() (int, error) { return unix.Write(fd, part) })
			if err != nil {
				return err
			}
			part = part[n:]
		}
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return err
	}
	_, err = retried(func() (int, error) {
		return 0, unix.Sendmsg(s.fd, nil, unix.UnixRights(fd), &s.to, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	})
	return err
}

// open makes the socket. It is not connected: every entry finds whoever listens
// at the path by then.
func (s *Sender) open() error {
	if s.fd >= 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		s.fd = fd
	}
	return err
}

func (s *Sender) shut() {
	if s.fd >= 0 {
		_ = unix.Close(s.fd) // a datagram socket: nothing is left in it
		s.fd = -1
	}
}

// retried repeats a system call that a signal interrupted.
func retried(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR {
			return n, err
		}
	}
}
