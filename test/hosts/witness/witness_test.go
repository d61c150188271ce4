package witness

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	text := `{"event":"start","at":1000,"host":"gpu1","uid":7}
{"event":"working","at":1200}
{"event":"working","at":6200}
{"event":"end","at":6400}
`
	x, err := Parse("j.1", text)
	if err != nil || !x.Ended || x.Lines != 4 || x.Pause != 5*time.Second || x.First.Host != "gpu1" || x.First.UID != 7 {
		t.Errorf("Parse = %+v, %v", x, err)
	}
	if x, err := Parse("j.1", text[:len(text)-3]); err != nil || x.Ended || x.Last.At != 6200 {
		t.Errorf("Parse of a file that was cut off = %+v, %v", x, err)
	}
	if _, err := Parse("j.1", "{\"event\":\"working\",\"at\":1}\n"); err == nil {
		t.Error("a file without its start is accepted")
	}
	if _, err := Parse("j.1", "?\n"); err == nil {
		t.Error("a file that is none is accepted")
	}
}

func TestOverlaps(t *testing.T) {
	at := func(from, to int64) Execution {
		return Execution{First: Line{At: from}, Last: Line{At: to}}
	}
	for name, test := range map[string]struct {
		all  []Execution
		want int
	}{
		"OneAfterTheOther": {[]Execution{at(10, 20), at(20, 30)}, 0},
		"InAnyOrder":       {[]Execution{at(20, 30), at(10, 20)}, 0},
		"AtOneTime":        {[]Execution{at(10, 200), at(100, 300)}, 1},
		"OneWithinAnother": {[]Execution{at(10, 900), at(100, 200), at(300, 400)}, 2},
		"WithinTheSlack":   {[]Execution{at(10, 105), at(100, 300)}, 0},
	} {
		if got := Overlaps(test.all, 50*time.Millisecond); len(got) != test.want {
			t.Errorf("%s: %v, want %d", name, got, test.want)
		}
	}
}
