package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/bargauge"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/logs"
	"github.com/grafana/grafana-foundation-sdk/go/loki"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/text"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

const root = "../../.."

func TestFilesAreWhatTheProgramMakes(t *testing.T) {
	made, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(root, installed, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		name := filepath.Base(path)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := made[name]; !ok {
			t.Errorf("%s is made by nothing: remove it", name)
		} else if !bytes.Equal(content, made[name]) {
			t.Errorf("%s is not what the program makes: make dashboards", name)
		}
		delete(made, name)
	}
	for name := range made {
		t.Errorf("%s is missing: make dashboards", name)
	}
}

// read decodes the files as strictly as Grafana's own types can: a misspelt field of a
// panel's options is an error, which Grafana would pass over in silence.
func read(t *testing.T) map[string]dashboard.Dashboard {
	t.Helper()
	runtime := cog.NewRuntime()
	runtime.RegisterPanelcfgVariant(timeseries.VariantConfig())
	runtime.RegisterPanelcfgVariant(stat.VariantConfig())
	runtime.RegisterPanelcfgVariant(bargauge.VariantConfig())
	runtime.RegisterPanelcfgVariant(table.VariantConfig())
	runtime.RegisterPanelcfgVariant(logs.VariantConfig())
	runtime.RegisterPanelcfgVariant(text.VariantConfig())
	runtime.RegisterDataqueryVariant(prometheus.VariantConfig())
	runtime.RegisterDataqueryVariant(loki.VariantConfig())
	made, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]dashboard.Dashboard{}
	for name, content := range made {
		var d dashboard.Dashboard
		if err := d.UnmarshalJSONStrict(content); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[*d.Uid] = d
	}
	return all
}

// eachPanel calls f for each panel that asks something.
func eachPanel(t *testing.T, f func(t *testing.T, d dashboard.Dashboard, p dashboard.Panel)) {
	t.Helper()
	count := 0
	for uid, d := range read(t) {
		if uid == runbooksUID {
			continue
		}
		for _, p := range d.Panels {
			if p.Panel == nil {
				continue
			}
			count++
			t.Run(uid+"/"+*p.Panel.Title, func(t *testing.T) { f(t, d, *p.Panel) })
		}
	}
	if count < 50 {
		t.Errorf("only %d panels were looked at", count)
	}
}

func TestPanelsSayWhatTheyShow(t *testing.T) {
	eachPanel(t, func(t *testing.T, _ dashboard.Dashboard, p dashboard.Panel) {
		if *p.Title == "" || len(*p.Description) < 20 || !strings.HasSuffix(*p.Description, ".") {
			t.Errorf("the description is %q: say in a sentence what it shows", *p.Description)
		}
		if *p.FieldConfig.Defaults.Unit == "" {
			t.Error("it has no unit")
		}
		if len(p.Targets) == 0 {
			t.Error("it asks nothing")
		}
		if uid := *p.Datasource.Uid; uid != "gpuq-prometheus" && uid != "gpuq-loki" {
			t.Errorf("the role grafana provisions no data source %q", uid)
		}
	})
}

func TestPanelsDoNotOverlap(t *testing.T) {
	for uid, d := range read(t) {
		taken := map[[2]uint32]uint32{}
		ids := map[uint32]bool{}
		for _, p := range d.Panels {
			var id uint32
			var at *dashboard.GridPos
			if p.Panel != nil {
				id, at = *p.Panel.Id, p.Panel.GridPos
			} else {
				id, at = p.RowPanel.Id, p.RowPanel.GridPos
			}
			if ids[id] {
				t.Errorf("%s has two panels %d", uid, id)
			}
			ids[id] = true
			if at.X+at.W > columns || at.W == 0 || at.H == 0 {
				t.Errorf("%s: panel %d is not on the grid: %+v", uid, id, *at)
			}
			for x := at.X; x < at.X+at.W; x++ {
				for y := at.Y; y < at.Y+at.H; y++ {
					if other, ok := taken[[2]uint32{x, y}]; ok {
						t.Fatalf("%s: panels %d and %d overlap", uid, other, id)
					}
					taken[[2]uint32{x, y}] = id
				}
			}
		}
	}
}

// Grafana's own variables, and the values that stand for them while a query is parsed.
var builtIn = map[string]string{"__rate_interval": "1m", "__interval": "15s", "__range": "6h", "__url_time_range": ""}

var (
	variableUse = regexp.MustCompile(`\$(?:(\w+)|\{([^}]+)\})`)
	legendLabel = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)
)

// fill replaces the variables of a query, and returns the names of those that are the
// dashboard's own.
func fill(expr string, declared []string) (filled string, used []string, err error) {
	filled = variableUse.ReplaceAllStringFunc(expr, func(use string) string {
		name := strings.Trim(use, "${}")
		if value, ok := builtIn[name]; ok {
			return value
		}
		if !slices.Contains(declared, name) {
			err = fmt.Errorf("there is no variable %s", use)
		}
		used = append(used, name)
		return "x"
	})
	return filled, used, err
}

func variables(d dashboard.Dashboard) []string {
	var names []string
	for _, v := range d.Templating.List {
		names = append(names, v.Name)
	}
	return names
}

func TestQueriesOfPrometheusAreRight(t *testing.T) {
	metrics := metricsThatExist(t)
	count := 0
	eachPanel(t, func(t *testing.T, d dashboard.Dashboard, p dashboard.Panel) {
		for _, target := range p.Targets {
			query, ok := target.(*prometheus.Dataquery)
			if !ok {
				continue
			}
			count++
			expr, _, err := fill(query.Expr, variables(d))
			if err != nil {
				t.Errorf("%s: %v", *query.RefId, err)
			}
			labels, wrong := check(metrics, expr)
			for _, w := range wrong {
				t.Errorf("%s: %s", *query.RefId, w)
			}
			if p.Type == "table" {
				checkColumns(t, p, labels)
			}
			if query.LegendFormat == nil {
				continue
			}
			for _, use := range legendLabel.FindAllStringSubmatch(*query.LegendFormat, -1) {
				if !slices.Contains(labels, use[1]) {
					t.Errorf("%s: the legend names %q, its series have %q", *query.RefId, use[1], labels)
				}
			}
			if p.Type != "table" && *query.LegendFormat == "" {
				t.Errorf("%s has no legend", *query.RefId)
			}
		}
	})
	if count < 100 {
		t.Errorf("only %d queries were looked at", count)
	}
}

// checkColumns looks whether a table's columns that are no values are labels of what it
// asks, and whether its links use columns that are there.
func checkColumns(t *testing.T, p dashboard.Panel, labels []string) {
	t.Helper()
	var titles []string
	for _, tr := range p.Transformations {
		if tr.Id != "organize" {
			continue
		}
		for label, title := range tr.Options.(map[string]any)["renameByName"].(map[string]any) {
			titles = append(titles, title.(string))
			if !strings.HasPrefix(label, "Value") && !slices.Contains(labels, label) {
				t.Errorf("column %q: there is no label %q but %q", title, label, labels)
			}
		}
	}
	text, err := json.Marshal(p.FieldConfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, use := range regexp.MustCompile(`__data\.fields\.(\w+)`).FindAllStringSubmatch(string(text), -1) {
		if !slices.Contains(titles, use[1]) {
			t.Errorf("a link uses the column %q: there are %q", use[1], titles)
		}
	}
}

// unseen are alerts without a panel that leads to their runbook, and why.
var unseen = map[string]string{
	"AlertmanagerUnreachable":  "of monitoring itself: the alert is all there is to see",
	"MonitoringConfigRefused":  "of monitoring itself",
	"NotificationsFailing":     "of monitoring itself",
	"PrometheusStorageFailing": "of monitoring itself",
	"RulesFailing":             "of monitoring itself",
	"Watchdog":                 "fires always",
	"CertificateExpired":       "a date, which the alert tells",
	"CertificateExpiring":      "a date, which the alert tells",
	"CertificatesUnknown":      "a script's, which hosts without it have not",
	"ServiceFailed":            "a state of systemd, which the alert tells",
	"ServiceRestarting":        "a state of systemd, which the alert tells",
}

var alertName = regexp.MustCompile(`(?m)^\s+- alert: (\w+)$`)

// Whoever sees something bad in a panel is led to what to do, for each alert that there is.
func TestEveryAlertHasAPanelThatLeadsToItsRunbook(t *testing.T) {
	linked := map[string]bool{}
	for _, d := range read(t) {
		for _, p := range d.Panels {
			if p.Panel == nil {
				continue
			}
			for _, l := range p.Panel.Links {
				if _, name, ok := strings.Cut(l.Title, ": "); ok {
					linked[name] = true
				}
			}
		}
	}
	paths, err := filepath.Glob(filepath.Join(root, "ansible/roles/prometheus/files/rules/*.yml"))
	if err != nil {
		t.Fatal(err)
	}
	alerts := map[string]bool{}
	for _, path := range paths {
		rules, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range alertName.FindAllStringSubmatch(string(rules), -1) {
			alerts[found[1]] = true
		}
	}
	if len(alerts) < 3 {
		t.Fatalf("only %d alerts were found", len(alerts))
	}
	for name := range alerts {
		if _, ok := unseen[name]; ok == linked[name] {
			t.Errorf("%s: a panel leads to its runbook: %t; it is on the list of those without: %t", name, linked[name], ok)
		}
	}
	for name := range linked {
		if !alerts[name] {
			t.Errorf("a panel leads to the runbook of %s, but there is no such alert", name)
		}
	}
	for name := range unseen {
		if !alerts[name] {
			t.Errorf("%s is on the list of alerts without a panel, but there is no such alert", name)
		}
	}
}

// What people choose above a dashboard is used in it, and its values can be had.
func TestVariablesAreOfUse(t *testing.T) {
	metrics := metricsThatExist(t)
	for uid, d := range read(t) {
		var used []string
		for _, p := range d.Panels {
			if p.Panel == nil {
				continue
			}
			for _, target := range p.Panel.Targets {
				var expr string
				switch q := target.(type) {
				case *prometheus.Dataquery:
					expr = q.Expr
				case *loki.Dataquery:
					expr = q.Expr
				}
				_, of, err := fill(expr, variables(d))
				if err != nil {
					t.Errorf("%s: %q: %v", uid, *p.Panel.Title, err)
				}
				used = append(used, of...)
			}
		}
		for i, v := range d.Templating.List {
			if !slices.Contains(used, v.Name) {
				t.Errorf("%s: nothing uses $%s", uid, v.Name)
			}
			if v.Type != dashboard.VariableTypeQuery {
				continue
			}
			of, ok := strings.CutPrefix(*v.Definition, "label_values(")
			comma := strings.LastIndex(of, ",")
			if !ok || comma < 0 {
				t.Errorf("%s: $%s is %q, not label_values(selector, label)", uid, v.Name, *v.Definition)
				continue
			}
			// Variables see only those before them.
			expr, _, err := fill(of[:comma], variables(d)[:i])
			if err != nil {
				t.Errorf("%s: $%s: %v", uid, v.Name, err)
			}
			labels, wrong := check(metrics, expr)
			if label := strings.Trim(of[comma+1:], " )"); len(wrong) > 0 || !slices.Contains(labels, label) {
				t.Errorf("%s: $%s: %q has the labels %q: %q", uid, v.Name, expr, labels, wrong)
			}
		}
	}
}

// Links within Grafana: to which dashboard, with which of its variables.
var dashboardLink = regexp.MustCompile(`"/d/([^"?\\]+)(\?[^"]*)?"`)

func TestLinksLeadSomewhere(t *testing.T) {
	all := read(t)
	made, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for name, content := range made {
		for _, found := range dashboardLink.FindAllStringSubmatch(string(content), -1) {
			count++
			to, ok := all[found[1]]
			if !ok {
				t.Errorf("%s: there is no dashboard %q", name, found[1])
				continue
			}
			for _, v := range regexp.MustCompile(`var-(\w+)=`).FindAllStringSubmatch(found[2], -1) {
				if !slices.Contains(variables(to), v[1]) {
					t.Errorf("%s: %s has no variable %q", name, found[1], v[1])
				}
			}
			if _, view, ok := strings.Cut(found[2], "viewPanel="); ok && !slices.ContainsFunc(to.Panels, func(p dashboard.PanelOrRowPanel) bool {
				return p.Panel != nil && fmt.Sprint(*p.Panel.Id) == view
			}) {
				t.Errorf("%s: %s has no panel %s", name, found[1], view)
			}
		}
	}
	if count < 30 {
		t.Errorf("only %d links were found", count)
	}
}
