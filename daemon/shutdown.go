package main

import (
	"context"
	"log/slog"
	"time"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/power"
)

// hostEnd tells the agent that the host goes down: when logind says so, which waits
// for it, and else when systemd ends the daemon with the system.
type hostEnd struct {
	words    chan agent.Shutdown
	stopping func(context.Context) (bool, error)
	log      *slog.Logger
}

// releaseWithin is how long a stop of the whole system is held up for the release
// of the session, where logind did not say before. The jobs' units are stopped
// before gpuqd's, so it is for commits alone; well within TimeoutStopSec.
const releaseWithin = 20 * time.Second

func newHostEnd(log *slog.Logger) *hostEnd {
	return &hostEnd{words: make(chan agent.Shutdown), stopping: power.Stopping, log: log}
}

// tell passes a word on, while somebody may listen.
func (h *hostEnd) tell(ctx context.Context, n power.Notice) {
	select {
	case h.words <- agent.Shutdown(n):
	case <-ctx.Done():
		if n.Done != nil {
			n.Done()
		}
	}
}

// logind is the part of the daemon that listens to logind.
func (h *hostEnd) logind(ctx context.Context) error {
	return (&power.Logind{Tell: h.tell, Log: h.log}).Run(ctx)
}

// before returns a context that ends after ctx: at once where gpuqd alone is
// stopped, and once the session is released, or cannot be, where the system is.
func (h *hostEnd) before(ctx context.Context) context.Context {
	after, end := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		defer end()
		h.releaseIfStopping(after)
	})
	return after
}

func (h *hostEnd) releaseIfStopping(ctx context.Context) {
	stopping, err := h.stopping(ctx)
	if err != nil {
		// Without systemd nobody can tell: then it is a stop of gpuqd alone.
		h.log.Debug("whether the system stops is not known", "err", err)
	}
	if !stopping {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, releaseWithin)
	defer cancel()
	done := make(chan struct{})
	h.tell(ctx, power.Notice{Down: true, Within: releaseWithin, By: "systemd stops the system", Done: func() { close(done) }})
	select {
	case <-done:
	case <-ctx.Done():
	}
}
