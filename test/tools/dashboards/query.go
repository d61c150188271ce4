package main

import (
	"fmt"
	"slices"
	"strings"
)

// promql is an expression in PromQL, logql one in LogQL. They are types so that a
// query cannot be sent to the wrong data source.
type (
	promql string
	logql  string
)

// metric is a selector: a metric's name, and matchers such as `host="$host"`.
func metric(name string, matchers ...string) promql {
	if len(matchers) == 0 {
		return promql(name)
	}
	return promql(name + "{" + strings.Join(matchers, ",") + "}")
}

// by is the clause that keeps labels; without any it is nothing.
func by(labels []string) string {
	if len(labels) == 0 {
		return ""
	}
	return " by (" + strings.Join(labels, ", ") + ")"
}

// ratePerSecond is how much a counter grows in a second, added up over all its series but
// for the labels. What a graph shows at a point is the mean of at least four scrapes.
func ratePerSecond(counter promql, labels ...string) promql {
	return promql(fmt.Sprintf("sum%s (rate(%s[$__rate_interval]))", by(labels), counter))
}

// increase is how much a counter has grown in all of the time that the dashboard shows.
// Prometheus extrapolates to the ends of that time: it may be a fraction.
func increase(counter promql, labels ...string) promql {
	return promql(fmt.Sprintf("sum%s (increase(%s[$__range]))", by(labels), counter))
}

// recently is the time that a quantile or mean of durations looks back: jobs are few, and
// over less than this there would be gaps.
const recently = "10m"

// quantile is how long the q-th part of what a histogram counted lately took at most.
// histogram is its name without _bucket. Where nothing was counted there is no point.
func quantile(q float64, histogram promql, labels ...string) promql {
	name, matchers, _ := strings.Cut(string(histogram), "{")
	if matchers != "" {
		matchers = "{" + matchers
	}
	return promql(fmt.Sprintf("histogram_quantile(%g, sum%s (rate(%s_bucket%s[%s])))",
		q, by(slices.Concat([]string{"le"}, labels)), name, matchers, recently))
}

// sumOf adds a gauge up over all its series but for the labels; maxOf and minOf take the
// greatest and the least. What everybody reports of the same thing, as depths of queues
// are, has a maxOf by that thing and no sumOf.
func sumOf(gauge promql, labels ...string) promql { return aggregate("sum", gauge, labels) }
func maxOf(gauge promql, labels ...string) promql { return aggregate("max", gauge, labels) }
func minOf(gauge promql, labels ...string) promql { return aggregate("min", gauge, labels) }

func aggregate(operator string, of promql, labels []string) promql {
	return promql(fmt.Sprintf("%s%s (%s)", operator, by(labels), of))
}

// over is a quotient of sums; where the divisor is 0 there is no point.
func over(part, whole promql) promql {
	return promql(fmt.Sprintf("(%s) / (%s > 0)", part, whole))
}

// orZero is 0 where an expression has nothing to show although it could have: as long as
// a target of the job answers. When all are down the panel is empty, which is not 0.
func orZero(e promql, job string) promql {
	return promql(fmt.Sprintf("(%s) or on () (0 * count(up{job=%q} == 1))", e, job))
}

// orNone is orZero for a list by a label: one series with "none" in its place.
func orNone(e promql, job, label string) promql {
	return promql(fmt.Sprintf("(%s) or on () label_replace(0 * count(up{job=%q} == 1), %q, \"none\", \"\", \"\")", e, job, label))
}

// query is what a panel asks, of Prometheus or of Loki.
type query struct {
	prom    promql
	logs    logql
	legend  string // {{label}} for a label's value
	instant bool   // only now, not over time
}

// as makes a query whose series are called legend.
func (e promql) as(legend string) query { return query{prom: e, legend: legend} }
func (e logql) as(legend string) query  { return query{logs: e, legend: legend} }

// now makes a query that asks for the present alone: a row for each series in a table.
func (e promql) now() query { return query{prom: e, instant: true} }
func (e logql) now() query  { return query{logs: e, instant: true} }
