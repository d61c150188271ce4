// Package gpucheck is behind make gpu-check: it tries on real GPUs what the tests
// can only try on made-up ones. It drives the parts of gpuqd that touch a device, as
// they are shipped, and compares what they say with nvidia-smi and with a CUDA
// program:
//
//	nvidia-smi ─────────────────────────────────────────▶ compare
//	gpuqd-device ─▶ device.Helper ─▶ device.Manager ────▶ compare
//	gpuq-gpu-payload ◀─ gpuqd-shim ◀─ runner.ProcessStarter
//
// There is no daemon, broker or ledger; what is written goes into a temporary
// directory. Every wait is bounded, and at the end nothing is left.
package gpucheck
