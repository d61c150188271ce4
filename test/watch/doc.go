// Package watch tries monitoring end to end: a local cluster with real Prometheus,
// Alertmanager, Loki, and for each worker a real journald, Promtail and node exporter.
// `make e2e/monitoring` runs its tests, which need GPUQ_WATCH=1.
//
// Start is for tests of other packages, too, such as those that provoke alerts.
package watch
