package agent

import "github.com/prometheus/client_golang/prometheus"

// The zero values of the types below count nothing: an agent without a
// Registerer pays for no metrics.

type counter struct{ c prometheus.Counter }

// Inc adds one.
func (c counter) Inc() { c.Add(1) }

// Add adds n, which is not negative.
func (c counter) Add(n float64) {
	if c.c != nil {
		c.c.Add(n)
	}
}

type counters struct{ v *prometheus.CounterVec }

// WithLabelValues returns the counter of these values of the labels.
func (c counters) WithLabelValues(values ...string) counter {
	if c.v == nil {
		return counter{}
	}
	return counter{c.v.WithLabelValues(values...)}
}

type gauge struct{ g prometheus.Gauge }

// Set makes v the value.
func (g gauge) Set(v float64) {
	if g.g != nil {
		g.g.Set(v)
	}
}

type gauges struct{ v *prometheus.GaugeVec }

// WithLabelValues returns the gauge of these values of the labels.
func (g gauges) WithLabelValues(values ...string) gauge {
	if g.v == nil {
		return gauge{}
	}
	return gauge{g.v.WithLabelValues(values...)}
}

// Forget removes the gauges of all values: nothing is told until they are set anew.
func (g gauges) Forget() {
	if g.v != nil {
		g.v.Reset()
	}
}

type histogram struct{ h prometheus.Histogram }

// Observe takes v in.
func (h histogram) Observe(v float64) {
	if h.h != nil {
		h.h.Observe(v)
	}
}

// Bounds of histograms, in seconds.
var (
	// shortBuckets are of steps that a job waits for.
	shortBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	// longBuckets are of what lasts as long as jobs do: 1 ms to 7 days.
	longBuckets = []float64{
		.001, .005, .01, .05, .1, .5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600,
		24 * 3600, 3 * 24 * 3600, 7 * 24 * 3600,
	}
)

// register makes metrics and registers them.
type register struct{ prometheus.Registerer }

func (r register) counter(name, help string) counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	r.MustRegister(c)
	return counter{c}
}

// counters makes a counter per value of a label. The values that are known
// beforehand are shown as 0 before the first.
func (r register) counters(name, help, label string, values ...string) counters {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	r.MustRegister(c)
	for _, v := range values {
		c.WithLabelValues(v)
	}
	return counters{c}
}

func (r register) gauge(name, help string) gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	r.MustRegister(g)
	return gauge{g}
}

func (r register) gauges(name, help, label string) gauges {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{label})
	r.MustRegister(g)
	return gauges{g}
}

func (r register) histogram(name, help string, buckets []float64) histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	r.MustRegister(h)
	return histogram{h}
}
