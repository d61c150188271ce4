package job

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// anyTime draws times of four-digit years, in any zone, to the nanosecond.
var anyTime = rapid.Custom(func(t *rapid.T) time.Time {
	first := time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC).Unix()
	last := time.Date(9999, 12, 30, 0, 0, 0, 0, time.UTC).Unix()
	at := time.Unix(rapid.Int64Range(first, last).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds"))
	return at.In(time.FixedZone("", rapid.IntRange(-14, 14).Draw(t, "zone")*3600))
})

func TestTimeRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := At(anyTime.Draw(t, "time"))
		text, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got Time
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Fatalf("%s read back as %v, %v", text, got, err)
		}
		doc, err := json.Marshal(want)
		if err != nil || string(doc) != `"`+string(text)+`"` {
			t.Fatalf("JSON %s, text %s, %v", doc, text, err)
		}
		got = Time{}
		if err := json.Unmarshal(doc, &got); err != nil || got != want {
			t.Fatalf("%s read back as %v, %v", doc, got, err)
		}
	})
}

// TestTimeSortsAsText: both ledger kinds compare stored times as text, the zero
// time included.
func TestTimeSortsAsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := anyTime.Draw(t, "a")
		near := time.Duration(rapid.Int64Range(-2_000_000_000, 2_000_000_000).Draw(t, "near"))
		b := rapid.OneOf(anyTime, rapid.Just(a.Add(near)), rapid.Just(time.Time{})).Draw(t, "b")
		ta, tb := At(a), At(b)
		if got, want := strings.Compare(ta.String(), tb.String()), ta.Compare(tb.Time); got != want {
			t.Fatalf("%q and %q compare as text %d, as times %d", ta, tb, got, want)
		}
		if len(ta.String()) != len(timeLayout) {
			t.Fatalf("%q is not %d characters wide", ta, len(timeLayout))
		}
	})
}

func TestAtIsWhatReadsBack(t *testing.T) {
	local := time.Date(2026, 11, 22, 16, 0, 0, 1_999, time.FixedZone("", 7200))
	at := At(local)
	if at.String() != "2026-11-22T14:00:00.000001Z" {
		t.Errorf("At(%v) = %s", local, at)
	}
	if now := time.Now(); At(now) != At(now.Round(0)) {
		t.Error("At keeps the monotonic reading, which no document has")
	}
	if At(time.Time{}.In(time.FixedZone("", 3600))) != (Time{}) {
		t.Error("a zero time in another zone is not the zero Time")
	}
}

func TestZeroTimeIsEmptyText(t *testing.T) {
	doc, err := json.Marshal(struct{ T Time }{})
	if err != nil || string(doc) != `{"T":""}` {
		t.Errorf("%s, %v", doc, err)
	}
	for _, text := range []string{`""`, `null`, `"0001-01-01T00:00:00Z"`} {
		at := At(time.Now())
		if err := json.Unmarshal([]byte(text), &at); err != nil || at != (Time{}) {
			t.Errorf("%s reads as %v, %v", text, at, err)
		}
	}
}

func TestTimeReadsRFC3339(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"2026-11-22T14:00:00Z", "2026-11-22T14:00:00.000000Z"},
		{"2026-11-22T16:00:00+02:00", "2026-11-22T14:00:00.000000Z"},
		{"2026-11-22T14:00:00.5Z", "2026-11-22T14:00:00.500000Z"},
		{"2026-11-22T14:00:00.123456789Z", "2026-11-22T14:00:00.123456Z"},
		{"2026-11-22", ""},
		{"2026-11-22 14:00:00", ""},
		{"1763820000", ""},
		{"yesterday", ""},
	} {
		var at Time
		err := at.UnmarshalText([]byte(c.text))
		switch {
		case (err == nil) != (c.want != ""):
			t.Errorf("%q: %v", c.text, err)
		case err == nil && at.String() != c.want:
			t.Errorf("%q reads as %s, want %s", c.text, at, c.want)
		case err != nil && !strings.Contains(err.Error(), "RFC 3339"):
			t.Errorf("%q: %v does not say what it wants", c.text, err)
		}
	}
	for _, doc := range []string{`5`, `true`, `{}`, `"`, `["2026-11-22T14:00:00Z"]`} {
		var at Time
		if err := at.UnmarshalJSON([]byte(doc)); err == nil {
			t.Errorf("%s reads as %v", doc, at)
		}
	}
}

func TestDurationRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Duration(rapid.Int64().Draw(t, "duration"))
		doc, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Duration
		if err := json.Unmarshal(doc, &got); err != nil || got != want {
			t.Fatalf("%s read back as %v, %v", doc, got, err)
		}
		if got.Std() != time.Duration(want) || doc[0] != '"' {
			t.Fatalf("%s, %v", doc, got.Std())
		}
	})
}

func TestDurationNeedsItsUnit(t *testing.T) {
	for _, c := range []struct {
		doc  string
		want time.Duration
		ok   bool
	}{
		{`"30s"`, 30 * time.Second, true},
		{`"1h30m"`, 90 * time.Minute, true},
		{`"1.5s"`, 1500 * time.Millisecond, true},
		{`"0"`, 0, true}, // zero is the same in every unit
		{`"-1s"`, -time.Second, true},
		{`30`, 0, false},
		{`"30"`, 0, false},
		{`""`, 0, false},
		{`"1d"`, 0, false},
		{`"half an hour"`, 0, false},
		{`{}`, 0, false},
	} {
		var d Duration
		err := json.Unmarshal([]byte(c.doc), &d)
		if (err == nil) != c.ok || err == nil && d.Std() != c.want {
			t.Errorf("%s reads as %v, %v", c.doc, d, err)
		}
	}
	var d Duration
	if err := d.UnmarshalText([]byte("30")); err == nil || !strings.Contains(err.Error(), "unit") {
		t.Errorf("%v does not say that a unit is missing", err)
	}
}

func TestTimesPastFourDigitYearsAreRefused(t *testing.T) {
	for _, text := range []string{"9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00"} {
		var at, again Time
		if err := at.UnmarshalText([]byte(text)); err == nil {
			if err := again.UnmarshalText([]byte(at.String())); err != nil {
				t.Errorf("%s is stored as %s, which does not read back: %v", text, at, err)
			}
		}
	}
}
