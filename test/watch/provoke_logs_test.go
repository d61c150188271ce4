package watch

import (
	"bytes"
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"
)

var logFaults = []provocation{
	{
		fault:  "Loki is killed and kept down, while jobs log",
		strike: lokiDown,
		alerts: []wanted{{alert: "LogsNotArriving"}},
	},
	{
		fault:  "a host that was cut off sends lines that are older than Loki takes",
		strike: linesTooOld,
		alerts: []wanted{{alert: "LogsLost"}},
	},
	{
		fault:  "journald stands still (SIGSTOP) while jobs start and end",
		strike: journaldFrozen,
		alerts: []wanted{{alert: "GpuqdLogLost", labels: of("worker_1")}},
	},
	{
		fault:  "a unit logs 100,000 lines at once, more than journald's limit",
		strike: journaldFlooded,
		alerts: []wanted{{alert: "JournaldDrops", labels: of("worker_1")}},
	},
}

// lokiDown has every host log: one that has nothing to send misses nobody.
func lokiDown(t *testing.T, s *Site) func() {
	up := s.down(t, "loki")
	s.submitMany(t, 60, 1, "echo", "is anybody there?")
	return up
}

func linesTooOld(t *testing.T, s *Site) func() {
	const agent = `{"streams": [{"stream": {"job": "workers", "host": "worker_9", "level": "info"}, "values": [["%d", "late"]]}]}`
	body := fmt.Sprintf(agent, time.Now().Add(-60*day).UnixNano())
	resp, err := http.Post(string(s.Loki)+"/loki/api/v1/push", "application/json", bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Fatalf("Loki answers %s to a line of two months ago", resp.Status)
	}
	return nothing
}

func journaldFrozen(t *testing.T, s *Site) func() {
	const unit = "journald_1"
	if err := s.Signal(unit, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.submitMany(t, 100, 0, "true")
	return func() {
		if err := s.Signal(unit, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}
}

func journaldFlooded(t *testing.T, s *Site) func() {
	s.floodTwice(t, unitCgroup(t), 100000)
	return nothing
}
