package store

import (
	"encoding/json"
	"slices"

	"gpuqd/daemon/ledger"
	"gpuqd/test/history"
)

// drained is one drain of a host; the ID tells it from the next of the same.
type drained struct{ host, device, id string }

// drainsOf returns the drains that a host's document has, those of devices after
// its own.
func drainsOf(doc json.RawMessage) []drained {
	var h ledger.Host
	mustDecode(doc, &h)
	var list []drained
	if h.Drain != nil {
		list = append(list, drained{h.Name, "", h.Drain.ID})
	}
	for _, d := range h.DeviceDrains {
		list = append(list, drained{h.Name, d.Device, d.ID})
	}
	return list
}

func (d drained) event(kind history.Kind) history.Event {
	e := history.Event{Kind: kind, Host: d.host}
	if d.device != "" {
		e.Devices = []string{d.device}
	}
	return e
}

// recordDrain records which drains a write has ended and begun. Within Do.
func (s *Server) recordDrain(before, after *state) {
	old, now := drainsOf(before.text), drainsOf(after.text)
	for _, d := range old {
		if !slices.Contains(now, d) {
			delete(s.learnt, d)
			s.world.Record(d.event(history.Undrained))
		}
	}
	for _, d := range now {
		if !slices.Contains(old, d) {
			s.world.Record(d.event(history.Drained))
		}
	}
}

// recordRelease records that a host released its own session; another's expiry is
// no such thing. Within Do.
func (s *Server) recordRelease(after *state) {
	var h ledger.Host
	mustDecode(after.text, &h)
	if h.Session.State == ledger.Closed {
		s.world.Record(history.Event{Kind: history.SessionReleased, Host: h.Name})
	}
}

// recordLearnt records what a host learns from the answer to a renewal: drains
// that are in the ledger still, when the answer comes.
func (s *Server) recordLearnt(answer json.RawMessage) {
	all := drainsOf(answer)
	if len(all) == 0 {
		return
	}
	s.world.Do(func() {
		now := drainsOf(s.docs.of(ledger.Hosts).get(all[0].host).text)
		for _, d := range all {
			if slices.Contains(now, d) && !s.learnt[d] {
				s.learnt[d] = true
				s.world.Record(d.event(history.Learnt))
			}
		}
	})
}
