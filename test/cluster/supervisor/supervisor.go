package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options say how a supervisor works.
type Options struct {
	// RunDir holds a record per process, by which a later supervisor finds
	// them. "" keeps none, for processes that do not outlive this one.
	RunDir string
	// PauseMin lies between an end and the next start, and doubles up to
	// PauseMax while a unit does not settle. 0 is 200 ms and 10 s.
	PauseMin, PauseMax time.Duration
	Log                *slog.Logger // nil logs nothing
}

// Supervisor keeps units running until Close.
type Supervisor struct {
	opts    Options
	log     *slog.Logger
	ctx     context.Context // of the loops
	cancel  context.CancelFunc
	loops   sync.WaitGroup
	records map[string]record // found at the start and not claimed by a unit yet

	mu       sync.Mutex
	services []*service
	closed   bool
	written  map[string]int // pid last recorded, by name
}

// New returns a supervisor without units. It reads the records of an earlier
// one; the processes behind them run on until Add claims or EndStrays ends them.
func New(opts Options) (*Supervisor, error) {
	if opts.PauseMin == 0 {
		opts.PauseMin = 200 * time.Millisecond
	}
	if opts.PauseMax == 0 {
		opts.PauseMax = 10 * time.Second
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s := &Supervisor{opts: opts, log: opts.Log, written: make(map[string]int)}
	if opts.RunDir != "" {
		if err := os.MkdirAll(opts.RunDir, 0o700); err != nil {
			return nil, fmt.Errorf("prepare the supervisor: %w", err)
		}
		records, err := readRecords(opts.RunDir)
		if err != nil {
			return nil, err
		}
		s.records = records
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Add begins to keep a unit running. A process that an earlier supervisor left
// is adopted where it is what would be started now, else ended first.
func (s *Supervisor) Add(u Unit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := u.Process.Name
	if s.closed {
		return fmt.Errorf("add %s: the supervisor is closed", name)
	}
	if name == "" || strings.ContainsAny(name, "/ ") {
		return fmt.Errorf("add a unit: %q is no name", name)
	}
	if s.find(name) != nil {
		return fmt.Errorf("add %s: there is a unit of that name", name)
	}
	var found *adopted
	if r, ok := s.records[name]; ok {
		delete(s.records, name)
		found = adopt(r)
		if found != nil && r.Fingerprint != u.Fingerprint {
			s.log.Info("unit replaced", slog.String("unit", name), slog.String("reason", "its program or settings changed"))
			found.Stop(graceOf(u.StopGrace))
			found.leave()
			found = nil
		}
	}
	service := newService(s, u, found)
	s.services = append(s.services, service)
	s.loops.Go(func() { service.loop(s.ctx) })
	return nil
}

func graceOf(grace time.Duration) time.Duration {
	if grace == 0 {
		return defaultStopGrace
	}
	return grace
}

// EndStrays ends the recorded processes that no unit has claimed, and returns
// their names.
func (s *Supervisor) EndStrays() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name, r := range s.records {
		if found := adopt(r); found != nil {
			found.Kill()
			found.leave()
			names = append(names, name)
		}
		if err := removeRecord(s.opts.RunDir, name); err != nil {
			return names, fmt.Errorf("forget %s: %w", name, err)
		}
	}
	clear(s.records)
	slices.Sort(names)
	return names, nil
}

// Status returns all units in the order in which they were added.
func (s *Supervisor) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Status, len(s.services))
	for i, service := range s.services {
		list[i], _ = service.get()
	}
	return list
}

// Adopted reports whether a unit runs as an earlier supervisor started it.
func (s *Supervisor) Adopted(name string) bool {
	service, err := s.get(name)
	if err != nil {
		return false
	}
	status, _ := service.get()
	return status.Adopted
}

// failuresMax is how often a start may come to nothing before Wait says so.
const failuresMax = 3

// Wait waits until a unit runs. It gives up when ctx ends, when the unit is kept
// down, when its Check refuses the start, or after three starts in vain; the
// supervisor itself goes on trying.
func (s *Supervisor) Wait(ctx context.Context, name string) error {
	service, err := s.get(name)
	if err != nil {
		return err
	}
	for {
		status, changed := service.get()
		switch {
		case status.Phase == Running:
			return nil
		case status.Phase == Down && !service.isWanted():
			return fmt.Errorf("%s is kept down", name)
		case status.Blocked && status.Problem != "":
			return fmt.Errorf("start %s: %s", name, status.Problem)
		case status.Failures >= failuresMax:
			return fmt.Errorf("start %s: %s", name, status.Problem)
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			return fmt.Errorf("wait for %s: the supervisor is closed", name)
		case <-ctx.Done():
			return fmt.Errorf("wait for %s, whose log is %s: %w", name, status.LogPath, context.Cause(ctx))
		}
	}
}

// Start wants a unit up again, skips its pause, and waits until it runs.
func (s *Supervisor) Start(ctx context.Context, name string) error {
	service, err := s.get(name)
	if err != nil {
		return err
	}
	service.set(func(st *Status) { st.Failures, st.Blocked, st.Problem = 0, false, "" })
	service.want(true, false)
	return s.Wait(ctx, name)
}

// KeepDown ends a unit, at once or with SIGTERM and grace, keeps it down, and
// waits until nothing runs.
func (s *Supervisor) KeepDown(ctx context.Context, name string, abrupt bool) error {
	service, err := s.get(name)
	if err != nil {
		return err
	}
	service.want(false, abrupt)
	for {
		status, changed := service.get()
		if status.Phase == Down {
			return nil
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			return fmt.Errorf("keep %s down: the supervisor is closed", name)
		case <-ctx.Done():
			return fmt.Errorf("keep %s down: %w", name, context.Cause(ctx))
		}
	}
}

// Kill ends a unit's process group with SIGKILL, as a crash would. It is
// started again.
func (s *Supervisor) Kill(name string) error { return s.Signal(name, syscall.SIGKILL) }

// Signal sends a signal to a unit's process group.
func (s *Supervisor) Signal(name string, sig syscall.Signal) error {
	service, err := s.get(name)
	if err != nil {
		return err
	}
	p := service.running()
	if p == nil {
		return fmt.Errorf("signal %s: it does not run", name)
	}
	if err := p.Signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", name, err)
	}
	return nil
}

func (s *Supervisor) get(name string) (*service, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if service := s.find(name); service != nil {
		return service, nil
	}
	var names []string
	for _, service := range s.services {
		names = append(names, service.unit.Process.Name)
	}
	return nil, fmt.Errorf("there is no %q here: choose from %s", name, strings.Join(names, ", "))
}

// find returns the named service or nil; the caller holds mu.
func (s *Supervisor) find(name string) *service {
	for _, service := range s.services {
		if service.unit.Process.Name == name {
			return service
		}
	}
	return nil
}

// record writes a process's record where that is not done yet.
func (s *Supervisor) record(name string, pid int, fingerprint string) error {
	if s.opts.RunDir == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.written[name] == pid {
		return nil
	}
	r, err := newRecord(name, pid, fingerprint)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrProcessDone) {
		return err // it has ended already, as Start will find
	}
	if err == nil {
		err = r.write(s.opts.RunDir)
	}
	if err != nil {
		return fmt.Errorf("record process %d of %s: %w", pid, name, err)
	}
	s.written[name] = pid
	return nil
}

func (s *Supervisor) unrecord(name string) {
	if s.opts.RunDir == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.written, name)
	if err := removeRecord(s.opts.RunDir, name); err != nil {
		// Harmless: the record names a process that is gone.
		s.log.Warn("record not removed", slog.String("unit", name), slog.Any("err", err))
	}
}
