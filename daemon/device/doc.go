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
// What the driver says is trusted only as long as it keeps saying it: a source
// that falls silent makes all its devices sick.
//
// The wire types are shared with gpuqd-device, so this package keeps its imports
// few.
package device
