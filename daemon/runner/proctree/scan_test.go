package proctree

import "testing"

func TestStatIsReadWhateverTheProcessIsCalled(t *testing.T) {
	const fields = " S 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 2200 23"
	want := Stat{Process: Process{PID: 1, Ticks: 2200}, PPID: 3, Session: 5, State: 'S'}
	for _, name := range []string{"sh", "a b", ")", ") R 9 9", ""} {
		if got, err := parseStat(1, []byte("1 ("+name+")"+fields+"\n")); err != nil || got != want {
			t.Errorf("%q: %+v, %v", name, got, err)
		}
	}
	for signal, want := range map[string]bool{"17": false, "-1": true} {
		text := "1 (sh)" + fields + " 24 25 26 27 28 29 30 31 32 33 34 35 36 37 " + signal + " 39\n"
		if got, err := parseStat(1, []byte(text)); err != nil || got.Thread != want || got.Ticks != 2200 {
			t.Errorf("exit signal %s: %+v, %v", signal, got, err)
		}
	}
	for _, text := range []string{"", "1", "1 (sh)", "1 (sh) S x 4 5", "1 (sh) S 3 4 5 6"} {
		if got, err := parseStat(1, []byte(text)); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}
