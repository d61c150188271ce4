// Package power hears that the host is to go down, and holds that up until the
// daemon is ready.
//
// Where there is a logind it is told by it, and holds a delay lock
// (systemd-inhibit --list shows it): logind waits for whoever holds one, for at
// most InhibitDelayMaxSec, before it has systemd stop anything. That covers
// systemctl reboot, poweroff, halt and kexec, shutdown(8), and power keys.
//
// A second line for all the rest (no logind, reboot.target started by hand, a
// container that is told to go): when the daemon is asked to end, Stopping says
// whether that is because the whole system stops.
//
// Source: https://systemd.io/INHIBITOR_LOCKS/, org.freedesktop.login1(5) and
// org.freedesktop.systemd1(5); tried against systemd 252.
package power
