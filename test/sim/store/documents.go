package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
)

// state is a document from one write to the next. It never changes, but for what
// is kept for the next reader.
type state struct {
	text     []byte // JSON; nobody writes to it
	spans    []span
	since    time.Duration // the write's instant in the world's time
	promised time.Duration // of a job: the instant at which published_at was last set
	older    *state        // before that write; nil where nobody may ask for it any more

	job    *job.Job // text decoded; nil until asked for
	lean   []byte   // text without some members, which leanOf names
	leanOf []string
	room   [memberRoom]span // of spans
}

// memberRoom is how many members a document has without asking for more memory;
// a job has 22.
const memberRoom = 24

func newState(text []byte, since time.Duration) *state {
	s := &state{text: text, since: since, promised: since}
	s.spans = members(text, s.room[:0])
	return s
}

func (s *state) member(name string) []byte {
	i := find(s.text, s.spans, name)
	if i < 0 {
		return nil
	}
	return s.spans[i].valueIn(s.text)
}

// without returns the text without some members.
func (s *state) without(fields []string) []byte {
	if len(fields) == 0 {
		return s.text
	}
	if s.lean != nil && slices.Equal(s.leanOf, fields) {
		return s.lean
	}
	kept := make([]span, 0, memberRoom)
	for _, m := range s.spans {
		if !slices.ContainsFunc(fields, func(f string) bool { return isNamed(m.keyIn(s.text), f) }) {
			kept = append(kept, m)
		}
	}
	s.lean, _ = splice(s.text, kept, nil, make([]span, 0, memberRoom))
	s.leanOf = fields
	return s.lean
}

// asOf returns the state at an instant; nil where there was none, or it was
// dropped.
func (s *state) asOf(at time.Duration) *state {
	for s != nil && s.since > at {
		s = s.older
	}
	return s
}

// document is one document's states.
type document struct {
	id  string
	now *state
}

// collection holds documents in the order in which they were inserted.
type collection struct {
	byID  map[string]*document
	order []*document
}

// documents are all collections of one ledger. The world's instant guards them,
// or the lock of the memory that they are in.
type documents struct {
	all [collections]collection
	// keep is for how long an older state may still be asked for.
	keep time.Duration
}

const collections = 7

// LedgerID is the identity of every simulated ledger: ports are opened once and
// used for many.
const LedgerID = "00000000-0000-4000-8000-000000000001"

func newDocuments() *documents {
	d := &documents{}
	meta := fmt.Sprintf(`{"id":"ledger","ledger_id":%q,"schema":%d}`, LedgerID, job.Schema)
	if err := d.of(ledger.Meta).insert("ledger", []byte(meta), 0); err != nil {
		panic(err)
	}
	return d
}

func (d *documents) of(c ledger.Collection) *collection {
	return &d.all[slices.Index(ledger.Collections, c)]
}

// known refuses a collection that no ledger has.
func known(c ledger.Collection) error {
	if !slices.Contains(ledger.Collections, c) {
		return fmt.Errorf("%q is no collection of the ledger", c)
	}
	return nil
}

// checkDocument refuses text that is not an object with this id.
func checkDocument(id string, doc json.RawMessage) error {
	if !json.Valid(doc) || bytes.TrimLeft(doc, " \n\t\r")[0] != '{' {
		return errors.New("a document is a JSON object")
	}
	if got := member(bytes.TrimLeft(doc, " \n\t\r"), "id"); kindOf(got) != kindText || unquote(got) != id {
		return fmt.Errorf("not a document with the id %q", id)
	}
	return nil
}

// insert adds a document whose text checkDocument has passed. It takes the text
// over.
func (c *collection) insert(id string, text []byte, at time.Duration) error {
	if c.byID[id] != nil {
		return ledger.ErrExists
	}
	if c.byID == nil {
		c.byID = map[string]*document{}
	}
	d := &document{id: id, now: newState(text, at)}
	c.byID[id] = d
	c.order = append(c.order, d)
	return nil
}

// update changes a document that meets the conditions and returns its new state.
func (c *collection) update(id string, when []condition, changes []change, at, keep time.Duration) (*state, error) {
	d := c.byID[id]
	if d == nil || !matches(d.now, when) {
		return nil, ledger.ErrNoMatch
	}
	after, err := apply(d.now, changes, at)
	if err != nil {
		return nil, err
	}
	if keep > 0 {
		after.older = d.now
		after.forget(at - keep)
	}
	after.promised = d.now.promised
	d.now = after
	return after, nil
}

// forget drops the states that were over before an instant.
func (s *state) forget(before time.Duration) {
	for s.older != nil {
		if s.since < before {
			s.older = nil
			return
		}
		s = s.older
	}
}

func (c *collection) get(id string) *state {
	if d := c.byID[id]; d != nil {
		return d.now
	}
	return nil
}

func (c *collection) remove(id string) {
	d := c.byID[id]
	if d == nil {
		return
	}
	delete(c.byID, id)
	c.order = slices.DeleteFunc(c.order, func(o *document) bool { return o == d })
}
