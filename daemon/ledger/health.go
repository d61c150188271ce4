package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gpuqd/daemon/health"

	"github.com/google/uuid"
)

// Names of the checks.
const (
	checkIdentity = "identity"
	checkRace     = "compare-and-set"
	checkLatency  = "latency"
)

// Inspector is a store that can say how it fares beyond what every store does.
type Inspector interface {
	Inspect(ctx context.Context) []health.Check
}

// Inspection says what Inspect is to look at.
type Inspection struct {
	// Renew is the interval of renewals: a compare-and-set has to be much faster.
	Renew time.Duration
	// Shared looks at what is the same whichever host asks, too.
	Shared bool
}

const (
	// inspectRounds is how many races Inspect holds. The start held more.
	inspectRounds = 2
	// latencyRounds is how many compare-and-sets the latency is taken from.
	latencyRounds = 20
)

// Inspect looks at the ledger; it changes nothing but scratch documents, which
// it removes.
func (l *Ledger) Inspect(ctx context.Context, o Inspection) []health.Check {
	checks := []health.Check{l.inspectLatency(ctx, o.Renew)}
	if checks[0].State == health.Fail {
		return checks // it does not answer: the rest would say so again, each after its timeout
	}
	checks = append([]health.Check{health.Good(checkIdentity, "%s, id %s", l.Kind(), l.ID())}, checks...)
	if o.Shared {
		checks = append(checks, l.inspectRace(ctx))
	}
	if s, ok := bare(l.store).(Inspector); ok && o.Shared {
		checks = append(checks, s.Inspect(ctx)...)
	}
	return checks
}

// bare returns the store that tells nobody of its operations.
func bare(s Store) Store {
	if o, ok := s.(observed); ok {
		return bare(o.Store)
	}
	return s
}

func (l *Ledger) inspectRace(ctx context.Context) health.Check {
	for range inspectRounds {
		err := checkCAS(ctx, l.store)
		if errors.Is(err, ErrUnfit) {
			return health.Bad(checkRace, health.Fail, "stop every gpuqd at once and move the ledger to a server that keeps its word: jobs could be run and committed twice", "%v", err)
		}
		if err != nil {
			return health.Bad(checkRace, health.Unknown, "run gpuqctl doctor again when the ledger answers", "%v", err)
		}
	}
	return health.Good(checkRace, "of %d racing compare-and-sets one won, %d times out of %d", checkRacers, inspectRounds, inspectRounds)
}

// inspectLatency times compare-and-sets on a scratch document.
func (l *Ledger) inspectLatency(ctx context.Context, renew time.Duration) health.Check {
	times, err := l.timeUpdates(ctx)
	if err != nil {
		advice := "see that a majority of the replica set's members run and that this host reaches them; until then nothing is claimed or committed, and after lease.ttl running jobs freeze"
		if l.Kind() == "sqlite" {
			advice = "see that the disk of ledger.path has room and that no process holds the file's lock; until then nothing is claimed or committed, and after lease.ttl running jobs freeze"
		}
		return health.Bad(checkLatency, health.Fail, advice, "the %s ledger does not answer: %v", l.Kind(), err)
	}
	median, most := health.Spread(times)
	saw := fmt.Sprintf("a compare-and-set takes %s (median of %d; at most %s); leases are renewed every %s",
		health.Figure(median), len(times), health.Figure(most), health.Figure(renew))
	advice := "find out what slows it down (disk, load, network): renewals that take too long freeze this host's jobs; or lengthen lease.ttl and lease.renew on every host"
	switch {
	case median > renew:
		return health.Bad(checkLatency, health.Fail, advice, "%s", saw)
	case median > renew/10 || most > renew/2:
		return health.Bad(checkLatency, health.Warn, advice, "%s", saw)
	}
	return health.Good(checkLatency, "%s", saw)
}

func (l *Ledger) timeUpdates(ctx context.Context) ([]time.Duration, error) {
	id := uuid.NewString()
	if err := l.store.Insert(ctx, Scratch, id, mustJSON(map[string]any{"id": id, "n": 0})); err != nil {
		return nil, err
	}
	defer func() { _ = l.store.Delete(context.WithoutCancel(ctx), Scratch, id) }() // a leftover harms nobody
	times := make([]time.Duration, 0, latencyRounds)
	for n := range latencyRounds {
		began := time.Now()
		if _, err := l.store.Update(ctx, Scratch, id, []Cond{{"n", Eq, n}}, Update{Set: map[string]any{"n": n + 1}}); err != nil {
			return nil, err
		}
		times = append(times, time.Since(began))
	}
	return times, nil
}
