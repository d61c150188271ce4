package logql

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/prometheus/prometheus/model/labels"
)

// Of what the agents send (docs/monitoring.md), the labels and the structured metadata.
var (
	streamLabels = []string{"job", "host", "level"}
	metadata     = []string{"job_id", "attempt", "submitter", "device_uuid", "identifier", "unit"}
)

// filled are values for Grafana's variables, of which some must parse as durations.
var filled = strings.NewReplacer("$__range", "6h", "$__interval", "15s", "$__auto", "15s", "$", "")

// query is one of Loki's in a dashboard, or in a page of the documentation.
type query struct{ where, expr string }

func ofDashboards(t *testing.T) []query {
	t.Helper()
	paths, err := filepath.Glob("../../../ansible/roles/grafana/files/dashboards/*.json")
	if err != nil {
		t.Fatal(err)
	}
	var queries []query
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var board struct {
			Panels []struct {
				Title   string
				Targets []struct {
					Expr       string
					Datasource struct{ Type string }
				}
			}
		}
		if err := json.Unmarshal(content, &board); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, p := range board.Panels {
			for _, target := range p.Targets {
				if target.Datasource.Type == "loki" {
					queries = append(queries, query{filepath.Base(path) + ": " + p.Title, filled.Replace(target.Expr)})
				}
			}
		}
	}
	return queries
}

func TestQueriesOfDashboardsAreRight(t *testing.T) {
	queries := ofDashboards(t)
	if len(queries) < 5 {
		t.Fatalf("only %d queries of Loki were found", len(queries))
	}
	for _, q := range queries {
		if err := check(q.expr); err != nil {
			t.Errorf("%s: %v: %s", q.where, err, q.expr)
		}
	}
}

func TestWrongQueriesAreFound(t *testing.T) {
	for _, expr := range []string{
		`{job="workers"} | job_id=`,
		`{job="workers", job_id="x"}`,                                           // metadata is no label of streams
		`{job="workers"} | jobid="x"`,                                           // no such field
		`sum by (hosts) (count_over_time({job="workers"} [5m]))`,                // no such label
		`sum by (host) (count_over_time({job="workers"} | identifir="x" [5m]))`, // in a metric, too
		`rate({host="$host"})`,                                                  // no range
		`{level="error"}`,                                                       // every stream of everything
	} {
		if check(filled.Replace(expr)) == nil {
			t.Errorf("nothing is wrong with %s", expr)
		}
	}
}

// check parses a query and looks whether there is what it selects and groups by: Loki
// answers a label that does not exist with nothing.
func check(expr string) error {
	parsed, err := syntax.ParseExpr(expr)
	if err != nil {
		return err
	}
	var wrong []string
	complain := func(form string, args ...any) { wrong = append(wrong, fmt.Sprintf(form, args...)) }
	known := slices.Concat(streamLabels, metadata)
	// What a parser takes out of the line itself comes before what uses it.
	parsed.Walk(func(e syntax.Expr) bool {
		if e, ok := e.(*syntax.LogfmtExpressionParserExpr); ok {
			for _, taken := range e.Expressions {
				known = append(known, taken.Identifier)
			}
		}
		return true
	})
	parsed.Walk(func(e syntax.Expr) bool {
		switch e := e.(type) {
		case *syntax.MatchersExpr:
			hasJob := false
			for _, m := range e.Matchers() {
				hasJob = hasJob || m.Name == "job" && m.Type == labels.MatchEqual
				if !slices.Contains(streamLabels, m.Name) {
					complain("streams have no label %q", m.Name)
				}
			}
			if !hasJob {
				complain("it does not choose a job, so that it reads all logs")
			}
		case *syntax.LabelFilterExpr:
			for _, name := range e.RequiredLabelNames() {
				if !slices.Contains(known, name) {
					complain("lines have no %q", name)
				}
			}
		case *syntax.VectorAggregationExpr:
			for _, name := range e.Grouping.Groups {
				if !slices.Contains(known, name) {
					complain("there is no label %q to group by", name)
				}
			}
		}
		return true
	})
	if len(wrong) > 0 {
		return fmt.Errorf("%s", strings.Join(wrong, "; "))
	}
	return nil
}
