package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"gpuqd/test/cluster/supervisor"
)

// Verb is what a supervisor in the background is asked to do.
type Verb string

// The verbs.
const (
	VerbHello    Verb = "hello"     // who are you? answers Programs
	VerbUp       Verb = "up"        // progress lines until all runs
	VerbStatus   Verb = "status"    // answers Units
	VerbKill     Verb = "kill"      // Name: SIGKILL; it is started again
	VerbKillHost Verb = "kill-host" // Name: the daemon and its jobs; kept down
	VerbKeepDown Verb = "keep-down" // Name
	VerbStart    Verb = "start"     // Name
	VerbDown     Verb = "down"      // end everything, and yourself
	VerbLeave    Verb = "leave"     // end yourself only
)

// Request is one line from a client.
type Request struct {
	Verb Verb   `json:"verb"`
	Name string `json:"name,omitempty"`
}

// Reply is one line to a client: progress, or the end of the answer.
type Reply struct {
	Progress  string              `json:"progress,omitempty"`
	Done      bool                `json:"done,omitempty"` // the last one
	Error     string              `json:"error,omitempty"`
	Programs  string              `json:"programs,omitempty"`  // fingerprint of the programs at the start
	Monitored bool                `json:"monitored,omitempty"` // the cluster is watched
	Failed    bool                `json:"failed,omitempty"`    // the start failed and is not tried again
	Ledger    string              `json:"ledger,omitempty"`
	Units     []supervisor.Status `json:"units,omitempty"`
}

// server answers the clients of a cluster that is kept in the background.
type server struct {
	cluster  *Cluster
	programs string
	progress *history
	cancel   context.CancelFunc // of the start
	started  chan struct{}      // closed when Start has returned
	startErr error              // valid then
	leaving  chan struct{}      // closed by the first VerbDown or VerbLeave, when done
	leave    sync.Once
}

// Run keeps the cluster of these options until a client ends it, or ctx ends:
// then servers and daemons are stopped in order, and jobs run on under their
// shims. The caller is the only one who may run it.
func Run(ctx context.Context, opts Options) error {
	programs, err := Programs(opts.BinDir)
	if err != nil {
		return err
	}
	lines := newHistory()
	opts.Orphan = true
	c, err := New(ctx, opts)
	if err != nil {
		return err
	}
	c.progress.to = lines // what New has to say, the client's own New says
	listener, err := listen(c.files.supervisor())
	if err != nil {
		return err
	}
	startCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &server{
		cluster: c, programs: programs, progress: lines, cancel: cancel,
		started: make(chan struct{}), leaving: make(chan struct{}),
	}
	var all sync.WaitGroup
	all.Go(func() {
		s.startErr = c.Start(startCtx)
		lines.close()
		close(s.started)
	})
	all.Go(func() { s.accept(listener, &all) })
	select {
	case <-s.leaving:
	case <-ctx.Done():
		<-s.started
		c.StopInOrder()
	}
	_ = listener.Close() // wakes accept; there is nothing to lose
	all.Wait()
	return nil
}

// listen makes the supervisor's socket. Only one supervisor can: the lock of
// `up` and `down` keeps others away, and a socket that nobody answers is a dead
// one's.
func listen(path string) (net.Listener, error) {
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("another supervisor answers at %s", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", path)
}

func (s *server) accept(listener net.Listener, all *sync.WaitGroup) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // closed
		}
		all.Go(func() { s.answer(conn) })
	}
}

// requestTimeout bounds the wait for a client's line.
const requestTimeout = 5 * time.Second

// answer reads one request and answers it.
func (s *server) answer(conn net.Conn) {
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(requestTimeout)); err != nil {
		return
	}
	line, err := bufio.NewReaderSize(conn, 4096).ReadSlice('\n')
	if err != nil {
		return // the client went away
	}
	out := json.NewEncoder(conn)
	var req Request
	if err := json.Unmarshal(line, &req); err != nil {
		_ = out.Encode(Reply{Done: true, Error: "this is no request"})
		return
	}
	reply := s.do(req, out)
	reply.Done = true
	_ = out.Encode(reply) // a client that left does not need it
	if (req.Verb == VerbDown || req.Verb == VerbLeave) && reply.Error == "" {
		s.leave.Do(func() { close(s.leaving) })
	}
}

// actTimeout bounds what a client asked for; it is longer than the slowest
// start.
const actTimeout = 5 * time.Minute

func (s *server) do(req Request, out *json.Encoder) Reply {
	ctx, cancel := context.WithTimeout(context.Background(), actTimeout)
	defer cancel()
	var err error
	switch req.Verb {
	case VerbHello:
		return Reply{Programs: s.programs, Monitored: s.cluster.Monitored(), Failed: s.failed()}
	case VerbStatus:
		return Reply{Units: s.cluster.Status(), Ledger: s.cluster.ledger.detail}
	case VerbUp:
		if err = s.up(ctx, out); err == nil {
			return Reply{Ledger: s.cluster.ledger.detail}
		}
	case VerbKill:
		err = s.cluster.Kill(req.Name)
	case VerbKillHost:
		err = s.cluster.KillHost(ctx, req.Name)
	case VerbKeepDown:
		err = s.cluster.KeepDown(ctx, req.Name)
	case VerbStart:
		err = s.cluster.StartUnit(ctx, req.Name)
	case VerbDown:
		s.cancel()
		<-s.started
		err = s.cluster.Stop()
	case VerbLeave:
		s.cancel()
		<-s.started
		s.cluster.Leave()
	default:
		err = fmt.Errorf("there is no verb %q", req.Verb)
	}
	if err != nil {
		return Reply{Error: err.Error()}
	}
	return Reply{}
}

// failed reports whether the start has ended in an error.
func (s *server) failed() bool {
	select {
	case <-s.started:
		return s.startErr != nil
	default:
		return false
	}
}

// up tells the progress of the start, then brings up what is down.
func (s *server) up(ctx context.Context, out *json.Encoder) error {
	first := false
	select {
	case <-s.started: // for another client: its progress is history
	default:
		first = true
		for line := range s.progress.follow(ctx) {
			if err := out.Encode(Reply{Progress: line}); err != nil {
				return err // the client left; the start goes on
			}
		}
		<-s.started
	}
	if s.startErr != nil {
		return s.startErr
	}
	if first {
		return nil
	}
	units := s.cluster.Status()
	up := 0
	for _, unit := range units {
		if unit.Phase == supervisor.Running {
			up++
			continue
		}
		began := time.Now()
		if err := s.cluster.StartUnit(ctx, unit.Name); err != nil {
			return err
		}
		if err := out.Encode(Reply{Progress: progressLine(unit.Name, "up again", time.Since(began))}); err != nil {
			return err
		}
	}
	return out.Encode(Reply{Progress: fmt.Sprintf("  %d of %d servers and daemons ran already", up, len(units))})
}
