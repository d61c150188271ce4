package bench

import (
	"encoding/json"
	"os"
	"time"

	"gpuqd/test/bench/floor"
)

// Result is what a run has measured. It is kept in test/bench/results, and the
// page docs/performance.md is written from it.
type Result struct {
	Began   time.Time `json:"began"`
	Minutes float64   `json:"minutes"`
	Machine Machine   `json:"machine"`
	Options Options   `json:"options"`

	Submit       Spread    `json:"submit_jobs_per_second"` // gpuqctl submit -f, one per batch
	Latency      Spread    `json:"latency_ms"`             // submission to first instruction, idle cluster
	WithGpuqctl  Spread    `json:"latency_with_gpuqctl_ms"`
	Payload      Spread    `json:"payload_ms"`      // the payload's own start, without a queue
	Rate         Spread    `json:"jobs_per_second"` // of /bin/true, one per batch
	Share        float64   `json:"device_time_share"`
	Gap          Spread    `json:"device_gap_ms"`
	Waiting      []Waiting `json:"waiting"`
	Daemon       Idle      `json:"gpuqd_idle"`
	Shim         Idle      `json:"shim_idle"`
	FloorLatency Spread    `json:"floor_latency_ms"`

	Recipe floor.Recipe `json:"recipe"`
	Rounds []Round      `json:"rounds"`
}

// Machine is what was measured on.
type Machine struct {
	CPU        string    `json:"cpu"`
	Cores      int       `json:"cores"`
	Memory     float64   `json:"memory_gib"`
	Kernel     string    `json:"kernel"`
	FileSystem string    `json:"file_system"` // of ledger, journal and queues
	Load       []float64 `json:"load"`        // average of 1, 5 and 15 minutes, before the run

	Commit   string `json:"commit"`
	Go       string `json:"go"`
	RabbitMQ string `json:"rabbitmq"`
	Redis    string `json:"redis"`
	Ledger   string `json:"ledger"`
	Cgroups  bool   `json:"cgroups"` // whether attempts get one
}

// Save writes a result to a file.
func (r *Result) Save(path string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// Load reads a result from a file.
func Load(path string) (*Result, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Result)
	return r, json.Unmarshal(text, r)
}

// sides collects a figure of each round: of gpuqd, of the floor, and the share of
// the first in the second.
func (r *Result) sides(of func(Side) float64) (gpuqd, floor, shares Spread) {
	var lists [3][]float64
	for _, round := range r.Rounds {
		a, b := of(round.Gpuqd), of(round.Floor)
		lists[0], lists[1], lists[2] = append(lists[0], a), append(lists[1], b), append(lists[2], ratio(a, b))
	}
	return spreadOf(lists[0]), spreadOf(lists[1]), spreadOf(lists[2])
}

func rateOf(s Side) float64    { return s.Rate }
func latencyOf(s Side) float64 { return s.Latency.P50 }
