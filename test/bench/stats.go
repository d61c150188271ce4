package bench

import (
	"math"
	"slices"
)

// Spread sums figures up.
type Spread struct {
	Samples int     `json:"samples"`
	Min     float64 `json:"min"`
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
	Max     float64 `json:"max"`
}

// spreadOf sums figures up; no figures are a zero Spread.
func spreadOf(figures []float64) Spread {
	if len(figures) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(figures))
	return Spread{
		Samples: len(sorted), Min: sorted[0], P50: percentile(sorted, 50), P99: percentile(sorted, 99), Max: sorted[len(sorted)-1],
	}
}

// percentile returns the smallest of the sorted figures that at least p percent
// of them do not exceed (the nearest rank); for the middle of an even number, the
// mean of the two.
func percentile(sorted []float64, p float64) float64 {
	n := len(sorted)
	if p == 50 && n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	rank := int(math.Ceil(p / 100 * float64(n)))
	return sorted[min(max(rank, 1), n)-1]
}

// ratio is a/b, and 0 where b is.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
