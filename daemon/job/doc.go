// Package job holds what a job is: its spec, identity, shape, states with the
// table of legal transitions, failure classes and the retry decision. It is
// pure (no clock, no I/O) and imports nothing else of gpuqd.
package job
