// Package lab boots Debian hosts on this machine, with systemd as PID 1 and a
// network of their own, and lets tests do to them what happens to hosts: cut
// their power, cut them off, reboot them. The script lab.sh does the work and
// says what it can do; this package keeps one lab, and talks to its hosts.
//
// A lab is the only one of its user on a machine, since the base systems that it
// starts from are shared between runs: New waits for its turn.
package lab
