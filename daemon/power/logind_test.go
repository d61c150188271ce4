package power

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"gpuqd/daemon/systembus"
)

const patience = 20 * time.Second

// bus starts a message bus of its own.
func bus(t *testing.T) (dial func(context.Context) (*dbus.Conn, error)) {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("there is no dbus-daemon here: apt-get install dbus-daemon, or run this test on a host that has one")
	}
	dir, err := os.MkdirTemp("", "bus") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	conf := filepath.Join(dir, "conf")
	address := "unix:path=" + filepath.Join(dir, "socket")
	text := `<busconfig><type>system</type><listen>` + address + `</listen><policy context="default">
<allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>`
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--config-file="+conf, "--nofork", "--print-address")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the bus said %q: %v", line, err)
	}
	return func(ctx context.Context) (*dbus.Conn, error) {
		return systembus.BusAt(ctx, address)
	}
}

// fakeLogind answers as logind does: a lock is a pipe whose other end it watches.
type fakeLogind struct {
	t     *testing.T
	conn  *dbus.Conn
	locks chan *os.File // logind's ends, as they are asked for

	mu        sync.Mutex
	preparing bool
}

func startLogind(t *testing.T, dial func(context.Context) (*dbus.Conn, error)) *fakeLogind {
	t.Helper()
	conn, err := dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l := &fakeLogind{t: t, conn: conn, locks: make(chan *os.File, 8)}
	for name, object := range map[string]any{manager: exported{l}, "org.freedesktop.DBus.Properties": properties{l}} {
		if err := conn.Export(object, login1Obj, name); err != nil {
			t.Fatal(err)
		}
	}
	if reply, err := conn.RequestName(login1, dbus.NameFlagReplaceExisting|dbus.NameFlagAllowReplacement); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("own the name: %d, %v", reply, err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return l
}

type exported struct{ *fakeLogind }

// Inhibit is logind's method.
func (e exported) Inhibit(what, who, why, mode string) (dbus.UnixFD, *dbus.Error) {
	if what != "shutdown" || who != "gpuqd" || mode != "delay" || why == "" {
		return 0, dbus.MakeFailedError(fmt.Errorf("a lock on %q by %q in mode %q", what, who, mode))
	}
	var ends [2]int
	if err := syscall.Pipe2(ends[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		return 0, dbus.MakeFailedError(err)
	}
	e.locks <- os.NewFile(uintptr(ends[0]), "lock")
	// Sent with the answer; ours is closed when that is surely out.
	time.AfterFunc(2*time.Second, func() { _ = syscall.Close(ends[1]) })
	return dbus.UnixFD(ends[1]), nil
}

type properties struct{ *fakeLogind }

// Get is the bus's method for properties.
func (p properties) Get(_, name string) (dbus.Variant, *dbus.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch name {
	case "InhibitDelayMaxUSec":
		return dbus.MakeVariant(uint64(7_000_000)), nil
	case "PreparingForShutdown":
		return dbus.MakeVariant(p.preparing), nil
	}
	return dbus.Variant{}, dbus.MakeFailedError(errors.New("there is no " + name))
}

func (l *fakeLogind) set(preparing bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.preparing = preparing
}

func (l *fakeLogind) prepare(down bool) {
	l.t.Helper()
	l.set(down)
	if err := l.conn.Emit(login1Obj, manager+".PrepareForShutdown", down); err != nil {
		l.t.Fatal(err)
	}
}

// next returns the next lock that was taken.
func (l *fakeLogind) next() *os.File {
	l.t.Helper()
	select {
	case f := <-l.locks:
		l.t.Cleanup(func() { _ = f.Close() })
		return f
	case <-time.After(patience):
		l.t.Fatal("no lock was taken")
		return nil
	}
}

// let waits until the lock is let go of.
func (l *fakeLogind) let(f *os.File) {
	l.t.Helper()
	_ = f.SetReadDeadline(time.Now().Add(patience))
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		l.t.Fatalf("the lock is still held: %v", err)
	}
}

// held makes sure that a lock is not let go of.
func (l *fakeLogind) held(f *os.File) {
	l.t.Helper()
	_ = f.SetReadDeadline(time.Now().Add(2500 * time.Millisecond)) // past the fake's own end
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		l.t.Fatalf("the lock is not held: %v", err)
	}
}

// listenTo runs a Logind.
func listenTo(t *testing.T, dial func(context.Context) (*dbus.Conn, error)) (notices chan Notice, log *strings.Builder) {
	t.Helper()
	notices = make(chan Notice, 8)
	log = &strings.Builder{}
	ctx, cancel := context.WithCancel(t.Context())
	l := &Logind{
		Tell: func(_ context.Context, n Notice) { notices <- n }, Dial: dial, Log: slog.New(slog.NewTextHandler(log, nil)),
	}
	over := make(chan struct{})
	go func() { defer close(over); _ = l.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-over })
	return notices, log
}

func nextNotice(t *testing.T, notices chan Notice) Notice {
	t.Helper()
	select {
	case n := <-notices:
		return n
	case <-time.After(patience):
		t.Fatal("no notice came")
		return Notice{}
	}
}

func TestLogind(t *testing.T) {
	t.Run("HoldsALockUntilTheDaemonIsReady", func(t *testing.T) {
		dial := bus(t)
		logind := startLogind(t, dial)
		notices, _ := listenTo(t, dial)
		lock := logind.next()
		logind.held(lock)
		logind.prepare(true)
		n := nextNotice(t, notices)
		if !n.Down || n.Within != 7*time.Second-delayMargin || n.By != "logind" {
			t.Errorf("told %+v", n)
		}
		n.Done()
		logind.let(lock)
		n.Done() // again is no harm
	})
	t.Run("TakesAnotherWhenItIsCalledOff", func(t *testing.T) {
		dial := bus(t)
		logind := startLogind(t, dial)
		notices, _ := listenTo(t, dial)
		first := logind.next()
		logind.prepare(true)
		down := nextNotice(t, notices)
		down.Done()
		logind.let(first)
		logind.prepare(false)
		if n := nextNotice(t, notices); n.Down {
			t.Errorf("told %+v", n)
		}
		second := logind.next()
		down.Done() // late: of the first shutdown
		logind.held(second)
	})
	t.Run("TakesAnotherFromANewLogind", func(t *testing.T) {
		dial := bus(t)
		old := startLogind(t, dial)
		notices, _ := listenTo(t, dial)
		first := old.next()
		fresh := startLogind(t, dial)
		second := fresh.next()
		old.let(first)
		fresh.prepare(true)
		nextNotice(t, notices).Done()
		fresh.let(second)
	})
	t.Run("HearsOfAShutdownThatIsUnderWay", func(t *testing.T) {
		dial := bus(t)
		logind := startLogind(t, dial)
		logind.set(true)
		notices, _ := listenTo(t, dial)
		if n := nextNotice(t, notices); !n.Down {
			t.Errorf("told %+v", n)
		}
		logind.prepare(true) // the signal comes late: it is one shutdown
		logind.prepare(false)
		if n := nextNotice(t, notices); n.Down {
			t.Errorf("told %+v, of one shutdown twice", n)
		}
	})
	t.Run("FindsALogindThatComesLater", func(t *testing.T) {
		dial := bus(t)
		listenTo(t, dial)
		logind := startLogind(t, dial)
		logind.held(logind.next())
	})
	t.Run("IsSilentAboutABusThatStaysAway", func(t *testing.T) {
		dialled := make(chan struct{}, 100)
		_, log := listenTo(t, func(context.Context) (*dbus.Conn, error) {
			dialled <- struct{}{}
			return nil, errors.New("no such file")
		})
		<-dialled
		<-dialled // the first was said by then
		if n := strings.Count(log.String(), "no word from logind"); n != 1 {
			t.Errorf("it is said %d times", n)
		}
	})
}

// On a host with systemd, whatever it answers is an answer.
func TestStoppingAsksSystemd(t *testing.T) {
	if _, err := os.Stat("/run/systemd/private"); err != nil {
		t.Skip("systemd is not PID 1 here: run this test on a host of the lab")
	}
	if stopping, err := Stopping(t.Context()); err != nil || stopping {
		t.Errorf("%t, %v, and this host runs", stopping, err)
	}
}
