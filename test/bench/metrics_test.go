package bench

import (
	"os"
	"strings"
	"testing"

	"gpuqd/test/bench/floor"
)

const served = `# HELP gpuqd_acks_total Acks.
# TYPE gpuqd_acks_total counter
gpuqd_acks_total{result="failed"} 1
gpuqd_acks_total{result="sent"} 40
gpuqd_attempts_held 3
gpuqd_attempts_total{outcome="queued"} 2
gpuqd_attempts_total{outcome="succeeded"} 38
gpuqd_broker_operation_duration_seconds_bucket{operation="get",result="ok",le="0.001"} 7
gpuqd_broker_operation_duration_seconds_count{operation="depth",result="ok"} 90
gpuqd_broker_operation_duration_seconds_count{operation="get",result="empty"} 2
gpuqd_broker_operation_duration_seconds_count{operation="get",result="ok"} 40
gpuqd_broker_operation_duration_seconds_sum{operation="get",result="ok"} 1.5e-02
gpuqd_journal_sync_duration_seconds_count 240
`

func TestOperationsAreReadFromMetrics(t *testing.T) {
	m := parseMetrics(served)
	if m.succeeded() != 38 || m.held() != 3 {
		t.Errorf("%d succeeded, %d held; want 38, 3", m.succeeded(), m.held())
	}
	done := m.operations()
	for name, want := range map[string]float64{
		floor.Ack: 40, floor.Depth: 90, floor.Get: 42, floor.JournalSync: 240, floor.LedgerInsert: 0,
	} {
		if got, ok := done[name]; got != want || !ok {
			t.Errorf("%s: got %g, want %g", name, got, want)
		}
	}
}

// Each metric that figures rest on is one that docs/metrics.md has, and each
// operation that is told has its row on the page.
func TestEveryOperationHasItsMetricAndName(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, of := range told {
		metric := strings.TrimSuffix(of.metric, "_count")
		if !strings.Contains(string(page), "`"+metric+"`") {
			t.Errorf("docs/metrics.md has no %s", metric)
		}
		if names[i].operation != of.operation {
			t.Errorf("operation %s is named %s on the page", of.operation, names[i].operation)
		}
	}
	if len(names) != len(told) {
		t.Errorf("%d operations have a name, %d a metric", len(names), len(told))
	}
}
