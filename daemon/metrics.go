package main

import (
	"runtime"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/dedup"
	"gpuqd/daemon/journald"
	"gpuqd/daemon/version"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// meters are the metrics of the parts that main wires. The agent has its own.
// The parts know no Prometheus, since gpuqctl and gpuqd-shim are made of some of
// them: they tell, or are asked, and the names are here. docs/metrics.md lists all.
type meters struct {
	registry              *prometheus.Registry
	broker, ledger, cache operations
	syncs                 prometheus.Histogram
	loaded                prometheus.Gauge
	predecessor           *prometheus.GaugeVec // by how it ended
	entries               *journald.Sender     // of the log; nil where it does not go to journald
}

// operations count and time what a part does, by operation and result.
type operations struct{ *prometheus.HistogramVec }

// observe takes one operation in.
func (o operations) observe(operation, result string, took time.Duration) {
	o.WithLabelValues(operation, result).Observe(took.Seconds())
}

// operationBuckets are of one question to a server, or one sync of a disk, in seconds.
var operationBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

func newMeters(build version.Info) *meters {
	m := &meters{
		registry: prometheus.NewRegistry(),
		broker:   newOperations("gpuqd_broker_operation_duration_seconds", "Time of operations on the broker, by operation and result; a publish lasts until its confirm."),
		ledger:   newOperations("gpuqd_ledger_operation_duration_seconds", "Time of operations on the ledger's store, by operation and result."),
		cache:    newOperations("gpuqd_done_cache_operation_duration_seconds", "Time of questions to Redis, by operation and result."),
		syncs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gpuqd_journal_sync_duration_seconds", Help: "Time of each fsync that the daemon waited for in its journal.", Buckets: operationBuckets,
		}),
	}
	m.loaded = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "gpuqd_config_loaded_timestamp_seconds", Help: "When this daemon last read its configuration without finding a mistake.",
	})
	m.predecessor = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gpuqd_predecessor", Help: "1 for how the daemon before this one ended.",
	}, []string{"end"})
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.broker, m.ledger, m.cache, m.syncs,
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "gpuqd_log_entries_dropped_total", Help: "Entries of the daemon's log that journald did not take.",
		}, m.entriesDropped),
		constant("gpuqd_build_info", "Constant 1, with the build of this daemon.", 1, prometheus.Labels{
			"version": build.Version, "commit": build.Commit, "go_version": runtime.Version(),
		}),
		m.loaded, m.predecessor,
	)
	m.loaded.SetToCurrentTime()
	return m
}

func newOperations(name, help string) operations {
	return operations{prometheus.NewHistogramVec(
		prometheus.HistogramOpts{Name: name, Help: help, Buckets: operationBuckets}, []string{"operation", "result"})}
}

// constant is a gauge that never changes.
func constant(name, help string, value float64, labels prometheus.Labels) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels})
	g.Set(value)
	return g
}

func (m *meters) entriesDropped() float64 {
	if m.entries == nil {
		return 0
	}
	return float64(m.entries.Dropped())
}

// observePredecessor tells how the daemon before this one ended.
func (m *meters) observePredecessor(last end) {
	for _, e := range ends {
		m.predecessor.WithLabelValues(string(e)).Set(number(e == last))
	}
}

// observeSync takes the time of one fsync in.
func (m *meters) observeSync(took time.Duration) { m.syncs.Observe(took.Seconds()) }

// standing is the collector of how the connections to broker and Redis stand.
type standing struct {
	connections func() []broker.Connection
	circuits    func() []dedup.Circuit
}

var _ prometheus.Collector = standing{}

// What standing tells.
var (
	connectionUp = prometheus.NewDesc("gpuqd_broker_connected",
		"1 while a connection to the broker is up.", []string{"connection"}, nil)
	connectionBlocked = prometheus.NewDesc("gpuqd_broker_blocked",
		"1 while the broker accepts no messages on a connection, for a memory or disk alarm.", []string{"connection"}, nil)
	connectionsLost = prometheus.NewDesc("gpuqd_broker_connections_lost_total",
		"Connections to the broker that were lost.", []string{"connection"}, nil)
	circuitOpen = prometheus.NewDesc("gpuqd_done_cache_circuit_open",
		"1 while Redis is not asked, for reads or writes, since it failed.", []string{"circuit"}, nil)
)

// Describe implements prometheus.Collector.
func (s standing) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{connectionUp, connectionBlocked, connectionsLost, circuitOpen} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (s standing) Collect(to chan<- prometheus.Metric) {
	for _, c := range s.connections() {
		to <- prometheus.MustNewConstMetric(connectionUp, prometheus.GaugeValue, number(c.Up), c.Name)
		to <- prometheus.MustNewConstMetric(connectionBlocked, prometheus.GaugeValue, number(c.Blocked), c.Name)
		to <- prometheus.MustNewConstMetric(connectionsLost, prometheus.CounterValue, float64(c.Lost), c.Name)
	}
	for _, c := range s.circuits() {
		to <- prometheus.MustNewConstMetric(circuitOpen, prometheus.GaugeValue, number(c.Open), c.Name)
	}
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
