package campaign

import (
	"sync"
	"time"

	"gpuqd/daemon/job"
)

// probe is a small job that only one host may run. It is submitted when the time
// to normal work begins to count: that time is over when the probe has succeeded.
type probe struct {
	id   job.ID
	host string
	from time.Time
}

// probes are those of a campaign, by the number of their fault; 0 is before the
// first.
type probes struct {
	mu  sync.Mutex
	all map[int][]probe
}

func (p *probes) add(fault int, probe probe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[fault] = append(p.all[fault], probe)
}

func (p *probes) list() map[int][]probe {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all
}

// probeSpec is what a probe asks for. Its shape is its host's own, so it waits
// behind no other work but for a slot.
func probeSpec(program, witness, host string) job.Spec {
	j := Job{Kind: Probe}
	s := j.Spec(program, witness)
	s.Name, s.Pool, s.Priority = "probe-"+host, host, job.High
	return s
}
