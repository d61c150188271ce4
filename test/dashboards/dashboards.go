// Package dashboards asks a live Prometheus and a live Loki every query of gpuqd's
// Grafana dashboards, as Grafana would, and says which show nothing.
//
// Grafana itself is not needed. What it would fill in is filled in here: variables with
// values that the servers have, and its own ($__rate_interval, $__range, ...) for the
// time that is looked at. The dashboards' own module, test/tools/dashboards, checks what
// can be checked without servers.
package dashboards

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Dir is where the dashboards are in a checkout.
const Dir = "ansible/roles/grafana/files/dashboards"

// Query is one query of one panel.
type Query struct {
	Board, Panel, Ref string // the dashboard's uid, the panel's title, the query's letter
	Expr              string // with Grafana's variables
	Loki              bool   // else it is for Prometheus
	Instant           bool
	// Quiet is what the panel says where it is empty, which is then good news; "" where it
	// never should be.
	Quiet string
}

func (q Query) String() string { return fmt.Sprintf("%s: %q, query %s", q.Board, q.Panel, q.Ref) }

// variable is a choice above a dashboard.
type variable struct {
	name     string
	values   string // the PromQL of label_values(...); "" for a box to type into
	allValue string // what "All" stands for, where that is a choice
}

// board is what is read of a dashboard's file.
type board struct {
	uid       string
	variables []variable
	queries   []Query
}

// The parts of Grafana's form that matter here.
type (
	boardFile struct {
		UID        string
		Panels     []panelFile
		Templating struct{ List []variableFile }
	}
	panelFile struct {
		Title   string
		Panels  []panelFile // of a row that is folded up
		Targets []struct {
			RefID      string
			Expr       string
			Instant    bool
			QueryType  string
			Datasource struct{ UID string }
		}
		FieldConfig struct{ Defaults struct{ NoValue string } }
	}
	variableFile struct {
		Name, Type, Definition, AllValue string
	}
)

func read(dir string) ([]board, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("there are no dashboards in %s", dir)
	}
	var boards []board
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var file boardFile
		if err := json.Unmarshal(content, &file); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		b, err := file.board()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		boards = append(boards, b)
	}
	return boards, nil
}

func (f boardFile) board() (board, error) {
	b := board{uid: f.UID}
	for _, v := range f.Templating.List {
		values, ok := strings.CutPrefix(v.Definition, "label_values(")
		switch {
		case v.Type == "textbox":
			b.variables = append(b.variables, variable{name: v.Name})
		case v.Type == "query" && ok:
			b.variables = append(b.variables, variable{v.Name, strings.TrimSuffix(values, ")"), v.AllValue})
		default:
			return b, fmt.Errorf("variable %s: neither a box nor label_values(...) of Prometheus", v.Name)
		}
	}
	return b, b.add(f.Panels)
}

func (b *board) add(panels []panelFile) error {
	for _, p := range panels {
		for _, t := range p.Targets {
			q := Query{
				Board: b.uid, Panel: p.Title, Ref: t.RefID, Expr: t.Expr,
				Instant: t.Instant || t.QueryType == "instant", Quiet: p.FieldConfig.Defaults.NoValue,
			}
			switch t.Datasource.UID {
			case "gpuq-prometheus":
			case "gpuq-loki":
				q.Loki = true
			default:
				return fmt.Errorf("%s: no data source %q", q, t.Datasource.UID)
			}
			b.queries = append(b.queries, q)
		}
		if err := b.add(p.Panels); err != nil {
			return err
		}
	}
	return nil
}

// Quiet returns the panels that say what it means when they are empty: no warnings, no
// failures. Where nothing has gone wrong they are, and Live.Allowed is to have them.
func Quiet(dir string) ([]Allowed, error) {
	boards, err := read(dir)
	if err != nil {
		return nil, err
	}
	var allowed []Allowed
	for _, b := range boards {
		for _, q := range b.queries {
			if q.Quiet != "" {
				allowed = append(allowed, Allowed{q.Board, q.Panel, q.Ref, q.Quiet})
			}
		}
	}
	return allowed, nil
}
