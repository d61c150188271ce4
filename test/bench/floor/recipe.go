package floor

import "math"

// The operations that are counted, by gpuqd's metrics and by the floor itself.
const (
	LedgerInsert = "ledger insert"
	LedgerUpdate = "ledger update"
	LedgerGet    = "ledger get"
	LedgerFind   = "ledger find"
	Publish      = "publish"
	Bell         = "bell"
	Depth        = "depth"
	Get          = "get"
	Ack          = "ack"
	CacheGet     = "cache get"
	CacheSet     = "cache set"
	JournalSync  = "journal sync"
	Start        = "start"
)

// Operations are counts by name; of one job where they are called per job.
type Operations map[string]float64

// Over returns the counts divided by n.
func (o Operations) Over(n int) Operations {
	each := Operations{}
	for name, count := range o {
		each[name] = count / float64(n)
	}
	return each
}

// Since returns what was done after before was read.
func (o Operations) Since(before Operations) Operations {
	done := Operations{}
	for name, count := range o {
		done[name] = count - before[name]
	}
	return done
}

// And returns the sum of both.
func (o Operations) And(other Operations) Operations {
	sum := Operations{}
	for _, list := range []Operations{o, other} {
		for name, count := range list {
			sum[name] += count
		}
	}
	return sum
}

// Recipe says how often the floor does, for each job, what the design leaves open.
// The rest is fixed by the protocol: one insert, three compare-and-sets, one
// publish, one get, one ack, one question and one word to Redis, one shim.
type Recipe struct {
	Depths       int `json:"depths"`        // looks at a queue's depth
	LedgerGets   int `json:"ledger_gets"`   // reads of the document
	JournalSyncs int `json:"journal_syncs"` // syncs in the attempt's directory, but for the shim's
	ShimSyncs    int `json:"shim_syncs"`    // syncs of the shim
}

// journalSyncsMax is how many places the floor can sync; see disk.go.
const journalSyncsMax = 6

// RecipeOf rounds what gpuqd was seen to do per job. What it does now and then
// only, such as a renewal of the lease, rounds to nothing. shimSyncs comes from
// the shim's code, since no metric tells.
func RecipeOf(perJob Operations, shimSyncs int) Recipe {
	round := func(name string, most int) int {
		return min(int(math.Round(perJob[name])), most)
	}
	return Recipe{
		Depths: round(Depth, 10), LedgerGets: round(LedgerGet, 10),
		JournalSyncs: round(JournalSync, journalSyncsMax), ShimSyncs: shimSyncs,
	}
}
