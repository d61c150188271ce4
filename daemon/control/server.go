package control

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// limits bound what clients of the socket can take. A client that is slower
// loses its connection, never the daemon a goroutine.
type limits struct {
	conns        int           // at once; more are told to come back
	connsPerUser int           // of one user who is no operator, so that nobody locks the others out
	idle         time.Duration // between two requests
	line         time.Duration // from a request's first byte to its last
	write        time.Duration // of one response
	request      time.Duration // of one request in the handler
	stopGrace    time.Duration // for changes that are under way at a stop
	// holds is how many states requests from the broker are held at once: each
	// takes one of the few workers that serve everybody else, too.
	holds int
}

var defaultLimits = limits{
	conns: 256, connsPerUser: 64,
	idle: time.Minute, line: 10 * time.Second, write: 30 * time.Second, request: 30 * time.Second,
	stopGrace: 5 * time.Second, holds: 16,
}

// Options are what a Server needs to know of its daemon.
type Options struct {
	Socket string // path; "" serves no socket, only deliveries
	// Operators are asked for at each request and may act on everybody's jobs: local
	// users and broker accounts alike. Over the socket root, and the user whom the
	// daemon runs as, always may. Nil is nobody else.
	Operators func() []string
	// Forwards reports whether a broker account is that of a host, whose word
	// on whose behalf it asks is believed. Nil believes none.
	Forwards func(account string) bool
	// Observe is told of every request that was carried out or refused: its verb
	// ("unknown" for what is none), its code or OK, and the time it took. Nil for none.
	Observe func(verb, code string, took time.Duration)
}

// Server answers operators: over the socket once started, and whatever is
// given to ServeDelivery.
type Server struct {
	handler Handler
	opts    Options
	limits  limits

	// Two reasons to stop: reads end at once, changes may finish.
	reads, changes         context.Context
	stopReads, stopChanges context.CancelCauseFunc

	holds chan struct{} // one per states request from the broker that is held

	wg       sync.WaitGroup // the accept loop and every connection
	mu       sync.Mutex     // guards what follows
	listener *net.UnixListener
	stopping bool
	conns    map[*conn]struct{}
	perUser  map[string]int
}

var errStopping = Errorf(CodeUnavailable, "try again, or ask another host", "the daemon is stopping")

// NewServer returns a server that is not started.
func NewServer(h Handler, opts Options) *Server {
	s := &Server{handler: h, opts: opts, limits: defaultLimits, conns: map[*conn]struct{}{}, perUser: map[string]int{}}
	s.holds = make(chan struct{}, s.limits.holds)
	s.reads, s.stopReads = context.WithCancelCause(context.Background())
	s.changes, s.stopChanges = context.WithCancelCause(context.Background())
	return s
}

// Start listens on the socket and returns. It replaces the socket file of a
// daemon that is gone, and returns an error where one answers.
func (s *Server) Start() error {
	if s.opts.Socket == "" {
		return nil
	}
	l, err := listen(s.opts.Socket)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || s.listener != nil {
		return errors.Join(errors.New("start the control server: it was started or stopped before"), l.Close())
	}
	s.listener = l
	s.wg.Go(func() { s.accept(l) })
	return nil
}

// Stop closes the socket, ends idle connections and held reads at once, gives
// changes a few seconds, and returns when every goroutine is done. It
// may be called before Start, and again.
func (s *Server) Stop() {
	s.mu.Lock()
	s.stopping = true
	if s.listener != nil {
		_ = s.listener.Close() // closed already at a second call
	}
	for c := range s.conns {
		c.interrupt()
	}
	s.mu.Unlock()
	s.stopReads(errStopping)
	late := time.AfterFunc(s.limits.stopGrace, func() { s.stopChanges(errStopping) })
	defer late.Stop()
	s.wg.Wait()
	s.stopChanges(errStopping)
}

// accept takes connections until the listener is closed. Running out of file
// descriptors must not end it.
func (s *Server) accept(l *net.UnixListener) {
	for {
		nc, err := l.AcceptUnix()
		switch {
		case err == nil:
			s.admit(nc)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			slog.Warn("control connection not accepted", "err", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-s.reads.Done():
				return
			}
		}
	}
}

// admit starts to serve a connection, or refuses it with the reason.
func (s *Server) admit(nc *net.UnixConn) {
	c := &conn{UnixConn: nc, server: s}
	caller, err := s.peer(nc)
	if err != nil {
		slog.Warn("control peer not identified", "err", err)
		c.refuse(Errorf(CodeForbidden, "", "the kernel does not say who you are: %v", err))
		return
	}
	c.caller = caller
	s.mu.Lock()
	var refusal *Error
	switch {
	case s.stopping:
		refusal = errStopping
	case len(s.conns) >= s.limits.conns:
		refusal = Errorf(CodeUnavailable, "try again in a moment", "the daemon serves %d connections already", s.limits.conns)
	case !caller.Operator && s.perUser[caller.User] >= s.limits.connsPerUser:
		refusal = Errorf(CodeUnavailable, "end some, or wait for many jobs in one gpuqctl wait",
			"%s has %d connections to the daemon already", caller.User, s.limits.connsPerUser)
	default:
		s.conns[c] = struct{}{}
		s.perUser[caller.User]++
		s.wg.Go(c.serve)
	}
	s.mu.Unlock()
	if refusal != nil {
		c.refuse(refusal)
	}
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.perUser[c.caller.User]--; s.perUser[c.caller.User] == 0 {
		delete(s.perUser, c.caller.User)
	}
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// peer establishes who is at the other end of a socket connection.
func (s *Server) peer(nc *net.UnixConn) (Caller, error) {
	uid, err := peerUID(nc)
	if err != nil {
		return Caller{}, err
	}
	user := userName(uid)
	operator := uid == 0 || int(uid) == os.Geteuid() || s.isOperator(user)
	return Caller{User: user, Operator: operator, Via: ViaSocket}, nil
}

func (s *Server) isOperator(name string) bool {
	return s.opts.Operators != nil && slices.Contains(s.opts.Operators(), name)
}

// ServeDelivery answers a request that came through the broker; userID is the
// user-id property, which the broker has validated. It can take as long as
// StatesWaitMax, or 30 s where the handler is slow: call it apart
// from what else the connection has to do.
func (s *Server) ServeDelivery(ctx context.Context, userID string, body []byte) []byte {
	req, refusal := parseRequest(body)
	if refusal != nil {
		return encode(fail(refusal))
	}
	caller := Caller{User: userID, Operator: s.isOperator(userID), Via: ViaBroker}
	if req.Caller != nil {
		if s.opts.Forwards == nil || !s.opts.Forwards(userID) {
			return encode(fail(errImpersonation))
		}
		caller = *req.Caller
		caller.Via = ViaForwarded
	}
	ctx, cancel := context.WithTimeout(ctx, s.limits.request)
	defer cancel()
	if req.Verb == VerbStates {
		select {
		case s.holds <- struct{}{}:
			defer func() { <-s.holds }()
		default:
			ctx = context.WithValue(ctx, unheld{}, true)
		}
	}
	return encode(s.dispatch(ctx, caller, req))
}

var errImpersonation = Errorf(CodeForbidden, "leave caller out", "only a host may ask on behalf of another user")

func parseRequest(body []byte) (Request, *Error) {
	var req Request
	if len(body) > RequestBytesMax {
		return req, errOversized
	}
	if err := json.Unmarshal(body, &req); err != nil {
		return req, Errorf(CodeBadRequest, "send one JSON object with schema, verb and args", "the request is not understood: %v", err)
	}
	return req, nil
}

var errOversized = Errorf(CodeBadRequest, "put large inputs in a file", "the request has more than %d bytes", RequestBytesMax)

// encode returns the response as it travels, without a line end.
func encode(r Response) []byte {
	body, err := json.Marshal(r)
	if err != nil {
		panic("a response is plain data: " + err.Error())
	}
	if len(body) > ResponseBytesMax {
		return encode(fail(Errorf(CodeBadRequest, "ask for fewer", "the reply has %d bytes, more than the %d it may have", len(body), ResponseBytesMax)))
	}
	return body
}
