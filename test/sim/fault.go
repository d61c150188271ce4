package sim

import (
	"sync"
	"time"

	"gpuqd/daemon/agent"
	"gpuqd/test/history"
	"gpuqd/test/sim/world"
)

// strike is a fault that waits for its step.
type strike struct {
	fault Fault
	fired bool
}

// arm lets the plan's faults happen: at their times, or at their steps.
func (s *site) arm() {
	for _, f := range s.plan.Faults {
		if f.Step != "" {
			s.striking[f.Step] = append(s.striking[f.Step], &strike{fault: f})
			continue
		}
		s.breaking++
		s.work.Go(func() {
			if s.pause(f.At) {
				s.strike(f)
			}
		})
	}
	if len(s.striking) > 0 || s.watch != nil {
		s.world.OnStep(s.step)
	}
}

// step fires the faults that wait for it.
func (s *site) step(at world.Step) {
	if s.watch != nil {
		s.watch(at)
	}
	for _, waiting := range s.striking[at.Name] {
		f := waiting.fault
		if f.After != at.After || f.Nth != at.Nth || f.Host != "" && f.Host != at.Host {
			continue
		}
		first := false
		s.world.Do(func() {
			if first = !waiting.fired; first {
				waiting.fired = true
				s.breaking++
			}
		})
		if first {
			s.strike(f)
		}
	}
}

// strike breaks what the fault breaks, and arranges that it is mended. It waits
// for nothing.
func (s *site) strike(f Fault) {
	s.world.Note(history.Event{Kind: history.Fault, Host: f.Host, Class: string(f.Kind), Reason: f.String()})
	mend := s.cause(f)
	time.AfterFunc(max(f.For, time.Millisecond), func() {
		if mend != nil && s.over.Err() == nil {
			mend()
		}
		s.world.Do(func() {
			if s.breaking--; s.breaking == 0 {
				s.world.Record(history.Event{Kind: history.Healed})
			}
		})
	})
}

// timedFaultsOver reports whether no fault lasts or is to come, those aside that
// wait for a step. Within the world's instant.
func (s *site) timedFaultsOver() bool { return s.breaking == 0 }

// cause breaks something and returns how it is mended; nil where it mends itself.
func (s *site) cause(f Fault) (mend func()) {
	switch f.Kind {
	case KillDaemon, StopDaemon, FreezeDaemon, CrashHost, FreezeHost, FreezeShims, LateShim:
		return s.causeOnHost(f, s.host(f.Host))
	case ShutDown:
		return s.shutDown(s.host(f.Host))
	case CallOff:
		h := s.host(f.Host)
		h.tell(agent.Shutdown{Down: true, Within: shutDownWithin, By: "the plan"})
		return func() { h.tell(agent.Shutdown{}) }
	case KillShim, KillTree, FullDisk, SlowDisk:
		return s.causeOnDisk(f, s.host(f.Host))
	case StepClock:
		h := s.host(f.Host)
		h.host.StepClock(h.plan.ClockOff + f.Off)
		return func() { h.host.StepClock(h.plan.ClockOff) }
	case CutWire, RefuseWire, FreezePart, Isolate:
		return s.causeOnWire(f)
	case FlushCache:
		s.cache.Flush()
	case FailOver:
		s.store.FailOver(f.For)
	case TornFinds:
		s.store.TornFinds(0.5)
		return func() { s.store.TornFinds(0) }
	case EverythingAt:
		s.queue.Restart()
		var mends []func()
		for _, h := range s.hosts {
			mends = append(mends, s.causeOnHost(Fault{Kind: KillDaemon}, h))
		}
		return func() {
			for _, mend := range mends {
				mend()
			}
		}
	default:
		return s.causeOnBroker(f)
	}
	return nil
}

func (s *site) causeOnHost(f Fault, h *host) (mend func()) {
	switch f.Kind {
	case KillDaemon, StopDaemon:
		h.keepDown()
		if d := h.running(); d != nil && f.Kind == KillDaemon {
			d.process.Kill()
		} else if d != nil {
			d.stop()
		}
		return h.letUp
	case LateShim:
		h.host.Freeze("shim")
		if d := h.running(); d != nil {
			d.process.Kill()
		}
		return func() { h.host.Thaw("shim") }
	case CrashHost:
		h.keepDown()
		h.host.Crash()
		if f.For == 0 {
			return nil
		}
		return func() {
			h.host.Boot()
			h.letUp()
		}
	}
	name := map[FaultKind]string{FreezeDaemon: "gpuqd", FreezeShims: "shim", FreezeHost: ""}[f.Kind]
	h.host.Freeze(name)
	return func() { h.host.Thaw(name) }
}

// shutDown lets a host go down as logind does: its daemon is told, and has a while
// to get ready. Who is not there to be told, or stands still, keeps nobody.
func (s *site) shutDown(h *host) (mend func()) {
	ready := make(chan struct{})
	h.tell(agent.Shutdown{Down: true, Within: shutDownWithin, By: "the plan", Done: sync.OnceFunc(func() { close(ready) })})
	off := make(chan struct{})
	s.work.Go(func() {
		defer close(off)
		timer := time.NewTimer(shutDownWithin)
		defer timer.Stop()
		select {
		case <-ready:
		case <-timer.C:
		case <-s.over.Done():
			return
		}
		// logind takes a moment, too: it goes down at an instant of its own.
		if s.pause(s.world.Between(time.Millisecond, wordMax, h.plan.Name, "down")) {
			h.keepDown()
			h.host.Crash()
		}
	})
	return func() { // later than shutDownWithin
		<-off
		if s.over.Err() == nil {
			h.host.Boot()
			h.letUp()
		}
	}
}

func (s *site) causeOnDisk(f Fault, h *host) (mend func()) {
	switch f.Kind {
	case KillShim:
		h.disk.KillShim()
	case KillTree:
		h.disk.KillTree()
	case FullDisk:
		h.disk.Full(true)
		return func() { h.disk.Full(false) }
	case SlowDisk:
		h.disk.Slow(2 * time.Second)
		return func() { h.disk.Slow(0) }
	}
	return nil
}

func (s *site) causeOnWire(f Fault) (mend func()) {
	link := map[FaultKind]world.Link{
		CutWire: world.Cut, RefuseWire: world.Refused, FreezePart: world.Frozen, Isolate: world.Cut,
	}[f.Kind]
	parts, host := []string{f.Part}, f.Host
	if f.Part == "" {
		parts = wires
	}
	if host == "" {
		host = world.Everyone
	}
	for _, part := range parts {
		s.world.SetLink(host, part, link)
	}
	return func() {
		for _, part := range parts {
			s.world.SetLink(host, part, world.Up)
		}
	}
}

func (s *site) causeOnBroker(f Fault) (mend func()) {
	switch f.Kind {
	case Leaderless:
		s.queue.Leaderless("", true)
		return func() { s.queue.Leaderless("", false) }
	case DropBroker:
		for _, h := range s.some(f.Host) {
			s.queue.Drop(h.plan.Name)
		}
	case RestartAll:
		s.queue.Restart()
	case DiskAlarm:
		s.queue.Alarm(true)
		return func() { s.queue.Alarm(false) }
	case CloseOnGet:
		for _, h := range s.some(f.Host) {
			s.queue.CloseOnGet(h.plan.Name, 2)
		}
	}
	return nil
}
