package dashboards

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Live says whom to ask, and about when.
type Live struct {
	Dir        string        // of the dashboards: Dir of a checkout
	Prometheus string        // such as http://127.0.0.1:9090
	Loki       string        // such as http://127.0.0.1:3100
	Span       time.Duration // until now; what Grafana shows
	Scrape     time.Duration // how often Prometheus scrapes
	// Values are of variables that people type in. A job's ID that is missing here is that
	// of a job that printed something in Span.
	Values map[string]string
	// Allowed are queries that may show nothing here, each with its reason.
	Allowed []Allowed
}

// Allowed is a query that may show nothing. Panel "" is all panels of the dashboard, Ref ""
// all queries of the panel.
type Allowed struct{ Board, Panel, Ref, Reason string }

func (a Allowed) matches(q Query) bool {
	return a.Board == q.Board && (a.Panel == "" || a.Panel == q.Panel) && (a.Ref == "" || a.Ref == q.Ref)
}

// Empty is a query that shows nothing, or that the server refused.
type Empty struct {
	Query Query
	Asked string // the query as it was asked last
	Err   error  // what the server says; nil where the answer was just empty
}

func (e Empty) String() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v: %s", e.Query, e.Err, e.Asked)
	}
	return fmt.Sprintf("%s: nothing: %s", e.Query, e.Asked)
}

// Check asks every query and returns those that show nothing and may not, and how many
// were asked. Where a variable lets people choose one value, each is tried until one shows
// something; where it lets them choose all, all is what is chosen.
func (l Live) Check(ctx context.Context) (empty []Empty, asked int, err error) {
	boards, err := read(l.Dir)
	if err != nil {
		return nil, 0, err
	}
	if err := l.knowsAllowed(boards); err != nil {
		return nil, 0, err
	}
	for _, b := range boards {
		choices, err := l.choices(ctx, b)
		if err != nil {
			return nil, asked, fmt.Errorf("%s: %w", b.uid, err)
		}
		for _, q := range b.queries {
			asked++
			e, shown := l.try(ctx, q, choices)
			if err := ctx.Err(); err != nil {
				return empty, asked, err
			}
			if !shown && !slices.ContainsFunc(l.Allowed, func(a Allowed) bool { return e.Err == nil && a.matches(q) }) {
				empty = append(empty, e)
			}
		}
	}
	return empty, asked, nil
}

// knowsAllowed refuses an exception that is none: of a panel that has been renamed, or
// without a reason.
func (l Live) knowsAllowed(boards []board) error {
	var errs []error
	for _, a := range l.Allowed {
		found := slices.ContainsFunc(boards, func(b board) bool { return slices.ContainsFunc(b.queries, a.matches) })
		if !found || a.Reason == "" {
			errs = append(errs, fmt.Errorf("%s: %q, query %q may be empty, but there is no such query, or no reason for it", a.Board, a.Panel, a.Ref))
		}
	}
	return errors.Join(errs...)
}

func (l Live) try(ctx context.Context, q Query, choices []map[string]string) (Empty, bool) {
	e := Empty{Query: q}
	for _, chosen := range choices {
		e.Asked, e.Err = l.fill(q.Expr, chosen)
		if e.Err != nil {
			return e, false
		}
		var shown bool
		if shown, e.Err = l.ask(ctx, q, e.Asked); shown || e.Err != nil {
			return e, shown
		}
	}
	return e, false
}

// choices are the ways in which people may fill in a dashboard's variables.
func (l Live) choices(ctx context.Context, b board) ([]map[string]string, error) {
	choices := []map[string]string{{}}
	for _, v := range b.variables {
		var next []map[string]string
		for _, chosen := range choices {
			values, err := l.values(ctx, v, chosen)
			if err != nil {
				return nil, fmt.Errorf("variable %s: %w", v.name, err)
			}
			for _, value := range values {
				more := map[string]string{v.name: value}
				for name, earlier := range chosen {
					more[name] = earlier
				}
				next = append(next, more)
			}
		}
		choices = next
	}
	return choices, nil
}

func (l Live) values(ctx context.Context, v variable, chosen map[string]string) ([]string, error) {
	if v.values == "" {
		value := l.Values[v.name]
		if value != "" {
			return []string{value}, nil
		}
		if v.name != "job" {
			return nil, errors.New("people type it in: Live.Values is to have it")
		}
		job, err := l.someJob(ctx)
		return []string{job}, err
	}
	of, err := l.fill(v.values, chosen)
	if err != nil {
		return nil, err
	}
	comma := strings.LastIndex(of, ",")
	if comma < 0 {
		return nil, fmt.Errorf("label_values(%s) has no label", of)
	}
	values, err := l.labelValues(ctx, strings.TrimSpace(of[:comma]), strings.TrimSpace(of[comma+1:]))
	if err != nil {
		return nil, err
	}
	if len(values) == 0 {
		return nil, fmt.Errorf("label_values(%s) is empty", of)
	}
	if v.allValue != "" {
		return []string{v.allValue}, nil
	}
	return values, nil
}

var variableUse = regexp.MustCompile(`\$(?:(\w+)|\{(\w+)\})`)

// fill replaces Grafana's variables in a query.
//
// Source of the built-in ones: Grafana's manual, "Global variables" and, for
// $__rate_interval, "Prometheus query editor": four scrapes at least.
func (l Live) fill(expr string, chosen map[string]string) (string, error) {
	interval := max(l.Scrape, l.Span/200)
	builtIn := map[string]time.Duration{
		"__interval":      interval,
		"__rate_interval": max(interval+l.Scrape, 4*l.Scrape),
		"__range":         l.Span,
	}
	var errs []error
	filled := variableUse.ReplaceAllStringFunc(expr, func(use string) string {
		name := strings.Trim(use, "${}")
		if value, ok := chosen[name]; ok {
			return value
		}
		if d, ok := builtIn[name]; ok {
			return strconv.Itoa(int(d/time.Millisecond)) + "ms"
		}
		errs = append(errs, fmt.Errorf("nothing fills in %s", use))
		return use
	})
	return filled, errors.Join(errs...)
}
