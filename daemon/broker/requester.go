package broker

import (
	"context"
	"fmt"
	"sync"
)

// Requester is gpuqctl's access to the daemons through the broker: it submits
// and asks, and does nothing of a daemon's. It connects to whichever node
// answers, and again at the next request after the connection was lost.
type Requester struct {
	dialer *dialer

	mu sync.Mutex
	s  *session // nil before the first connect and after Close
}

// DialRequester connects to the broker.
func DialRequester(ctx context.Context, cfg Config) (*Requester, error) {
	d, err := newDialer(cfg.withDefaults())
	if err != nil {
		return nil, err
	}
	r := &Requester{dialer: d}
	if _, err := r.session(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// session returns the current session, connecting where there is none.
func (r *Requester) session(ctx context.Context) (*session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.s != nil && !r.s.isGone() {
		return r.s, nil
	}
	if r.s != nil {
		r.s.close(true)
		r.s = nil
	}
	s, err := r.dialer.dial(ctx, "gpuqctl")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	ch, err := s.openChannel("requests")
	if err == nil {
		s.requests, err = newExchanger(s, ch)
	}
	if err != nil {
		s.close(true)
		return nil, err
	}
	r.s = s
	return s, nil
}

// Request publishes one message as this account and waits for the answer until
// ctx ends. Errors to test for: ErrNoHost, ErrNoDaemon, ErrDenied, ErrNoReply,
// ErrUnreachable, ErrBlocked.
func (r *Requester) Request(ctx context.Context, exchange, routingKey string, body []byte, headers map[string]any) ([]byte, error) {
	s, err := r.session(ctx)
	if err != nil {
		return nil, err
	}
	return s.requests.request(ctx, exchange, routingKey, body, headers)
}

// Submit publishes one job to gpuq.submit and waits for a daemon's reply. After
// ErrNoReply send the same job, with the same UUID, again.
func (r *Requester) Submit(ctx context.Context, body []byte) ([]byte, error) {
	return r.Request(ctx, ExchangeSubmit, "", body, nil)
}

// Ask sends a request to the daemon of a host, or to any daemon if host is "".
func (r *Requester) Ask(ctx context.Context, host string, body []byte) ([]byte, error) {
	key := KeyAny
	if host != "" {
		key = HostKey(host)
	}
	return r.Request(ctx, ExchangeControl, key, body, nil)
}

// Close closes the connection. Requests under way fail.
func (r *Requester) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.s != nil {
		r.s.close(false)
		r.s = nil
	}
}
