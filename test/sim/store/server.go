// Package store is the simulated ledger store: a Server holds the documents of a
// site, and a Port is one process's way to it. It keeps the contract of
// ledger.Store as the suite ledgertest states it, over wires that fail.
//
// # What a failing MongoDB may answer
//
// The store for MongoDB (daemon/ledger/mongodb) sets read concern "linearizable",
// read preference "primary" and write concern "majority" for the whole client,
// and neither Get nor Find sets others; its test TestRequests holds it to that.
// Before it answers, a linearizable read makes sure, by a write of the server's
// own, that the server still is the primary of a majority. So a deposed primary
// answers neither Get nor Find, and a search of old states is nothing that this
// store can give: StaleFinds and MajorityFinds are for defects planted on
// purpose.
//
// What it can give: MongoDB's manual limits the guarantee to reads that name one
// document by a field that nobody changes. A search by other fields reads no
// snapshot: each document is seen at an instant of its own between the request
// and the answer, and one whose searched fields change meanwhile, which moves it
// in the index, can be seen twice or not at all. TornFinds makes searches so.
// (Source: MongoDB manual, "Read Concern linearizable"; for the later batches of
// a cursor the guarantee holds since 4.1.9, SERVER-37948.)
//
// A write is unknown, not failed, when its answer is lost, when a majority did
// not confirm it in time (a write-concern error comes with a write that was
// applied), and when its primary goes: then it may have reached the majority, may
// be rolled back, or may be replicated later. See FailOver.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/test/sim/world"
)

// timeoutDefault bounds one operation.
const timeoutDefault = 3 * time.Second

// Server is the ledger of one simulated site.
type Server struct {
	world *world.World
	// Needless, where set, is asked within the instant of a republication whether
	// a message of the job has been ready in its queue all the time. published is
	// the instant, in true time, of the promise before this one: its message came
	// some time after it.
	Needless func(id job.ID, published time.Time) bool

	// What follows is guarded by the world's instant.
	docs    *documents
	timeout time.Duration
	faults  faults
	learnt  map[drained]bool // drains that their host has been told of
}

// NewServer returns a server that holds nothing but its own identity.
func NewServer(w *world.World) *Server {
	return &Server{world: w, docs: newDocuments(), timeout: timeoutDefault, learnt: map[drained]bool{}}
}

// Attach makes the port's calls those of a process from now on. which tells the
// ports of one process apart: "work" or "lease".
func (s *Server) Attach(p *Port, process *world.Process, which string) {
	p.closed.Store(false)
	p.attached.Store(&attachment{server: s, process: process, which: which})
}

// SetTimeout bounds each operation from now on.
func (s *Server) SetTimeout(d time.Duration) {
	s.world.Do(func() { s.timeout = d })
}

// Job returns a job as it is; nil where there is none. Call it within Do, and
// read it only.
func (s *Server) Job(id job.ID) *job.Job {
	state := s.docs.of(ledger.Jobs).get(string(id))
	if state == nil {
		return nil
	}
	return state.decoded()
}

// Jobs returns all jobs as they are, oldest first. Call it within Do, and read
// them only.
func (s *Server) Jobs() []*job.Job {
	docs := s.docs.of(ledger.Jobs).order
	jobs := make([]*job.Job, len(docs))
	for i, d := range docs {
		jobs[i] = d.now.decoded()
	}
	return jobs
}

// Hosts returns all hosts as they are. Call it within Do.
func (s *Server) Hosts() []*ledger.Host {
	docs := s.docs.of(ledger.Hosts).order
	hosts := make([]*ledger.Host, len(docs))
	for i, d := range docs {
		hosts[i] = new(ledger.Host)
		mustDecode(d.now.text, hosts[i])
	}
	return hosts
}

func (s *state) decoded() *job.Job {
	if s.job == nil {
		s.job = new(job.Job)
		mustDecode(s.text, s.job)
	}
	return s.job
}

func mustDecode(text []byte, v any) {
	if err := json.Unmarshal(text, v); err != nil {
		panic("the ledger wrote what it cannot read: " + err.Error())
	}
}

// What a server answers that is there and does not do what it was asked.
var (
	// ErrNoPrimary: there was none in time. Nothing was sent.
	ErrNoPrimary = errors.New("simulated: no primary could be found in time")
	// ErrServer: the server refused; nothing was changed.
	ErrServer = errors.New("simulated: the server refuses the operation")
	// ErrUnconfirmed: the write was applied, and no majority has confirmed it.
	ErrUnconfirmed = errors.New("simulated: write concern error: waiting for replication timed out")
)

// key tells the calls of one process's ports apart.
func (a *attachment) key(c *call) string {
	if a.which == "lease" {
		return "lease " + c.key
	}
	return c.key
}

// do performs a call as the process's.
func (a *attachment) do(ctx context.Context, c call) error {
	s := a.server
	in := &instant{docs: s.docs, server: s, host: a.process.Host().Name(), call: &c, began: s.world.Now()}
	c.key = a.key(&c)
	timeout, err := s.selectPrimary(ctx, a.process, in)
	if err != nil {
		return fmt.Errorf("%s: %w", c.step, err)
	}
	var answer error
	err = a.process.Do(ctx, world.Call{
		Part: Part, Step: c.step, Key: c.key, Timeout: timeout,
		Arrived: func() bool { in.at = s.world.Now(); return s.arrived(in) },
		Effect:  func() { answer = s.perform(in) },
	})
	if err != nil {
		return fmt.Errorf("%s: %w", c.step, err)
	}
	return answer
}
