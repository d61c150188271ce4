package monitoring

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	root      = "../.."
	rulesDir  = root + "/ansible/roles/prometheus/files/rules"
	runbooks  = root + "/docs/runbooks"
	watchdog  = "Watchdog" // fires always, and is nobody's trouble
	indexPage = "README.md"
)

func alerts(t *testing.T) []Rule {
	t.Helper()
	all, err := Rules(rulesDir)
	if err != nil {
		t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(r Rule) bool { return r.Alert == "" })
	if len(all) < 40 {
		t.Fatalf("only %d alerts were found", len(all))
	}
	return all
}

func TestEveryAlertSaysWhatToDo(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range alerts(t) {
		if seen[a.Alert] {
			t.Errorf("%s: there are two alerts %s", a.File, a.Alert)
		}
		seen[a.Alert] = true
		severities := []string{"warning", "critical"}
		if a.Alert == watchdog {
			severities = []string{"none"}
		}
		if !slices.Contains(severities, a.Labels["severity"]) {
			t.Errorf("%s: %s has the severity %q, want one of %q", a.File, a.Alert, a.Labels["severity"], severities)
		}
		for _, what := range []string{"summary", "description"} {
			if strings.TrimSpace(a.Annotations[what]) == "" {
				t.Errorf("%s: %s has no %s", a.File, a.Alert, what)
			}
		}
		page := "docs/runbooks/" + a.Alert + ".md"
		if a.Annotations["runbook_url"] != page {
			t.Errorf("%s: runbook_url of %s is %q, want %q", a.File, a.Alert, a.Annotations["runbook_url"], page)
		}
		if _, err := os.Stat(filepath.Join(root, page)); err != nil {
			t.Errorf("%s has no page: %v", a.Alert, err)
		}
	}
}

// sections are what a page has, in this order.
var sections = []string{"## What it means", "## How to look", "## What to do"}

func TestEveryPageIsOfAnAlert(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(runbooks, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(runbooks, indexPage))
	if err != nil {
		t.Fatal(err)
	}
	severity := map[string]string{}
	for _, a := range alerts(t) {
		severity[a.Alert] = a.Labels["severity"]
	}
	for _, path := range files {
		page := filepath.Base(path)
		if page == indexPage {
			continue
		}
		alert := strings.TrimSuffix(page, ".md")
		if severity[alert] == "" {
			t.Errorf("docs/runbooks/%s is of no alert", page)
		}
		row := "| [" + alert + "](" + page + ") | " + severity[alert] + " |"
		if strings.Count(string(index), row) != 1 {
			t.Errorf("docs/runbooks/%s has no row that begins with %q", indexPage, row)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "# "+alert+"\n") {
			t.Errorf("docs/runbooks/%s does not begin with # %s", page, alert)
		}
		var found []string
		for _, line := range strings.Split(string(text), "\n") {
			if strings.HasPrefix(line, "## ") {
				found = append(found, line)
			}
		}
		if !slices.Equal(found, sections) {
			t.Errorf("docs/runbooks/%s has the sections %q, want %q", page, found, sections)
		}
	}
	if n := strings.Count(string(index), "| ["); n != len(severity) {
		t.Errorf("docs/runbooks/%s lists %d alerts, there are %d", indexPage, n, len(severity))
	}
}

// inhibiting names the alerts of a matcher in Alertmanager's configuration.
var inhibiting = regexp.MustCompile(`alertname=~?"([A-Za-z|]+)"`)

// A name that is no alert's would keep nothing back, without a word.
func TestAlertsThatAreKeptBackAreThere(t *testing.T) {
	names := map[string]bool{}
	for _, a := range alerts(t) {
		names[a.Alert] = true
	}
	text, err := os.ReadFile(root + "/ansible/roles/prometheus/templates/alertmanager.yml.j2")
	if err != nil {
		t.Fatal(err)
	}
	found := inhibiting.FindAllStringSubmatch(string(text), -1)
	if len(found) < 10 {
		t.Fatalf("only %d matchers were found", len(found))
	}
	for _, m := range found {
		for _, name := range strings.Split(m[1], "|") {
			if !names[name] {
				t.Errorf("alertmanager.yml.j2 names %s, which is no alert", name)
			}
		}
	}
}

// pageRow is a row of docs/metrics.md: name, type, labels.
var pageRow = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z]+) \\|([^|]*)\\|")

var codeSpan = regexp.MustCompile("`([^`]+)`")

// targetLabels are what Prometheus adds to all that it scrapes here.
var targetLabels = []string{"host", "instance", "job"}

// suffixes are the series of a histogram or summary.
var suffixes = regexp.MustCompile(`_(bucket|sum|count)$`)

// served is what is known of metrics: their labels, where a page of ours says so.
type served map[string][]string

// known returns the labels of a metric, nil where any may be there.
func (s served) known(metric string) (labels []string, ok bool) {
	if labels, ok = s[metric]; ok {
		return labels, true
	}
	base := suffixes.ReplaceAllString(metric, "")
	if labels, ok = s[base]; ok && strings.HasSuffix(metric, "_bucket") && labels != nil {
		labels = append(slices.Clone(labels), "le")
	}
	return labels, ok
}

func everyMetric(t *testing.T) served {
	t.Helper()
	all := served{}
	page, err := os.ReadFile(root + "/docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range pageRow.FindAllStringSubmatch(string(page), -1) {
		labels := slices.Clone(targetLabels)
		for _, label := range codeSpan.FindAllStringSubmatch(row[3], -1) {
			labels = append(labels, label[1])
		}
		all[row[1]] = labels
	}
	files, err := filepath.Glob("thirdparty/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no lists of what others serve", err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(text), "\n") {
			if metric, _, ok := strings.Cut(line, " "); ok && metric != "#" {
				all[metric] = nil
			}
		}
	}
	return all
}

func TestEveryMetricIsServed(t *testing.T) {
	all := everyMetric(t)
	rules, err := Rules(rulesDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if r.Record != "" {
			all[r.Record] = targetLabels
		}
	}
	for _, r := range rules {
		for _, s := range Selectors(r.Expr) {
			labels, ok := all.known(s.Metric)
			if !ok {
				t.Errorf("%s: %s asks for %s, which is neither in docs/metrics.md nor in thirdparty", r.File, r.Name(), s.Metric)
			}
			for _, label := range s.Labels {
				if labels != nil && !slices.Contains(labels, label) {
					t.Errorf("%s: %s matches the label %s of %s, which has %q", r.File, r.Name(), label, s.Metric, labels)
				}
			}
		}
	}
}

func TestSelectorsAreFound(t *testing.T) {
	for expr, want := range map[string]string{
		`up`: "up",
		`sum by (host) (rate(a_total{x="y{",z!~'"'}[5m])) > 1.5 * max_over_time(sum(b:c)[6h:10m] offset 1h)`:                  "a_total{x,z} b:c",
		"a and on () count(b == 1) > 1 # c\n unless on (instance) (count by (instance) (d) >= on () group_left () (e - 1e9))": "a b d e",
		`histogram_quantile(0.9, sum by (le) (rate(h_bucket[10m])))`:                                                          "h_bucket",
	} {
		var got []string
		for _, s := range Selectors(expr) {
			text := s.Metric
			if len(s.Labels) > 0 {
				text += "{" + strings.Join(s.Labels, ",") + "}"
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s names %q, want %q", expr, strings.Join(got, " "), want)
		}
	}
}
