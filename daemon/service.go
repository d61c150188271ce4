package main

import (
	"fmt"
	"os"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// service is the service manager, as far as one is there.
type service struct {
	notify   func(state string) // nil where nobody listens
	watchdog time.Duration      // 0 where it does not wait for signs of life
}

// underSystemd returns the service manager that started this process.
//
// Source: sd_notify(3), sd_watchdog_enabled(3).
func underSystemd() (service, error) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return service{}, nil
	}
	watchdog, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		return service{}, fmt.Errorf("read the service manager's watchdog: %w", err)
	}
	return service{
		notify:   func(state string) { _, _ = sd.SdNotify(false, state) }, // a lost one is made up for by the next
		watchdog: watchdog,
	}, nil
}

// reloading says that the settings are read again.
func (s service) reloading() {
	if s.notify == nil {
		return
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return // no kernel without that clock runs systemd
	}
	s.notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}

// ready says that they were read.
func (s service) ready() {
	if s.notify != nil {
		s.notify("READY=1")
	}
}
