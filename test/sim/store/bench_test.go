package store

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/test/sim/world"
)

// benchJobs is how many jobs a history has at most.
const benchJobs = 40

// filled returns a port that works by itself on jobs of the usual size, some of
// them claimed.
func filled(b *testing.B) (*Port, *ledger.Ledger, []*job.Job) {
	b.Helper()
	p := NewPort()
	l, err := ledger.Open(b.Context(), p)
	if err != nil {
		b.Fatal(err)
	}
	return p, l, fill(b, l)
}

func fill(b testing.TB, l *ledger.Ledger) []*job.Job {
	b.Helper()
	now := job.At(time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC))
	var jobs []*job.Job
	for i := range benchJobs {
		spec := job.DefaultSpec()
		spec.Command = []string{"python", "train.py", "--epochs", "3"}
		j := job.New(job.KeyID("bench", fmt.Sprint(i)), "alice", spec, now)
		if _, _, err := l.Submit(b.Context(), j); err != nil {
			b.Fatal(err)
		}
		if i%4 == 0 {
			var err error
			j, err = l.Claim(b.Context(), ledger.Claim{JobID: j.ID, Host: "h1", Session: "s1", ClaimID: fmt.Sprint("claim-", i), Devices: []string{"GPU-1"}, Now: now})
			if err != nil {
				b.Fatal(err)
			}
		}
		jobs = append(jobs, j)
	}
	return jobs
}

func BenchmarkInsert(b *testing.B) {
	p, _, jobs := filled(b)
	doc, err := json.Marshal(jobs[0])
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Delete(b.Context(), ledger.Jobs, string(jobs[0].ID)); err != nil {
			b.Fatal(err)
		}
		if err := p.Insert(b.Context(), ledger.Jobs, string(jobs[0].ID), doc); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUpdate is the compare-and-set of a claim, on a document of 1.5 KB.
func BenchmarkUpdate(b *testing.B) {
	p, _, jobs := filled(b)
	b.ReportAllocs()
	for b.Loop() {
		doc, err := p.Update(b.Context(), ledger.Jobs, string(jobs[1].ID),
			[]ledger.Cond{{Field: "state", Op: ledger.In, Value: []string{"queued"}}, {Field: "kill", Op: ledger.Eq, Value: nil}},
			ledger.Update{
				Set: map[string]any{
					"state": job.Queued, "reason": "claimed by h1",
					"owner": job.Owner{Host: "h1", Session: "s", ClaimID: "c", Devices: []string{"GPU-1"}},
				},
				Inc: map[string]int64{"attempt": 1, "fence": 1},
			})
		if err != nil || len(doc) == 0 {
			b.Fatal(err)
		}
	}
}

func BenchmarkUpdateNoMatch(b *testing.B) {
	p, _, jobs := filled(b)
	b.ReportAllocs()
	for b.Loop() {
		_, err := p.Update(b.Context(), ledger.Jobs, string(jobs[1].ID), []ledger.Cond{{Field: "state", Op: ledger.Eq, Value: "running"}},
			ledger.Update{Set: map[string]any{"state": job.Succeeded}})
		if err == nil {
			b.Fatal("it matched")
		}
	}
}

func BenchmarkGet(b *testing.B) {
	p, _, jobs := filled(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Get(b.Context(), ledger.Jobs, string(jobs[1].ID)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFindHeld finds ten of forty jobs.
func BenchmarkFindHeld(b *testing.B) {
	p, _, _ := filled(b)
	b.ReportAllocs()
	for b.Loop() {
		docs, err := p.Find(b.Context(), ledger.Jobs, ledger.Query{
			When:    []ledger.Cond{{Field: "state", Op: ledger.In, Value: []string{"claimed", "running"}}},
			Without: []string{"history", "result"},
		})
		if err != nil || len(docs) != benchJobs/4 {
			b.Fatal(len(docs), err)
		}
	}
}

// BenchmarkFindOverdue finds nothing, as most sweeps.
func BenchmarkFindOverdue(b *testing.B) {
	p, _, jobs := filled(b)
	b.ReportAllocs()
	for b.Loop() {
		docs, err := p.Find(b.Context(), ledger.Jobs, ledger.Query{
			When: []ledger.Cond{
				{Field: "queue", Op: ledger.Eq, Value: jobs[0].Queue},
				{Field: "state", Op: ledger.In, Value: []string{"queued", "retrying"}},
				{Field: "published_at", Op: ledger.Lt, Value: "2026-11-22T13:00:00.000000Z"},
			},
			Sort: "published_at", Limit: 1, Without: []string{"history", "result"},
		})
		if err != nil || len(docs) != 0 {
			b.Fatal(len(docs), err)
		}
	}
}

// BenchmarkLedgerJob is a read by way of package ledger, which decodes what it
// gets.
func BenchmarkLedgerJob(b *testing.B) {
	_, l, jobs := filled(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Job(b.Context(), jobs[0].ID); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAttachedGet is a read within a world whose wires take no time.
func BenchmarkAttachedGet(b *testing.B) {
	p, l, _ := filled(b)
	w := world.New(1)
	NewServer(w).Attach(p, w.NewHost("h1").Start("gpuqd", nil), "work")
	jobs := fill(b, l)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Get(b.Context(), ledger.Jobs, string(jobs[1].ID)); err != nil {
			b.Fatal(err)
		}
	}
}
