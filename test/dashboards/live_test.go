package dashboards

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// On servers that somebody else has started: GPUQ_PROMETHEUS and GPUQ_LOKI are their
// addresses, GPUQ_SPAN how far to look back.
func TestNothingIsEmptyOnLiveServers(t *testing.T) {
	l := Live{
		Dir: "../../" + Dir, Prometheus: os.Getenv("GPUQ_PROMETHEUS"), Loki: os.Getenv("GPUQ_LOKI"),
		Span: 30 * time.Minute, Scrape: 15 * time.Second,
	}
	if l.Prometheus == "" || l.Loki == "" {
		t.Skip("GPUQ_PROMETHEUS and GPUQ_LOKI name no servers")
	}
	for name, to := range map[string]*time.Duration{"GPUQ_SPAN": &l.Span, "GPUQ_SCRAPE": &l.Scrape} {
		if text := os.Getenv(name); text != "" {
			d, err := time.ParseDuration(text)
			if err != nil {
				t.Fatal(err)
			}
			*to = d
		}
	}
	var err error
	if l.Allowed, err = Quiet(l.Dir); err != nil {
		t.Fatal(err)
	}
	empty, asked, err := l.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range empty {
		t.Error(e)
	}
	t.Logf("%d queries, %d show nothing", asked, len(empty))
}

// boardFor is a dashboard with a choice, a box, and queries of each kind.
const boardFor = `{
  "uid": "b",
  "templating": {"list": [
    {"name": "host", "type": "query", "definition": "label_values(up{job=\"gpuqd\"}, host)"},
    {"name": "job", "type": "textbox"}
  ]},
  "panels": [
    {"title": "row", "panels": [
      {"title": "graph", "targets": [
        {"refId": "A", "expr": "rate(full{host=\"$host\"}[$__rate_interval])", "datasource": {"uid": "gpuq-prometheus"}},
        {"refId": "B", "expr": "nan", "datasource": {"uid": "gpuq-prometheus"}},
        {"refId": "C", "expr": "missing[$__range]", "datasource": {"uid": "gpuq-prometheus"}}
      ]}
    ]},
    {"title": "table", "fieldConfig": {"defaults": {"noValue": "no rows"}}, "targets": [{"refId": "A", "expr": "full", "instant": true, "datasource": {"uid": "gpuq-prometheus"}}]},
    {"title": "lines", "targets": [{"refId": "A", "expr": "{job=\"workers\"} | job_id=\"${job}\"", "datasource": {"uid": "gpuq-loki"}}]}
  ]
}`

// servers answer as Prometheus and Loki do, and keep what they were asked.
func servers(t *testing.T) (Live, func() []string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "b.json"), []byte(boardFor), 0o600); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.FormValue("query")
		mu.Lock()
		asked = append(asked, r.URL.Path+" "+query)
		mu.Unlock()
		switch {
		case strings.Contains(r.URL.Path, "/label/host/values"):
			fmt.Fprint(w, `{"status":"success","data":["w1","w2"]}`)
		case strings.Contains(query, `host="w2"`), query == "full":
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"NaN"],[2,"0"]]}]}}`)
		case strings.Contains(query, `host="w1"`):
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"matrix","result":[]}}`)
		case query == "nan":
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"NaN"]]}]}}`)
		case strings.Contains(query, "job_id"):
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"streams","result":[{"stream":{"job_id":"j1"},"values":[["1","line"]]}]}}`)
		default:
			http.Error(w, "parse error: no such thing", http.StatusBadRequest)
		}
	}))
	t.Cleanup(server.Close)
	l := Live{Dir: dir, Prometheus: server.URL, Loki: server.URL, Span: time.Hour, Scrape: 15 * time.Second}
	return l, func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(asked) }
}

func TestWhatShowsNothingIsFound(t *testing.T) {
	l, asked := servers(t)
	empty, count, err := l.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if count != 5 || len(empty) != 2 {
		t.Fatalf("of %d queries %d show nothing: %v", count, len(empty), empty)
	}
	if e := empty[0]; e.Query.Ref != "B" || e.Err != nil {
		t.Errorf("a series of NaN: %v", e)
	}
	if e := empty[1]; e.Query.Ref != "C" || e.Err == nil || e.Asked != "missing[3600000ms]" {
		t.Errorf("a query that was refused: %v", e)
	}
	for _, want := range []string{
		`/api/v1/query_range rate(full{host="w2"}[60000ms])`,
		`/api/v1/query full`,
		`/loki/api/v1/query_range {job="workers"} | job_id="j1"`,
	} {
		if !slices.Contains(asked(), want) {
			t.Errorf("%s was not asked, but %q", want, asked())
		}
	}
}

func TestAllowedQueriesMayShowNothing(t *testing.T) {
	l, _ := servers(t)
	l.Allowed = []Allowed{{Board: "b", Panel: "graph", Reason: "nothing happens here"}}
	empty, _, err := l.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(empty) != 1 || empty[0].Query.Ref != "C" {
		t.Errorf("%v: a query that was refused is never allowed, one that is empty is", empty)
	}
	l.Allowed = []Allowed{{Board: "b", Panel: "no such panel", Reason: "a reason"}}
	if _, _, err := l.Check(t.Context()); err == nil {
		t.Error("an exception for a panel that does not exist passes")
	}
}

func TestPanelsThatMayBeQuietSaySo(t *testing.T) {
	l, _ := servers(t)
	allowed, err := Quiet(l.Dir)
	if err != nil || len(allowed) != 1 || allowed[0] != (Allowed{"b", "table", "A", "no rows"}) {
		t.Errorf("%+v, %v", allowed, err)
	}
}

func TestVariablesThatNothingFillsInAreErrors(t *testing.T) {
	l := Live{Span: time.Hour, Scrape: 15 * time.Second}
	if filled, err := l.fill(`x{a="$nobody"}`, nil); err == nil {
		t.Errorf("it becomes %s", filled)
	}
}
