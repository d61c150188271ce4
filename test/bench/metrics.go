package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"gpuqd/test/bench/floor"
)

// metrics are the samples of a daemon's /metrics: values by metric and labels, as
// they are written there.
type metrics map[string]float64

// sampleLine is one line: name, labels, value.
var sampleLine = regexp.MustCompile(`(?m)^([a-z_]+(?:\{.*\})?) (\S+)$`)

func parseMetrics(text string) metrics {
	m := metrics{}
	for _, found := range sampleLine.FindAllStringSubmatch(text, -1) {
		if value, err := strconv.ParseFloat(found[2], 64); err == nil {
			m[found[1]] = value
		}
	}
	return m
}

// sum adds up the series of a metric that have a label, written as name="value";
// "" is any.
func (m metrics) sum(name, label string) (total float64) {
	for series, value := range m {
		base, labels, _ := strings.Cut(series, "{")
		if base == name && strings.Contains(labels, label) {
			total += value
		}
	}
	return total
}

// told are the metrics that tell of each operation.
var told = []struct{ operation, metric, label string }{
	{floor.LedgerInsert, "gpuqd_ledger_operation_duration_seconds_count", `operation="insert"`},
	{floor.LedgerUpdate, "gpuqd_ledger_operation_duration_seconds_count", `operation="update"`},
	{floor.LedgerGet, "gpuqd_ledger_operation_duration_seconds_count", `operation="get"`},
	{floor.LedgerFind, "gpuqd_ledger_operation_duration_seconds_count", `operation="find"`},
	{floor.Publish, "gpuqd_broker_operation_duration_seconds_count", `operation="publish"`},
	{floor.Bell, "gpuqd_bells_total", ""},
	{floor.Depth, "gpuqd_broker_operation_duration_seconds_count", `operation="depth"`},
	{floor.Get, "gpuqd_broker_operation_duration_seconds_count", `operation="get"`},
	{floor.Ack, "gpuqd_acks_total", `result="sent"`},
	{floor.CacheGet, "gpuqd_done_cache_operation_duration_seconds_count", `operation="get"`},
	{floor.CacheSet, "gpuqd_done_cache_operation_duration_seconds_count", `operation="set"`},
	{floor.JournalSync, "gpuqd_journal_sync_duration_seconds_count", ""},
	{floor.Start, "gpuqd_shim_start_duration_seconds_count", ""},
}

// operations returns how often the daemon has done each operation.
func (m metrics) operations() floor.Operations {
	done := floor.Operations{}
	for _, t := range told {
		done[t.operation] = m.sum(t.metric, t.label)
	}
	return done
}

// succeeded counts the attempts whose success the ledger took. (The commits would
// count claims that were given up too, as at a drain.)
func (m metrics) succeeded() int { return int(m.sum("gpuqd_attempts_total", `outcome="succeeded"`)) }

// held counts the attempts under way.
func (m metrics) held() int { return int(m.sum("gpuqd_attempts_held", "")) }

// scrape asks a daemon at host:port.
func scrape(ctx context.Context, address string) (metrics, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept-Encoding", "identity") // packing them would cost the daemon more than making them
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("read the daemon's metrics: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("read the daemon's metrics: %s", response.Status), err)
	}
	return parseMetrics(string(text)), nil
}
