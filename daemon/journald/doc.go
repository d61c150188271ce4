// Package journald sends entries to systemd's journal by its native protocol:
// one datagram of fields for each entry, to a socket that journald reads.
//
// Nothing in it ever waits. What journald does not take at once, since it is
// stopped, absent or behind, is dropped and counted, and the next entry that it
// takes is preceded by one that says how many are missing. No connection is held,
// so a journald that comes back is used again by the next entry.
//
// Gpuqd-shim is linked with this package: it imports little.
//
// Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/, and sd_journal_sendv(3)
// for what to do about a socket that refuses; both tried against systemd 252.
package journald
