package agent

import (
	"context"
	"errors"
	"sync"
	"time"
)

// reach is whether the ledger answers. While it does not, nothing is taken, and
// intake is left to daemons that reach it.
type reach struct {
	mu  sync.Mutex // held over Pause and Resume, so that they keep their order
	why string     // "" while it answers
}

func (r *reach) trouble() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why
}

// ledgerFailed notes that the ledger is out of reach, until the probe succeeds.
func (a *Agent) ledgerFailed(err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	a.reach.mu.Lock()
	defer a.reach.mu.Unlock()
	if a.reach.why == "" {
		a.log.Warn("ledger is out of reach; taking no work until it answers", "err", err)
		a.broker.PauseSubmit()
	}
	a.reach.why = err.Error()
}

// ledgerFailedIn is ledgerFailed for a caller whose own time may have run out:
// that says nothing of the ledger.
func (a *Agent) ledgerFailedIn(ctx context.Context, err error) {
	if ctx.Err() == nil {
		a.ledgerFailed(err)
	}
}

// probeInterval is how often a ledger that failed is asked whether it is back.
const probeInterval = time.Second

func (a *Agent) probeLoop(ctx context.Context) error {
	return a.every(ctx, "probe", probeInterval, func(ctx context.Context) {
		if a.reach.trouble() == "" || a.ledger.Probe(ctx, a.now()) != nil {
			return
		}
		a.reach.mu.Lock()
		defer a.reach.mu.Unlock()
		a.reach.why = ""
		a.log.Info("ledger answers again")
		a.broker.ResumeSubmit()
		a.wakeUp()
	})
}

// holdOff keeps a host from taking work for a while, with the reason.
type holdOff struct {
	mu     sync.Mutex
	until  time.Time
	reason string
}

// holdOffTime is how long a host that could not start an attempt takes none.
const holdOffTime = 15 * time.Second

func (h *holdOff) set(now time.Time, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.until, h.reason = now.Add(holdOffTime), reason
}

// why returns the reason while it holds, else "".
func (h *holdOff) why(now time.Time) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Before(h.until) {
		return h.reason
	}
	return ""
}
