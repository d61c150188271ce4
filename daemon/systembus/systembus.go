// Package systembus makes connections to the system's message bus and to systemd,
// which never take longer than a bound: one that hangs accepts connections still.
package systembus

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/godbus/dbus/v5"
)

// systemdSocket is systemd's own: root can speak to it while there is no message
// bus, which is so before it is started and after it is stopped.
const systemdSocket = "unix:path=/run/systemd/private"

// greetWait bounds the greeting of a connection.
const greetWait = 5 * time.Second

// Bus connects to the system's message bus. The connection is closed when ctx ends.
func Bus(ctx context.Context) (*dbus.Conn, error) {
	conn, err := dbus.SystemBusPrivate(dbus.WithContext(ctx))
	return greeted(ctx, "the system's message bus", conn, err, true)
}

// BusAt is Bus for a message bus of another address, as D-Bus writes it.
func BusAt(ctx context.Context, address string) (*dbus.Conn, error) {
	conn, err := dbus.Dial(address, dbus.WithContext(ctx))
	return greeted(ctx, "the message bus "+address, conn, err, true)
}

// Systemd connects to systemd itself, which root alone may. It answers there as on
// a bus, and nobody else does. The connection is closed when ctx ends.
func Systemd(ctx context.Context) (*dbus.Conn, error) {
	conn, err := dbus.Dial(systemdSocket, dbus.WithContext(ctx))
	return greeted(ctx, "systemd's own socket", conn, err, false)
}

func greeted(ctx context.Context, what string, conn *dbus.Conn, err error, hello bool) (*dbus.Conn, error) {
	if err == nil {
		err = greet(ctx, conn, hello, greetWait)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", what, err)
	}
	return conn, nil
}

// greet makes a new connection ready for calls, or closes it; hello is for a bus.
// The library waits without a bound for what the other end says.
func greet(ctx context.Context, conn *dbus.Conn, hello bool, wait time.Duration) error {
	late := time.AfterFunc(wait, func() { _ = conn.Close() }) // ends the waiting
	// The UID by itself, since a look-up of a name would need libc.
	err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))})
	if err == nil && hello {
		err = conn.Hello()
	}
	switch {
	case ctx.Err() != nil: // it has closed the connection
		late.Stop()
		err = context.Cause(ctx)
	case !late.Stop():
		err = fmt.Errorf("no greeting within %s; see whether it hangs", wait)
	}
	if err != nil {
		_ = conn.Close() // nothing was asked through it
	}
	return err
}
