package power

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/godbus/dbus/v5"

	"gpuqd/daemon/systembus"
)

// askWithin bounds the question to systemd: it has much to do then.
const askWithin = 2 * time.Second

// Stopping reports whether the whole system is going down, as systemd sees it:
// from the moment on in which the shutdown is queued, before anything is stopped.
func Stopping(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	// systemd itself can be asked until the very end, when the message bus may have
	// been stopped already.
	conn, err := systembus.Systemd(ctx)
	if err != nil {
		var busErr error
		if conn, busErr = systembus.Bus(ctx); busErr != nil {
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
