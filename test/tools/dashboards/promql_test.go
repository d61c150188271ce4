package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// checker finds out which labels the series of an expression have. What it finds wrong on
// the way is what Prometheus would answer with an empty result, not with an error: metrics
// and labels that do not exist, joins whose sides never match, counters shown as they are.
type checker struct {
	metrics map[string]known
	wrong   []string
}

func (c *checker) complain(form string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(form, args...))
}

// check parses an expression without variables and returns the labels of its series and
// what is wrong with it.
func check(metrics map[string]known, expr string) (labels []string, wrong []string) {
	parsed, err := parser.ParseExpr(expr)
	if err != nil {
		return nil, []string{err.Error()}
	}
	c := &checker{metrics: metrics}
	labels = c.labels(parsed, false)
	return labels, c.wrong
}

// labels returns an expression's labels, sorted. inRate is whether a counter is welcome.
func (c *checker) labels(e parser.Expr, inRate bool) []string {
	switch e := e.(type) {
	case *parser.VectorSelector:
		return c.selector(e, inRate)
	case *parser.MatrixSelector:
		return c.labels(e.VectorSelector, inRate)
	case *parser.SubqueryExpr:
		return c.labels(e.Expr, inRate)
	case *parser.ParenExpr:
		return c.labels(e.Expr, inRate)
	case *parser.UnaryExpr:
		return c.labels(e.Expr, inRate)
	case *parser.StepInvariantExpr:
		return c.labels(e.Expr, inRate)
	case *parser.AggregateExpr:
		return c.aggregate(e, inRate)
	case *parser.Call:
		return c.call(e)
	case *parser.BinaryExpr:
		return c.binary(e, inRate)
	}
	return nil
}

func (c *checker) selector(e *parser.VectorSelector, inRate bool) []string {
	k, ok := find(c.metrics, e.Name)
	if !ok {
		c.complain("no metric %q is in docs/metrics.md or test/monitoring/thirdparty", e.Name)
		return nil
	}
	// RabbitMQ and Redis have counters that say they are gauges.
	counter := k.kind == "counter" || strings.HasSuffix(e.Name, "_total")
	if counter != inRate {
		c.complain("%s is a %s: a counter is of use inside of rate and increase only, anything else outside", e.Name, k.kind)
	}
	for _, m := range e.LabelMatchers {
		if m.Name != "__name__" && !slices.Contains(k.labels, m.Name) {
			c.complain("%s has no label %q: labels.txt has those of others", e.Name, m.Name)
		}
	}
	return sorted(k.labels)
}

func (c *checker) aggregate(e *parser.AggregateExpr, inRate bool) []string {
	inner := c.labels(e.Expr, inRate)
	c.exist(inner, e.Grouping, e.String())
	if e.Without {
		return slices.DeleteFunc(inner, func(l string) bool { return slices.Contains(e.Grouping, l) })
	}
	return sorted(e.Grouping)
}

func (c *checker) call(e *parser.Call) []string {
	switch e.Func.Name {
	case "rate", "increase", "irate":
		return c.labels(e.Args[0], true)
	case "histogram_quantile":
		inner := c.labels(e.Args[1], false)
		c.exist(inner, []string{"le"}, e.String())
		return slices.DeleteFunc(inner, func(l string) bool { return l == "le" })
	case "label_replace":
		return sorted(append(c.labels(e.Args[0], false), e.Args[1].(*parser.StringLiteral).Val))
	}
	for _, arg := range e.Args {
		if t := arg.Type(); t == parser.ValueTypeVector || t == parser.ValueTypeMatrix {
			return c.labels(arg, false)
		}
	}
	return nil
}

func (c *checker) binary(e *parser.BinaryExpr, inRate bool) []string {
	left, right := c.labels(e.LHS, inRate), c.labels(e.RHS, inRate)
	if e.LHS.Type() == parser.ValueTypeScalar {
		return right
	}
	if e.RHS.Type() == parser.ValueTypeScalar {
		return left
	}
	m := e.VectorMatching
	if m.On {
		c.exist(left, m.MatchingLabels, e.String())
		c.exist(right, m.MatchingLabels, e.String())
	} else if ignore := func(l string) bool { return slices.Contains(m.MatchingLabels, l) }; !slices.Equal(
		slices.DeleteFunc(slices.Clone(left), ignore), slices.DeleteFunc(slices.Clone(right), ignore)) {
		c.complain("in %s the left side has the labels %q, the right %q: they never match", e, left, right)
	}
	switch {
	case e.Op == parser.LOR:
		return sorted(append(left, right...))
	case e.Op == parser.LAND, e.Op == parser.LUNLESS:
		return left
	case m.Card == parser.CardManyToOne:
		c.exist(right, m.Include, e.String())
		return sorted(append(left, m.Include...))
	case m.Card == parser.CardOneToMany:
		c.exist(left, m.Include, e.String())
		return sorted(append(right, m.Include...))
	case m.On:
		return sorted(m.MatchingLabels)
	}
	return left
}

func (c *checker) exist(have, wanted []string, where string) {
	for _, label := range wanted {
		if !slices.Contains(have, label) {
			c.complain("in %s there is no label %q: there are %q", where, label, have)
		}
	}
}

func sorted(labels []string) []string {
	out := slices.Clone(labels)
	slices.Sort(out)
	return slices.Compact(out)
}

func TestWrongQueriesAreFound(t *testing.T) {
	metrics := metricsThatExist(t)
	for _, expr := range []string{
		`sum(rate(gpuqd_takes_total[5m])`, // does not parse
		`sum(rate(gpuqd_takes_total))`,    // has no range
		`gpuqd_take_total`,                // no such metric
		`gpuqd_takes_total`,               // a counter as it is
		`rate(gpuqd_attempts_held[5m])`,   // a rate of a gauge
		`gpuqd_devices{status="busy"}`,    // no such label
		`sum by (queue) (gpuqd_devices)`,  // nothing to group by
		`histogram_quantile(0.5, sum by (host) (rate(gpuqd_job_wait_seconds_bucket[5m])))`, // le is lost
		`rate(gpuqd_job_wait_seconds[5m])`,                                                 // a histogram has no such series
		`gpuqd_device_processes * gpuqd_device_info`,                                       // never match: info has more labels
		`gpuqd_device_processes * on (device_uuid) group_left (name) gpuqd_device_info`,
		`sum by (host) (gpuqd_devices) / sum(gpuqd_devices)`,
	} {
		if _, wrong := check(metrics, expr); len(wrong) == 0 {
			t.Errorf("nothing is wrong with %s", expr)
		}
	}
	for expr, want := range map[string][]string{
		`gpuqd_device_processes * on (host, device_uuid) group_left (index) gpuqd_device_info`: {"device_uuid", "host", "index", "instance", "job"},
		`histogram_quantile(0.5, sum by (le, host) (rate(gpuqd_job_wait_seconds_bucket[5m])))`: {"host"},
		`sum(gpuqd_devices) or on () 0 * count(up{job="gpuqd"} == 1)`:                          nil,
		`sum by (xid) (increase(gpuqd_device_xids_total[5m]))`:                                 {"xid"},
	} {
		if labels, wrong := check(metrics, expr); len(wrong) > 0 || !slices.Equal(labels, want) {
			t.Errorf("%s has the labels %q, want %q; wrong: %q", expr, labels, want, wrong)
		}
	}
}
