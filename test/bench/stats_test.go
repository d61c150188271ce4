package bench

import (
	"testing"

	"pgregory.net/rapid"
)

func TestPercentileIsTheNearestRank(t *testing.T) {
	for _, c := range []struct {
		figures []float64
		p, want float64
	}{
		{[]float64{7}, 50, 7},
		{[]float64{7}, 99, 7},
		{[]float64{1, 2}, 50, 1.5},
		{[]float64{1, 2, 9}, 50, 2},
		{[]float64{1, 2, 3, 4}, 50, 2.5},
		{[]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 90, 9},
		{[]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 99, 10},
		{[]float64{1, 2, 3}, 0, 1},
		{[]float64{1, 2, 3}, 100, 3},
	} {
		if got := percentile(c.figures, c.p); got != c.want {
			t.Errorf("p%g of %v is %g, want %g", c.p, c.figures, got, c.want)
		}
	}
}

func TestSpreadIsInOrder(t *testing.T) {
	if (spreadOf(nil) != Spread{}) {
		t.Error("no figures have a spread")
	}
	rapid.Check(t, func(t *rapid.T) {
		figures := rapid.SliceOfN(rapid.Float64Range(-1e6, 1e6), 1, 300).Draw(t, "figures")
		first := figures[0]
		s := spreadOf(figures)
		if s.Samples != len(figures) || s.Min > s.P50 || s.P50 > s.P99 || s.P99 > s.Max {
			t.Errorf("%v has the spread %+v", figures, s)
		}
		if figures[0] != first {
			t.Error("the figures were changed")
		}
	})
}

func TestNumbersHaveThreeDigits(t *testing.T) {
	for f, want := range map[float64]string{
		0: "0", 0.1234: "0.123", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 1234.5: "1,235", 1e6: "1,000,000", 99.96: "100.0",
	} {
		if got := number(f); got != want {
			t.Errorf("%g is written %s, want %s", f, got, want)
		}
	}
}
