package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"gpuqd/daemon/broker"
)

// brokerWay asks whichever daemon takes the request from the broker. A
// submission goes to the queue gpuq.submit, where it outlasts a moment without
// daemons; everything else to gpuq.control.
type brokerWay struct {
	name string
	load func() (broker.Config, error)

	mu        sync.Mutex
	requester *broker.Requester // nil until first used; it reconnects by itself
}

var _ Way = (*brokerWay)(nil)

// Name implements Way.
func (w *brokerWay) Name() string { return w.name }

// Close implements Way.
func (w *brokerWay) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.requester != nil {
		w.requester.Close()
		w.requester = nil
	}
}

// Ask implements Way.
func (w *brokerWay) Ask(ctx context.Context, verb Verb, request []byte) ([]byte, error) {
	r, err := w.connect(ctx)
	if err != nil {
		return nil, err
	}
	var body []byte
	if verb == VerbSubmit {
		var req Request
		if err := json.Unmarshal(request, &req); err != nil {
			return nil, err
		}
		body, err = r.Submit(ctx, req.Args)
	} else {
		body, err = r.Ask(ctx, "", request)
	}
	if err != nil && mayHaveLeft(err) {
		return nil, fmt.Errorf("%w: %w", errSent, err)
	}
	return body, err
}

// mayHaveLeft reports whether a daemon may have the request, or get it yet.
func mayHaveLeft(err error) bool {
	switch {
	case errors.Is(err, broker.ErrNoReply), errors.Is(err, broker.ErrBlocked):
		return true
	case errors.Is(err, broker.ErrUnreachable), errors.Is(err, broker.ErrDenied),
		errors.Is(err, broker.ErrNoDaemon), errors.Is(err, broker.ErrNoHost):
		return false
	}
	return true
}

func (w *brokerWay) connect(ctx context.Context) (*broker.Requester, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.requester == nil {
		cfg, err := w.load()
		if err != nil {
			return nil, err
		}
		r, err := broker.DialRequester(ctx, cfg)
		if err != nil {
			return nil, err
		}
		w.requester = r
	}
	return w.requester, nil
}
