package systemd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"

	"gpuqd/daemon/systembus"
)

// bus speaks to systemd. Its connection is made when it is first needed, and made
// again when it is lost: the message bus may be restarted, and systemd drops its
// connections whenever it executes itself again.
//
// Of signals it knows nothing: they are lost with a connection. What is waited for
// is looked for.
type bus struct {
	dial     func() (*dbus.Conn, error)
	callWait time.Duration // bounds one call

	mu     sync.Mutex
	link   *link // nil: none, or given up
	closed bool
}

// link is a connection, and how many calls are under way on it.
type link struct {
	*dbus.Conn
	calls int  // bus.mu guards it
	spent bool // no more calls: it is closed after the last. bus.mu guards it
}

func newBus() *bus { return &bus{dial: dialSystemd, callWait: callWait} }

const (
	systemdName = "org.freedesktop.systemd1"
	systemdPath = dbus.ObjectPath("/org/freedesktop/systemd1")
	managerCall = systemdName + ".Manager."
)

const (
	// callWait is for systemd, which answers in milliseconds, and for seconds not at all
	// while it executes itself again.
	callWait = 20 * time.Second
	// busWait bounds the trying while the bus is away.
	busWait = 15 * time.Second
	busTick = 50 * time.Millisecond
)

// errSlow: systemd has not answered in time. It may still do what it was asked.
var errSlow = fmt.Errorf("systemd gives no answer within %s; see whether the host is overloaded", callWait)

// errUnitExists: systemd has a unit of that name loaded.
var errUnitExists = errors.New("a unit of that name is there already")

// take returns the connection for one call, making it where there is none; give
// takes it back.
func (b *bus) take() (*link, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errors.New("the starter is closed")
	}
	if b.link == nil || !b.link.Connected() {
		conn, err := b.dial()
		if err != nil {
			return nil, err
		}
		b.link = &link{Conn: conn}
	}
	b.link.calls++
	return b.link, nil
}

// give takes a connection back after a call that returned err. One that is lost is
// closed. So is one that gave no answer in time, but only once the other calls on
// it have theirs: it may be the bus that hangs, which the next connection goes
// around, or systemd that is slow, and then their answers come.
func (b *bus) give(l *link, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l.calls--
	lost := isLost(err)
	if lost || errors.Is(err, errSlow) {
		l.spent = true
		if b.link == l {
			b.link = nil
		}
	}
	if lost || l.spent && l.calls == 0 {
		_ = l.Close() // it may be closed already; nothing is asked through it any more
	}
}

// dialSystemd connects to the bus or, where that cannot be, to systemd itself. The
// connection lasts until it is closed.
func dialSystemd() (*dbus.Conn, error) {
	conn, err := systembus.Bus(context.Background())
	if err == nil || os.Geteuid() != 0 {
		return conn, err
	}
	conn, directErr := systembus.Systemd(context.Background())
	if directErr != nil {
		return nil, errors.Join(err, directErr)
	}
	return conn, nil
}

func (b *bus) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.link == nil {
		return nil
	}
	err := b.link.Close()
	b.link = nil
	if errors.Is(err, net.ErrClosed) || errors.Is(err, dbus.ErrClosed) {
		return nil
	}
	return err
}

// call calls a method until it is answered: while the bus is away it waits for it,
// within a bound. Where a connection is lost in the middle the method may have been
// carried out, and is called again; lost reports that.
func (b *bus) call(ctx context.Context, path dbus.ObjectPath, method string, into []any, args ...any) (lost bool, err error) {
	for end := time.Now().Add(busWait); ; {
		l, err := b.take()
		if err == nil {
			err = b.callOnce(ctx, l.Conn, path, method, into, args)
			b.give(l, err)
			if !isLost(err) {
				return lost, err
			}
			lost = true
		}
		if ctx.Err() != nil {
			return lost, context.Cause(ctx)
		}
		if time.Now().After(end) {
			return lost, err
		}
		if err := sleep(ctx, busTick); err != nil {
			return lost, err
		}
	}
}

func (b *bus) callOnce(ctx context.Context, conn *dbus.Conn, path dbus.ObjectPath, method string, into, args []any) error {
	bounded, cancel := context.WithTimeout(ctx, b.callWait)
	defer cancel()
	// While systemd is off the bus, as when it executes itself again, the bus would
	// start it: with a program that only fails, and an error that says no more.
	err := conn.Object(systemdName, path).CallWithContext(bounded, method, dbus.FlagNoAutoStart, args...).Store(into...)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		return errSlow
	}
	return err
}

// isLost reports whether an error says that the other end went away, so that the
// call may or may not have been carried out.
func isLost(err error) bool {
	for _, lost := range []error{dbus.ErrClosed, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, lost) {
			return true
		}
	}
	switch errorName(err) {
	case "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected",
		"org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner",
		"org.freedesktop.DBus.Error.TimedOut", "org.freedesktop.DBus.Error.Timeout":
		return true
	}
	return false
}

func errorName(err error) string {
	var answer dbus.Error
	if errors.As(err, &answer) {
		return answer.Name
	}
	var pointer *dbus.Error
	if errors.As(err, &pointer) {
		return pointer.Name
	}
	return ""
}

// startTransient starts a unit. It returns errUnitExists where one of that name is
// loaded, whoever's it is; a unit that the same call made before its connection
// was lost is none of these, and fine.
func (b *bus) startTransient(ctx context.Context, name string, props []property) error {
	var job dbus.ObjectPath
	type auxiliary struct {
		Name  string
		Props []property
	}
	lost, err := b.call(ctx, systemdPath, managerCall+"StartTransientUnit", []any{&job}, name, "fail", props, []auxiliary{})
	if errorName(err) == systemdName+".UnitExists" {
		if lost {
			return nil // very likely this one: else no word comes from it
		}
		err = errUnitExists
	}
	if err != nil {
		return fmt.Errorf("start unit %s: %w", name, err)
	}
	return nil
}

// unitState is what systemd knows of a unit now.
type unitState struct {
	LoadState    string // loaded, or not-found for one that ended, or never was
	ActiveState  string // active, activating, deactivating, inactive, failed ...
	InvocationID string // of its latest start, in hex
	Queued       bool   // a start, or another job of systemd's, is still to come
}

// Loaded reports whether systemd has the unit in memory.
func (u unitState) Loaded() bool { return u.LoadState == "loaded" }

// gone reports whether nothing runs in the unit, nor will.
func (u unitState) gone() bool {
	return !u.Loaded() || !u.Queued && (u.ActiveState == "inactive" || u.ActiveState == "failed")
}

// unit returns the state of a unit.
func (b *bus) unit(ctx context.Context, name string) (unitState, error) {
	path := unitPath(name)
	var u map[string]dbus.Variant
	_, err := b.call(ctx, path, "org.freedesktop.DBus.Properties.GetAll", []any{&u}, systemdName+".Unit")
	if err != nil {
		return unitState{}, fmt.Errorf("look at unit %s: %w", name, err)
	}
	var state unitState
	state.LoadState, _ = u["LoadState"].Value().(string)
	state.ActiveState, _ = u["ActiveState"].Value().(string)
	if id, ok := u["InvocationID"].Value().([]byte); ok {
		state.InvocationID = hex.EncodeToString(id)
	}
	if job, ok := u["Job"].Value().([]any); ok && len(job) > 0 {
		state.Queued = job[0] != uint32(0)
	}
	return state, nil
}

// mainPID returns the shim of a service, 0 where it has none now.
func (b *bus) mainPID(ctx context.Context, name string) (int, error) {
	var pid dbus.Variant
	_, err := b.call(ctx, unitPath(name), "org.freedesktop.DBus.Properties.Get", []any{&pid}, systemdName+".Service", "MainPID")
	if err != nil {
		return 0, fmt.Errorf("look at unit %s: %w", name, err)
	}
	n, _ := pid.Value().(uint32)
	return int(n), nil
}

func unitPath(name string) dbus.ObjectPath {
	return systemdPath + "/unit/" + dbus.ObjectPath(escapePath(name))
}

// resetFailed makes systemd forget a unit that has failed; it is no error where it
// has done so by itself.
func (b *bus) resetFailed(ctx context.Context, name string) error {
	_, err := b.call(ctx, systemdPath, managerCall+"ResetFailedUnit", nil, name)
	return notLoaded(fmt.Sprintf("reset unit %s", name), err)
}

// kill sends SIGKILL to all that is in a unit.
func (b *bus) kill(ctx context.Context, name string) error {
	_, err := b.call(ctx, systemdPath, managerCall+"KillUnit", nil, name, "all", int32(syscall.SIGKILL))
	return notLoaded(fmt.Sprintf("kill unit %s", name), err)
}

func notLoaded(what string, err error) error {
	if err == nil || errorName(err) == systemdName+".NoSuchUnit" {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// escapePath writes a name as an element of an object's path.
//
// Source: sd_bus_path_encode(3).
func escapePath(name string) string {
	var path []byte
	for i := range len(name) {
		c := name[i]
		if isLetter(c) || i > 0 && c >= '0' && c <= '9' {
			path = append(path, c)
		} else {
			path = fmt.Appendf(path, "_%02x", c)
		}
	}
	return string(path)
}

// escapeUnit writes text as a part of a unit's name, as systemd-escape(1) does: a
// slice's name is its place below others, with "-" between them.
func escapeUnit(text string) string {
	var name []byte
	for i := range len(text) {
		c := text[i]
		switch {
		case c == '/':
			name = append(name, '-')
		case isLetter(c) || c >= '0' && c <= '9' || c == '_' || c == ':' || c == '.' && i > 0:
			name = append(name, c)
		default:
			name = fmt.Appendf(name, `\x%02x`, c)
		}
	}
	return string(name)
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
