package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/config"
	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/runner"

	"github.com/prometheus/client_golang/prometheus"
)

// values returns every series that a registry gives, by name and labels; of a
// histogram its count.
func values(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			name := strings.TrimSpace(f.GetName() + " " + strings.Join(labels, " "))
			all[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// expectCounts runs step on fresh metrics and expects these series, and no other counter
// of the same names, to have the values.
func expectCounts(t *testing.T, want map[string]float64, step func(m *metrics)) {
	t.Helper()
	r := prometheus.NewRegistry()
	step(newMetrics(r))
	got := values(t, r)
	for series, value := range want {
		if got[series] != value {
			t.Errorf("%s is %v, want %v", series, got[series], value)
		}
		name, _, _ := strings.Cut(series, " ")
		for other, v := range got {
			if _, meant := want[other]; !meant && strings.HasPrefix(other, name+" ") && v != 0 {
				t.Errorf("%s is %v, want 0", other, v)
			}
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Run("RefusedClaimIsCountedByWhatTheLedgerSaid", func(t *testing.T) {
		for reason, j := range map[string]*job.Job{
			"over":    {State: job.Dead},
			"own":     {State: job.Running, Owner: &job.Owner{Session: "mine"}},
			"held":    {State: job.Claimed, Owner: &job.Owner{Session: "another's"}},
			"raced":   {State: job.Queued},
			"not_due": {State: job.Retrying},
			"waiting": {State: job.Waiting},
		} {
			expectCounts(t, map[string]float64{"gpuqd_claims_refused_total reason=" + reason: 1}, func(m *metrics) { m.countRefusal(j, "mine") })
		}
	})
	t.Run("CommitIsCountedByOutcomeAndClass", func(t *testing.T) {
		for _, c := range []struct {
			state job.State
			class job.Class
			want  map[string]float64
		}{
			{job.Succeeded, "", map[string]float64{"gpuqd_attempts_total outcome=succeeded": 1, "gpuqd_retries_total": 0}},
			{job.Retrying, job.ClassTimeout, map[string]float64{"gpuqd_retries_total": 1, "gpuqd_attempts_failed_total class=timeout": 1}},
			{job.Queued, job.ClassHostLost, map[string]float64{"gpuqd_requeues_total class=host_lost": 1, "gpuqd_attempts_total outcome=queued": 1}},
			{job.Queued, "", map[string]float64{"gpuqd_requeues_total class=released": 1}},
			{job.Dead, job.ClassPoison, map[string]float64{"gpuqd_attempts_failed_total class=poison": 1, "gpuqd_commits_total": 1}},
		} {
			expectCounts(t, c.want, func(m *metrics) { m.countCommit(c.state, c.class) })
		}
	})
	t.Run("FreezeIsCountedByHowItEnded", func(t *testing.T) {
		for reason, end := range map[runner.StopReason]string{
			"": "thawed", runner.StopKilled: "thawed", runner.StopFreezeMax: "stopped", runner.StopSessionExpired: "stopped",
		} {
			want := map[string]float64{
				"gpuqd_attempts_frozen_total end=" + end: 1, "gpuqd_attempt_frozen_seconds_total": 2.5, "gpuqd_attempt_duration_seconds": 1,
			}
			expectCounts(t, want, func(m *metrics) {
				m.countExit(&runner.Exit{StopReason: reason, FrozenSeconds: 2.5, DurationSeconds: 9})
			})
		}
		expectCounts(t, map[string]float64{"gpuqd_attempt_duration_seconds": 0}, func(m *metrics) { m.countExit(&runner.Exit{Lost: true}) })
	})
	t.Run("LinesThatJournaldDidNotGetAreCounted", func(t *testing.T) {
		want := map[string]float64{"gpuqd_job_output_lines_dropped_total": 12, "gpuqd_attempt_duration_seconds": 1}
		expectCounts(t, want, func(m *metrics) { m.countExit(&runner.Exit{JournalDroppedLines: 12, DurationSeconds: 9}) })
	})
	t.Run("RenewalAckAndStartAreCountedByTheirError", func(t *testing.T) {
		wrapped := func(err error) error { return fmt.Errorf("wrapped: %w", err) }
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		want := map[string]float64{
			"gpuqd_lease_renewals_total": 1, "gpuqd_lease_renewals_failed_total reason=fenced": 1,
			"gpuqd_lease_renewals_failed_total reason=unreachable": 1, "gpuqd_lease_renewal_duration_seconds": 3,
			"gpuqd_acks_total result=sent": 1, "gpuqd_acks_total result=stale": 1, "gpuqd_acks_total result=failed": 1,
			"gpuqd_shim_start_duration_seconds": 1, "gpuqd_shim_starts_failed_total": 1,
		}
		expectCounts(t, want, func(m *metrics) {
			for _, err := range []error{nil, wrapped(ledger.ErrSessionLost), wrapped(context.DeadlineExceeded)} {
				m.countRenewal(err, time.Second)
			}
			for _, err := range []error{nil, wrapped(broker.ErrStaleTag), wrapped(broker.ErrUnreachable)} {
				m.countAck(err)
			}
			m.countStart(t.Context(), nil, time.Second)
			m.countStart(t.Context(), errors.New("no shim"), time.Second)
			m.countStart(ended, context.Canceled, time.Second) // this daemon ends, the shim goes on
		})
	})
	t.Run("AgentWithoutARegistererCountsNothing", func(t *testing.T) {
		m := newMetrics(nil)
		m.takes.Inc()
		m.attempts.WithLabelValues("succeeded").Inc()
		m.countDepth("q", 3, time.Now())
		m.countExit(&runner.Exit{FrozenSeconds: 1})
		m.controlRequests.count("submit", "ok", time.Second)
	})
}

func TestScrapeOfAnAgentThatHasNotStarted(t *testing.T) {
	r := prometheus.NewRegistry()
	cfg := config.Default()
	cfg.Host.Name, cfg.Host.SlotsWithoutGPU = "h", 3
	devices := device.New("h", &device.Simulated{Host: "h", Count: 2, MemoryBytes: 5}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error)
	go func() { over <- devices.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	}()
	<-devices.Ready()
	a := New(Options{Config: cfg, Registerer: r, Devices: devices})
	shape := job.Shape{Pool: "default", Priority: job.Normal, GPUs: 1, Class: job.ClassAny}
	a.shapes.add(shape.Queue())
	got := values(t, r)
	uuid := device.SimulatedUUID("h", 0)
	for series, want := range map[string]float64{
		"gpuqd_ready": 0, "gpuqd_taking": 0, "gpuqd_drained": 0, "gpuqd_ledger_reachable": 0, "gpuqd_attempts_held": 0,
		"gpuqd_slots state=free": 3, "gpuqd_slots state=busy": 0, "gpuqd_devices state=free": 2, "gpuqd_devices state=sick": 0,
		"gpuqd_device_memory_bytes device_uuid=" + uuid:                            5,
		"gpuqd_device_info device_uuid=" + uuid + " index=0 model= simulated=true": 1,
		"gpuqd_attempts_total outcome=succeeded":                                   0,
		"gpuqd_control_requests_total code=ok verb=submit":                         0,
		"gpuqd_loops_stuck":                       0,
		"gpuqd_device_breakers_open scope=device": 0,
		"gpuqd_device_breakers_open scope=host":   0,
		"gpuqd_queue_room queue=" + shape.Queue(): 0,
	} {
		if value, ok := got[series]; !ok || value != want {
			t.Errorf("%s is %v (there: %v), want %v", series, value, ok, want)
		}
	}
	if _, ok := got["gpuqd_lease_left_seconds"]; ok {
		t.Error("there is a lease before the first session")
	}
}
