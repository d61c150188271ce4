package e2e

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gpuqd/test/wait"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// scraped is what the daemons' /metrics have shown at any time: a daemon that is
// killed begins again at 0, so the largest value of each series is kept.
type scraped struct {
	kinds  map[string]string             // type, by metric
	labels map[string]map[string]bool    // label names, by metric
	most   map[string]map[string]float64 // largest value, by metric and labels as written
	ran    map[string]bool               // the tests that have passed, by claim
}

func newScraped() *scraped {
	return &scraped{map[string]string{}, map[string]map[string]bool{}, map[string]map[string]float64{}, map[string]bool{}}
}

// scrape returns what a worker serves.
func (e *env) scrape(worker string) (string, error) {
	response, err := http.Get("http://" + e.metrics[worker] + "/metrics")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, text)
	}
	return string(text), err
}

// noteMetrics takes in what the daemons show after a test. One that is down shows
// nothing; the test of the metrics wants all three.
func (e *env) noteMetrics(claim string, passed bool) {
	e.scraped.ran[claim] = passed
	for _, worker := range e.Workers() {
		if text, err := e.scrape(worker); err == nil {
			e.scraped.take(text)
		}
	}
}

// sample is one line of /metrics: name, labels, value.
var sample = regexp.MustCompile(`(?m)^([a-z_]+)(?:\{(.*)\})? (\S+)$`)

// label is one label of a sample.
var label = regexp.MustCompile(`([a-z_]+)="((?:[^"\\]|\\.)*)"`)

func (s *scraped) take(text string) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 4 && f[1] == "TYPE" {
			s.kinds[f[2]] = f[3]
		}
	}
	for _, m := range sample.FindAllStringSubmatch(text, -1) {
		name, value := m[1], 0.
		if v, err := strconv.ParseFloat(m[3], 64); err == nil {
			value = v
		}
		if base, ok := s.histogram(name); ok && !strings.HasSuffix(name, "_count") {
			name = base + " " // buckets and sums: of interest for their labels alone
		} else if ok {
			name = base
		}
		series := s.most[name]
		if series == nil {
			series = map[string]float64{}
			s.most[name] = series
		}
		series[m[2]] = max(series[m[2]], value)
		base := strings.TrimSpace(name)
		if s.labels[base] == nil {
			s.labels[base] = map[string]bool{}
		}
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			s.labels[base][l[1]] = true
		}
	}
}

// histogram returns the metric that a sample of a histogram belongs to.
func (s *scraped) histogram(name string) (string, bool) {
	for _, end := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, end); ok && s.kinds[base] == "histogram" {
			return base, true
		}
	}
	return "", false
}

// sum adds up the series of a metric whose labels have all of the given ones.
func (s *scraped) sum(name string, labels ...string) float64 {
	total := 0.
	for written, value := range s.most[name] {
		if !slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(written, l) }) {
			total += value
		}
	}
	return total
}

// row is a row of docs/metrics.md: name, type, labels.
var row = regexp.MustCompile("(?m)^\\| `(gpuqd_[a-z_]+)` \\| ([a-z]+) \\|([^|]*)\\|")

// moves are what a test must have moved: the metric, then parts of its labels.
var moves = map[string][][]string{
	"": { // any of them
		{"gpuqd_submissions_total", `result="created"`},
		{"gpuqd_takes_total"},
		{"gpuqd_claims_total"},
		{"gpuqd_commits_total"},
		{"gpuqd_attempts_total", `outcome="succeeded"`},
		{"gpuqd_acks_total", `result="sent"`},
		{"gpuqd_attempt_duration_seconds"},
		{"gpuqd_job_wait_seconds"},
		{"gpuqd_shim_start_duration_seconds"},
		{"gpuqd_lease_renewals_total"},
		{"gpuqd_lease_renewal_duration_seconds"},
		{"gpuqd_lease_left_seconds"},
		{"gpuqd_journal_sync_duration_seconds"},
		{"gpuqd_devices", `state="free"`},
		{"gpuqd_device_seconds_total", `state="free"`},
		{"gpuqd_device_seconds_total", `state="busy"`},
		{"gpuqd_device_info", `simulated="true"`},
		{"gpuqd_slots", `state="free"`},
		{"gpuqd_shapes"},
		{"gpuqd_ready"},
		{"gpuqd_taking"},
		{"gpuqd_queue_looked_timestamp_seconds", `queue="gpuq.job.default.normal.g1.any"`},
		{"gpuqd_ledger_reachable"},
		{"gpuqd_broker_connected", `connection="take"`},
		{"gpuqd_broker_operation_duration_seconds", `operation="publish"`, `result="ok"`},
		{"gpuqd_broker_operation_duration_seconds", `operation="get"`, `result="ok"`},
		{"gpuqd_broker_operation_duration_seconds", `operation="depth"`, `result="ok"`},
		{"gpuqd_ledger_operation_duration_seconds", `operation="insert"`, `result="ok"`},
		{"gpuqd_ledger_operation_duration_seconds", `operation="update"`, `result="ok"`},
		{"gpuqd_ledger_operation_duration_seconds", `operation="find"`, `result="ok"`},
		{"gpuqd_done_cache_operation_duration_seconds", `operation="set"`, `result="ok"`},
		{"gpuqd_done_cache_operation_duration_seconds", `operation="get"`, `result="miss"`},
		{"gpuqd_control_requests_total", `verb="submit"`, `code="ok"`},
		{"gpuqd_control_request_duration_seconds"},
		{"gpuqd_build_info", `go_version="go`},
		{"gpuqd_config_loaded_timestamp_seconds"},
		{"process_start_time_seconds"},
		{"go_goroutines"},
	},
	"FailedAttemptIsRetriedOnTheJobsBudget": {
		{"gpuqd_retries_total"}, {"gpuqd_attempts_total", `outcome="retrying"`}, {"gpuqd_attempts_failed_total", `class="user"`},
	},
	"TimeLimitLeavesNoProcessOfTheTree":          {{"gpuqd_attempts_failed_total", `class="timeout"`}},
	"RunningJobIsKilledWithItsTree":              {{"gpuqd_attempts_total", `outcome="killed"`}, {"gpuqd_control_requests_total", `verb="kill"`, `code="ok"`}},
	"DeviceIsHeldByOneAttemptAtATime":            {{"gpuqd_device_gap_seconds"}, {"gpuqd_bells_total"}},
	"ExpiredJobNeverStarts":                      {{"gpuqd_jobs_expired_total"}},
	"UnusableMessagesAreRecordedAsDeadLetters":   {{"gpuqd_dead_letters_total"}, {"gpuqd_dead_letters_recorded_total"}, {"gpuqd_submissions_total", `result="refused"`}},
	"SameKeyAtOnceIsOneJobAndOneRun":             {{"gpuqd_submissions_total", `result="existing"`}},
	"FinishedJobPublishedAgainIsAckedAndCounted": {{"gpuqd_duplicates_total", `source="done_cache"`}, {"gpuqd_duplicates_total", `source="ledger"`}, {"gpuqd_claims_refused_total", `reason="over"`}, {"gpuqd_done_cache_operation_duration_seconds", `operation="get"`, `result="ok"`}},
	"KilledDaemonAdoptsItsJob":                   {{"gpuqd_adoptions_total"}},
	"KilledShimCostsTheAttemptNotTheJob":         {{"gpuqd_requeues_total", `class="host_lost"`}, {"gpuqd_attempts_failed_total", `class="host_lost"`}},
	"DeadHostsJobResumesOnAnother":               {{"gpuqd_sessions_expired_total"}, {"gpuqd_takeovers_total"}},
	"BrokerNodeKilledUnder200Jobs":               {{"gpuqd_broker_connections_lost_total"}},
	"RedisLostUnder200Jobs":                      {{"gpuqd_done_cache_operation_duration_seconds", `result="failed"`}},
}

// testMetrics runs last: what a running daemon serves is what docs/metrics.md
// says, keeps Prometheus's rules, and was moved by the tests before it.
func testMetrics(t *testing.T, e *env) {
	for range 3 { // a run of its own moves what any run moves
		e.waitEnd(t, e.submit(t, "--", "true"))
	}
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := row.FindAllStringSubmatch(string(page), -1)
	if len(rows) < 40 {
		t.Fatalf("only %d rows of the page were found", len(rows))
	}
	// Some show themselves with the first sweep.
	wait.For(t, jobTimeout, func() error {
		for _, worker := range e.Workers() {
			text, err := e.scrape(worker)
			if err != nil {
				return fmt.Errorf("metrics of %s: %w", worker, err)
			}
			e.scraped.take(text)
		}
		for _, m := range rows {
			if e.scraped.kinds[m[1]] == "" {
				return fmt.Errorf("no daemon has shown %s", m[1])
			}
		}
		return nil
	})
	for _, worker := range e.Workers() {
		text, err := e.scrape(worker)
		if err != nil {
			t.Fatalf("metrics of %s: %v", worker, err)
		}
		lint(t, text)
	}
	e.scraped.expectPage(t, rows)
	e.scraped.expectBounded(t)
	for claim, metrics := range moves {
		if claim != "" && !e.scraped.ran[claim] {
			continue // left out of this run, or it failed and said why
		}
		for _, m := range metrics {
			if e.scraped.sum(m[0], m[1:]...) == 0 {
				t.Errorf("%s%v is 0 after %s", m[0], m[1:], claim)
			}
		}
	}
}

// expectPage compares names, types and labels with the rows of the page.
func (s *scraped) expectPage(t *testing.T, rows [][]string) {
	t.Helper()
	onPage := map[string]bool{}
	for _, m := range rows {
		name, labels := m[1], map[string]bool{}
		onPage[name] = true
		for i, part := range strings.Split(m[3], "`") {
			if i%2 == 1 {
				labels[part] = true
			}
		}
		if m[2] == "histogram" {
			labels["le"] = true
		}
		switch {
		case s.kinds[name] != m[2]:
			t.Errorf("%s is a %s, the page says %s", name, s.kinds[name], m[2])
		case !maps.Equal(s.labels[name], labels):
			t.Errorf("%s has the labels %v, the page says %v", name, s.labels[name], labels)
		}
	}
	for name := range s.kinds {
		if strings.HasPrefix(name, "gpuqd_") && !onPage[name] {
			t.Errorf("%s is not on the page", name)
		}
	}
}

var anyUUID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// expectBounded checks that no label but a device's names one of many.
func (s *scraped) expectBounded(t *testing.T) {
	t.Helper()
	for name, series := range s.most {
		for written := range series {
			for _, l := range label.FindAllStringSubmatch(written, -1) {
				if l[1] != "device_uuid" && anyUUID.MatchString(l[2]) {
					t.Errorf("%s has the label %s", strings.TrimSpace(name), l[0])
				}
			}
		}
	}
}

// lint is promtool check metrics: by its own rules, and by promtool itself where
// there is one.
func lint(t *testing.T, text string) {
	t.Helper()
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		return
	}
	cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
