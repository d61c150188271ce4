package sqlite_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"

	"gpuqd/daemon/ledger"
)

// BenchmarkCAS is one compare-and-set after another, by one caller, among ten
// thousand jobs of the usual size.
func BenchmarkCAS(b *testing.B) {
	store, _ := prepared(b, 0)
	for i := range 10_000 {
		id := strconv.Itoa(i)
		doc := fmt.Sprintf(`{"id":%q,"state":"succeeded","submitted_at":"2026-11-22T14:%02d:00.%06dZ","submitter":"alice","history":[%q]}`, id, i%60, i, fmt.Sprintf("%1500d", i))
		if err := store.Insert(b.Context(), ledger.Jobs, id, json.RawMessage(doc)); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	for i := range b.N {
		_, err := store.Update(b.Context(), ledger.Jobs, "5000", nil, ledger.Update{Set: map[string]any{"state": "claimed", "n": i}})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "cas/s")
}

// BenchmarkCASParallel is 32 goroutines of one process, each on its own document.
func BenchmarkCASParallel(b *testing.B) {
	store, _ := prepared(b, 0)
	var next atomic.Int64
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		id := fmt.Sprint("doc-", next.Add(1))
		if err := store.Insert(b.Context(), ledger.Scratch, id, []byte(`{"id":"`+id+`","n":0}`)); err != nil {
			b.Error(err)
			return
		}
		for n := 0; pb.Next(); n++ {
			if err := compareAndSet(store, id, n); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "cas/s")
}

func BenchmarkGet(b *testing.B) {
	store, _ := prepared(b, 0)
	for range b.N {
		if _, err := store.Get(b.Context(), ledger.Scratch, "counter"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCASProcesses is four processes on one file for 3 s: their sum, and
// the worst of their latencies, which shows how fair the lock is. Run it with
// -benchtime 1x.
func BenchmarkCASProcesses(b *testing.B) {
	const processes = 4
	_, path := prepared(b, 0)
	for range b.N {
		var sum latencies
		others := make([]*other, processes)
		for i := range others {
			others[i] = startOther(b, "hammer", path)
		}
		for _, o := range others {
			var l latencies
			if err := json.Unmarshal([]byte(o.line(b)), &l); err != nil {
				b.Fatal(err)
			}
			b.Logf("%+v", l)
			sum.Count += l.Count
			sum.P99, sum.Max = max(sum.P99, l.P99), max(sum.Max, l.Max)
		}
		b.ReportMetric(float64(sum.Count)/3, "cas/s")
		b.ReportMetric(float64(sum.P99), "p99-µs")
		b.ReportMetric(float64(sum.Max), "max-µs")
	}
}
