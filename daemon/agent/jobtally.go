package agent

import (
	"context"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
)

const (
	// tallyInterval is how often jobs are counted for the metrics, at most.
	tallyInterval = time.Minute
	// tallyStale is the age at which a count is told no more: another host counts now,
	// or none can.
	tallyStale = 3 * tallyInterval
	// tallyTimeout bounds a count: takeovers wait for its end.
	tallyTimeout = 5 * time.Second
	// tallyMost bounds what is counted in each state.
	tallyMost = 10_000
)

// jobTally is a count of the ledger's jobs that are not over.
type jobTally struct {
	at     time.Time
	counts map[job.State]int // nil where they could not be counted
}

// tallyJobs counts the jobs for the metrics, once a minute on one host of the site: the
// first live one by name. Two that differ over who that is count both, for a while, and
// to the same. A ledger that does not count them in time is not out of reach for that:
// it is the largest question that is asked, and no job waits for the answer.
func (a *Agent) tallyJobs(ctx context.Context, hosts []*ledger.Host) {
	last := a.tally.Load()
	if !a.metrics.wanted || !firstLive(a.host, hosts) || last != nil && a.clock.Now().Sub(last.at) < tallyInterval {
		return
	}
	now := a.clock.Now()
	counting, cancel := context.WithTimeout(ctx, tallyTimeout)
	defer cancel()
	counts, err := a.ledger.Unfinished(counting, tallyMost)
	if err != nil && ctx.Err() == nil {
		a.log.Warn("jobs were not counted for the metrics; the next try is in a minute", "err", err)
	}
	a.tally.Store(&jobTally{at: now, counts: counts})
}

// firstLive reports whether a host is the first by name of those with a live session.
func firstLive(name string, hosts []*ledger.Host) bool {
	found := false
	for _, h := range hosts {
		if h.Session.State != ledger.Live {
			continue
		}
		if h.Name < name {
			return false
		}
		found = found || h.Name == name
	}
	return found
}

// jobsCounted is the last count, none where it is old.
func (a *Agent) jobsCounted() map[job.State]int {
	t := a.tally.Load()
	if t == nil || a.clock.Now().Sub(t.at) > tallyStale {
		return nil
	}
	return t.counts
}
