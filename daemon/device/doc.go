// Package device knows the devices of this host: which there are, which attempt
// holds each, and which must take no work and why.
//
// A Source delivers reports; the Manager keeps the one picture of the host and
// grants devices to attempts:
//
//	gpuqd-device ──JSON lines──▶ Helper ──┐
//	                                      ├─Report─▶ Manager ◀── Acquire, Release, Adopt, Cordon
//	              configuration ▶ Simulated┘              └────▶ Snapshot, Free, Changed
//
// Simulated's faults come from the configuration and, by Inject, from operators.
//
// A device's state is derived from what is known of it and is never set: what the
// last inventory said, quarantines (health.go; statefile.go keeps them), the check
// that nothing of an attempt is left (check.go), the breaker, the cordon and the
// holders. Looks ask the source for an inventory at once. What has happened to an
// attempt's devices while it had them is its Faults; what must end it is an Alarm.
//
// What the driver says is trusted only as long as it keeps saying it: a source
// that falls silent makes all its devices sick.
//
// The wire types are shared with gpuqd-device, so this package keeps its imports
// few.
package device
