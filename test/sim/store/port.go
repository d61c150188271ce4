package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"gpuqd/daemon/ledger"
	"gpuqd/test/sim/world"
)

// Port is the ledger's store as one process sees it, for one of its uses. It is
// made and opened once, outside of any bubble, and then serves one process after
// another: between Attach and Detach its calls are a process's calls to a server.
//
// Before its first Attach it works by itself, at once, on a memory of its own:
// that is where ledger.Open makes its check.
type Port struct {
	attached atomic.Pointer[attachment]
	closed   atomic.Bool
	own      *memory
}

var _ ledger.Store = (*Port)(nil)

// memory is a ledger outside of any world.
type memory struct {
	mu   sync.Mutex // held for one operation, which does not wait
	docs *documents // guarded by mu
}

// attachment says whose calls a port's calls are.
type attachment struct {
	server  *Server // nil once detached
	process *world.Process
	which   string
}

// NewPort returns a port that no process uses yet.
func NewPort() *Port { return newPort(&memory{docs: newDocuments()}) }

func newPort(m *memory) *Port { return &Port{own: m} }

// Detach ends the port's use by its process: calls return world.ErrDead until
// the port is attached again. Attach it to another process only when the
// goroutines of this one have run out; their calls would be that one's.
func (p *Port) Detach() { p.attached.Store(&attachment{}) }

// errClosed: the process has closed this store.
var errClosed = errors.New("simulated: the store is closed")

// call is one operation on its way.
type call struct {
	step, key string
	write     bool // changes documents
	find      bool // asks for what meets conditions, not for one document
	// effect is the operation itself, at one instant.
	effect func(*instant) error
}

// instant is what an effect finds. Outside of a world it is the documents alone.
type instant struct {
	docs   *documents
	server *Server
	host   string        // that asks
	call   *call         // what it asks
	began  time.Duration // when it was asked
	at     time.Duration // now
}

// insert, update and view are the effects that a world wants to know of.
func (i *instant) insert(c ledger.Collection, id string, text []byte) error {
	if err := i.docs.of(c).insert(id, text, i.at); err != nil {
		return err
	}
	if i.server != nil && c == ledger.Jobs {
		i.server.recordInsert(i.host, i.docs.of(c).get(id))
	}
	return nil
}

// write is a checked update.
type write struct {
	collection ledger.Collection
	id         string
	when       []condition
	changes    []change
	told       // of a job's
}

func (i *instant) update(w *write) (json.RawMessage, error) {
	before := i.docs.of(w.collection).get(w.id)
	after, err := i.docs.of(w.collection).update(w.id, w.when, w.changes, i.at, i.docs.keep)
	if err != nil {
		return nil, err
	}
	if i.server != nil && w.collection == ledger.Jobs {
		i.server.recordUpdate(i.host, w, after)
	}
	if i.server != nil && i.call.step == drainStep {
		i.server.recordDrain(before, after)
	}
	if i.server != nil && i.call.step == endSessionStep {
		i.server.recordRelease(after)
	}
	return after.text, nil
}

func (i *instant) view(q query) view {
	if i.server == nil {
		return seeNow
	}
	return i.server.view(i, q)
}

// do performs a call, at once and alone or as a process's.
func (p *Port) do(ctx context.Context, c call) error {
	if p.closed.Load() {
		return errClosed
	}
	a := p.attached.Load()
	switch {
	case a == nil:
		return p.own.do(ctx, c)
	case a.server == nil:
		return world.ErrDead
	}
	return a.do(ctx, c)
}

func (m *memory) do(ctx context.Context, c call) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return c.effect(&instant{docs: m.docs})
}

// Kind implements ledger.Store.
func (p *Port) Kind() string { return "simulated" }

// Prepare implements ledger.Store. There is nothing to prepare; a process that
// opens its ledger calls it to learn whether the server is there.
func (p *Port) Prepare(ctx context.Context) error {
	return p.do(ctx, call{step: "ledger prepare", effect: func(*instant) error { return nil }})
}

// Close implements ledger.Store. Attach opens the port again.
func (p *Port) Close() error {
	p.closed.Store(true)
	return nil
}

// Insert implements ledger.Store.
func (p *Port) Insert(ctx context.Context, c ledger.Collection, id string, doc json.RawMessage) error {
	if err := known(c); err != nil {
		return err
	}
	if err := checkDocument(id, doc); err != nil {
		return fmt.Errorf("insert into %s: %w", c, err)
	}
	text := append([]byte(nil), doc...) // the caller may use its own again
	return p.do(ctx, call{
		step: insertStep(c), key: idKey(c, id), write: true,
		effect: func(in *instant) error { return in.insert(c, id, text) },
	})
}

// Update implements ledger.Store. The document that it returns is shared: read
// it, do not write to it.
func (p *Port) Update(ctx context.Context, c ledger.Collection, id string, when []ledger.Cond, u ledger.Update) (json.RawMessage, error) {
	if err := known(c); err != nil {
		return nil, err
	}
	changes, err := changesOf(u)
	if err != nil {
		return nil, fmt.Errorf("update %s: %w", c, err)
	}
	conditions, err := conditionsOf(when)
	if err != nil {
		return nil, fmt.Errorf("update %s: %w", c, err)
	}
	w := write{collection: c, id: id, when: conditions, changes: changes}
	if c == ledger.Jobs {
		w.tell(u)
	}
	var doc json.RawMessage
	err = p.do(ctx, call{
		step: updateStep(c, when, u), key: idKey(c, id), write: true,
		effect: func(in *instant) (err error) { doc, err = in.update(&w); return err },
	})
	if err != nil {
		return nil, err
	}
	p.heard(c, updateStep(c, when, u), doc)
	return doc, nil
}

// heard tells the server that the process has the answer to an update.
func (p *Port) heard(c ledger.Collection, step string, doc json.RawMessage) {
	if a := p.attached.Load(); a != nil && a.server != nil && step == renewStep {
		a.server.recordLearnt(doc)
	}
}

// Get implements ledger.Store. The document that it returns is shared: read it,
// do not write to it.
func (p *Port) Get(ctx context.Context, c ledger.Collection, id string) (json.RawMessage, error) {
	if err := known(c); err != nil {
		return nil, err
	}
	var doc json.RawMessage
	err := p.do(ctx, call{
		step: getStep(c), key: idKey(c, id),
		effect: func(in *instant) error {
			s := in.docs.of(c).get(id)
			if s == nil {
				return ledger.ErrNotFound
			}
			doc = s.text
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	return doc, nil
}

// Find implements ledger.Store. Documents come in the order of their insertion
// where the query asks for none; those that it returns are shared: read them, do
// not write to them.
func (p *Port) Find(ctx context.Context, c ledger.Collection, q ledger.Query) ([]json.RawMessage, error) {
	if err := known(c); err != nil {
		return nil, err
	}
	checked, err := queryOf(q)
	if err != nil {
		return nil, fmt.Errorf("find in %s: %w", c, err)
	}
	var docs []json.RawMessage
	err = p.do(ctx, call{
		step: findStep(c), key: findKey(q), find: true,
		effect: func(in *instant) error { docs = in.docs.of(c).run(checked, in.view(checked)); return nil },
	})
	if err != nil {
		return nil, err
	}
	return docs, nil
}

// Delete implements ledger.Store.
func (p *Port) Delete(ctx context.Context, c ledger.Collection, id string) error {
	if err := known(c); err != nil {
		return err
	}
	return p.do(ctx, call{
		step: deleteStep(c), key: idKey(c, id), write: true,
		effect: func(in *instant) error { in.docs.of(c).remove(id); return nil },
	})
}
