package store

import (
	"context"
	"encoding/json"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gpuqd/daemon/ledger"
	"gpuqd/daemon/ledger/ledgertest"
	"gpuqd/test/sim/world"
)

// The simulation decides what tests of the protocol see: it is trusted because it
// passes what the real stores pass. The suite's race of processes is left out: a
// simulated ledger lives in one process.

func TestPlainPort(t *testing.T) {
	opener := func() ledgertest.Open {
		m := &memory{docs: newDocuments()}
		return func(testing.TB) ledger.Store { return newPort(m) }
	}
	t.Run("Contract", func(t *testing.T) { ledgertest.Run(t, opener()) })
	t.Run("Protocol", func(t *testing.T) { ledgertest.RunLedger(t, opener()) })
}

// TestAttachedPort runs the suite outside of a bubble, since it has subtests, and
// each of its calls inside of one, as a process's.
func TestAttachedPort(t *testing.T) {
	t.Run("Contract", func(t *testing.T) { ledgertest.Run(t, bridged(t)) })
	t.Run("Protocol", func(t *testing.T) { ledgertest.RunLedger(t, bridged(t)) })
}

// bridged returns an opener of stores whose calls go to one server in a bubble.
func bridged(t *testing.T) ledgertest.Open {
	b := &bridge{calls: make(chan func()), ready: make(chan struct{})}
	var done sync.WaitGroup
	done.Go(func() { synctest.Test(t, b.run) })
	<-b.ready
	t.Cleanup(func() { close(b.calls); done.Wait() })
	return func(testing.TB) ledger.Store {
		p := NewPort()
		b.do(func() { b.server.Attach(p, b.process, "work") })
		return &far{b, p}
	}
}

// bridge carries calls into a bubble.
type bridge struct {
	calls   chan func() // made outside of the bubble: its time stands still while it waits here
	ready   chan struct{}
	server  *Server
	process *world.Process
}

// run performs the calls in the bubble, those that come together at once.
func (b *bridge) run(*testing.T) {
	w := world.New(1)
	w.SetRates(Part, world.Rates{Fast: time.Millisecond, Slow: 3 * time.Millisecond})
	b.server, b.process = NewServer(w), w.NewHost("h").Start("gpuqd", nil)
	close(b.ready)
	for f := range b.calls {
		var together sync.WaitGroup
		together.Go(f)
		for range 64 {
			select {
			case more, ok := <-b.calls:
				if ok {
					together.Go(more)
				}
			default: // no wait: the bubble's time does not pass while it waits for the outside
				runtime.Gosched()
			}
		}
		together.Wait()
	}
}

func (b *bridge) do(f func()) {
	done := make(chan struct{})
	b.calls <- func() { f(); close(done) }
	<-done
}

// far is a store on the other side of a bridge.
type far struct {
	*bridge
	port *Port
}

func (f *far) Kind() string { return f.port.Kind() }
func (f *far) Close() error { return f.port.Close() }

func (f *far) Prepare(ctx context.Context) (err error) {
	f.do(func() { err = f.port.Prepare(ctx) })
	return err
}

func (f *far) Insert(ctx context.Context, c ledger.Collection, id string, doc json.RawMessage) (err error) {
	f.do(func() { err = f.port.Insert(ctx, c, id, doc) })
	return err
}

func (f *far) Update(ctx context.Context, c ledger.Collection, id string, when []ledger.Cond, u ledger.Update) (doc json.RawMessage, err error) {
	f.do(func() { doc, err = f.port.Update(ctx, c, id, when, u) })
	return doc, err
}

func (f *far) Get(ctx context.Context, c ledger.Collection, id string) (doc json.RawMessage, err error) {
	f.do(func() { doc, err = f.port.Get(ctx, c, id) })
	return doc, err
}

func (f *far) Find(ctx context.Context, c ledger.Collection, q ledger.Query) (docs []json.RawMessage, err error) {
	f.do(func() { docs, err = f.port.Find(ctx, c, q) })
	return docs, err
}

func (f *far) Delete(ctx context.Context, c ledger.Collection, id string) (err error) {
	f.do(func() { err = f.port.Delete(ctx, c, id) })
	return err
}
