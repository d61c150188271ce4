package supervisor

import (
	"slices"
	"sync"
)

// End says what Close does with the processes.
type End int

// The ends of a supervisor.
const (
	Leave End = iota // they run on, for a later supervisor
	Stop             // SIGTERM, grace, SIGKILL, one after the other, last added first
	Abort            // SIGKILL, all at once
)

// Close ends the loops, then does with the processes as told. It is idempotent
// and returns when all is quiet.
func (s *Supervisor) Close(end End) {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	services := slices.Clone(s.services)
	s.mu.Unlock()
	s.cancel()
	s.loops.Wait()
	if again {
		return
	}
	slices.Reverse(services)
	var all sync.WaitGroup
	for _, service := range services {
		switch end {
		case Leave:
			service.leave()
		case Stop:
			service.finish(false)
		case Abort:
			all.Go(func() { service.finish(true) })
		}
	}
	all.Wait()
}

// leave lets the process run on; only the watch over an adopted one ends.
func (s *service) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range []process{s.current, s.found} {
		if a, ok := p.(*adopted); ok && a != nil {
			a.leave()
		}
	}
}

// finish ends the process after the loop has ended.
func (s *service) finish(abrupt bool) {
	p := s.running()
	s.mu.Lock()
	if p == nil && s.found != nil {
		p = s.found
	}
	s.current, s.found = nil, nil
	s.mu.Unlock()
	if p != nil && abrupt {
		p.Kill()
	} else if p != nil {
		p.Stop(s.unit.StopGrace)
	}
	if a, ok := p.(*adopted); ok {
		a.leave()
	}
	s.sup.unrecord(s.unit.Process.Name)
}
