package store

import (
	"encoding/json"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/test/history"
)

// told is what an update of a job tells the history: that its state changes, and
// by which row; that its publication is promised.
type told struct {
	moves    bool
	row      job.Change
	promises bool
	lost     bool // because its message was found lost
}

// tell notes before the call what its effect will record.
func (t *told) tell(u ledger.Update) {
	_, state := u.Set["state"]
	_, published := u.Set["published_at"]
	t.moves, t.promises, t.lost = state, published, u.Inc["republished"] > 0
	if !state {
		return
	}
	if row, ok := u.Push["history"].(job.Change); ok {
		t.row = row
		return
	}
	if text, err := json.Marshal(u.Push["history"]); err == nil {
		_ = json.Unmarshal(text, &t.row) // an update that pushes something else leaves the row empty
	}
}

// recordInsert records a new job. Within Do.
func (s *Server) recordInsert(by string, now *state) {
	var row job.Change
	var history []job.Change
	if json.Unmarshal(now.member("history"), &history) == nil && len(history) > 0 {
		row = history[len(history)-1]
	}
	s.recordChange(by, now, &row)
}

// recordUpdate records what has happened to a job. Within Do.
func (s *Server) recordUpdate(by string, w *write, after *state) {
	before := after.promised
	if w.promises {
		after.promised = after.since
	}
	switch {
	case w.moves:
		s.recordChange(by, after, &w.row)
	case w.promises:
		e := history.Event{
			Kind: history.Republished, Host: by, Job: job.ID(w.id), State: job.State(words(after.member("state"))),
			Attempt: int(integer(after.member("attempt"))), Fence: integer(after.member("fence")),
		}
		if w.lost && s.Needless != nil {
			e.Needless = s.Needless(e.Job, time.Now().Add(before-after.since))
		}
		s.world.Record(e)
	}
}

// recordChange records a transition that a host has written. Within Do.
func (s *Server) recordChange(by string, now *state, row *job.Change) {
	e := history.Event{
		Kind: history.Changed, Job: job.ID(words(now.member("id"))), State: job.State(words(now.member("state"))),
		ID: row.ID, Attempt: int(integer(now.member("attempt"))), Fence: integer(now.member("fence")),
		Class: string(row.Class), Reason: row.Reason, Host: row.Host,
	}
	if e.Host == "" {
		e.Host = by
	}
	if owner := now.member("owner"); e.State.Held() && kindOf(owner) == kindObject {
		e.Host, e.Claim = words(member(owner, "host")), words(member(owner, "claim_id"))
		_ = json.Unmarshal(member(owner, "devices"), &e.Devices) // anything else holds no devices
	}
	s.world.Record(e)
}
