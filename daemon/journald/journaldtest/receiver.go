// Package journaldtest is the far end of journald's native protocol for tests: a
// real socket that takes entries apart as journald does, is slow when told to, and
// goes and comes back.
package journaldtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Receiver is a socket that entries are sent to. What nobody reads stays in it,
// until it is full.
type Receiver struct {
	Path string
	conn *net.UnixConn
}

// Entry is the fields of one entry by name, the last where a name is there twice.
type Entry map[string]string

// wait bounds how long Next waits for an entry.
const wait = 10 * time.Second

// Listen makes a receiver at path; "" is a new path. The socket is removed with
// the test.
func Listen(t testing.TB, path string) *Receiver {
	t.Helper()
	if path == "" {
		dir, err := os.MkdirTemp("", "journald") // short: a socket's path has at most 107 bytes
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		path = filepath.Join(dir, "socket")
	}
	r := &Receiver{Path: path}
	r.Return(t)
	t.Cleanup(func() { _ = r.conn.Close() })
	return r
}

// Vanish closes the socket and removes its file, as the stop of
// systemd-journald.socket does with the former.
func (r *Receiver) Vanish(t testing.TB) {
	t.Helper()
	if err := r.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

// Refuse closes the socket and leaves its file, which nobody listens behind.
func (r *Receiver) Refuse(t testing.TB) {
	t.Helper()
	if err := r.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.Path); err != nil {
		t.Fatalf("the socket's file went with it: %v", err)
	}
}

// Return makes the socket anew at its path.
func (r *Receiver) Return(t testing.TB) {
	t.Helper()
	if err := os.Remove(r.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: r.Path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	r.conn = conn
}

// Next returns the next entry, and fails the test where none comes.
func (r *Receiver) Next(t testing.TB) Entry {
	t.Helper()
	entry, ok := r.read(t, wait)
	if !ok {
		t.Fatal("no entry came")
	}
	return entry
}

// Rest returns the entries that are there.
func (r *Receiver) Rest(t testing.TB) (list []Entry) {
	t.Helper()
	for {
		entry, ok := r.read(t, 0)
		if !ok {
			return list
		}
		list = append(list, entry)
	}
}

// read takes one entry. It waits for none where within is 0.
func (r *Receiver) read(t testing.TB, within time.Duration) (Entry, bool) {
	t.Helper()
	deadline := time.Time{}
	if within > 0 {
		deadline = time.Now().Add(within)
	}
	if err := r.conn.SetReadDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	raw, err := r.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	data, oob := make([]byte, 1<<20), make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	var readErr error
	err = raw.Read(func(fd uintptr) (done bool) {
		n, oobn, _, _, readErr = unix.Recvmsg(int(fd), data, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		return within == 0 || readErr != unix.EAGAIN
	})
	if errors.Is(err, os.ErrDeadlineExceeded) || err == nil && readErr == unix.EAGAIN {
		return nil, false
	}
	if err := errors.Join(err, readErr); err != nil {
		t.Fatal(err)
	}
	data = data[:n]
	if oobn > 0 {
		data = readFile(t, oob[:oobn])
	}
	entry, err := Parse(data)
	if err != nil {
		t.Fatalf("%v, in %q", err, data[:min(len(data), 300)])
	}
	return entry, true
}

// readFile reads what came as a descriptor, and holds it to journald's rules: it
// is sealed, so that its sender cannot change it.
func readFile(t testing.TB, oob []byte) []byte {
	t.Helper()
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("%d descriptors, %v", len(fds), err)
	}
	seals, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GET_SEALS, 0)
	const all = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if err != nil || seals&all != all {
		t.Fatalf("the file has the seals %#x, want %#x: %v", seals, all, err)
	}
	file := os.NewFile(uintptr(fds[0]), "entry")
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, info.Size())
	if n, err := syscall.Pread(fds[0], data, 0); err != nil || n != len(data) {
		t.Fatalf("read %d of %d bytes: %v", n, len(data), err)
	}
	return data
}

// Parse takes an entry apart as journald does.
func Parse(data []byte) (Entry, error) {
	entry := Entry{}
	for len(data) > 0 {
		line, rest, ok := bytes.Cut(data, []byte("\n"))
		if !ok {
			return nil, errors.New("the entry does not end with a newline")
		}
		name, value, simple := bytes.Cut(line, []byte("="))
		if !simple {
			if len(rest) < 8 {
				return nil, errors.New("a length is cut off")
			}
			size := binary.LittleEndian.Uint64(rest)
			rest = rest[8:]
			if uint64(len(rest)) < size+1 || rest[size] != '\n' {
				return nil, errors.New("a value is cut off, or has no newline after it")
			}
			value, rest = rest[:size], rest[size+1:]
		}
		if !validName(name) {
			return nil, errors.New("journald would drop the field " + string(name))
		}
		entry[string(name)] = string(value)
		data = rest
	}
	return entry, nil
}

// validName reports whether journald keeps a field of this name.
func validName(name []byte) bool {
	if len(name) == 0 || len(name) > 64 || name[0] == '_' || name[0] >= '0' && name[0] <= '9' {
		return false
	}
	for _, b := range name {
		if b != '_' && (b < 'A' || b > 'Z') && (b < '0' || b > '9') {
			return false
		}
	}
	return true
}
