package power

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/godbus/dbus/v5"
)

// systemdSocket is systemd's own: root can ask there until the very end, when the
// message bus may have been stopped already.
const systemdSocket = "unix:path=/run/systemd/private"

// askWithin bounds the question to systemd: it has much to do then.
const askWithin = 2 * time.Second

// Stopping reports whether the whole system is going down, as systemd sees it:
// from the moment on in which the shutdown is queued, before anything is stopped.
func Stopping(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	conn, err := dialSystemd(ctx)
	if err != nil {
		var busErr error
		if conn, busErr = dialBus(ctx); busErr != nil {
			return false, fmt.Errorf("ask systemd whether the system stops: %w", errors.Join(err, busErr))
		}
	}
	defer conn.Close()
	var state dbus.Variant
	err = conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1").
		CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, "org.freedesktop.systemd1.Manager", "SystemState").Store(&state)
	if err != nil {
		return false, fmt.Errorf("ask systemd whether the system stops: %w", err)
	}
	return state.Value() == "stopping", nil
}

// dialSystemd connects to systemd itself. There is no bus there to say hello to.
func dialSystemd(ctx context.Context) (*dbus.Conn, error) {
	conn, err := dbus.Dial(systemdSocket, dbus.WithContext(ctx))
	return authenticated(conn, err)
}

// dialBus connects to the system's message bus.
func dialBus(ctx context.Context) (*dbus.Conn, error) {
	conn, err := authenticated(dbus.SystemBusPrivate(dbus.WithContext(ctx)))
	if err != nil {
		return nil, err
	}
	if err := conn.Hello(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// authenticated names the user by number: a look-up of the name needs libc.
func authenticated(conn *dbus.Conn, err error) (*dbus.Conn, error) {
	if err != nil {
		return nil, err
	}
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
