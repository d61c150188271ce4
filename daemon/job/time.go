package job

import (
	"fmt"
	"time"
)

// timeLayout has a fixed width, so that stored times sort as text.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// Time is a UTC time in documents and messages, kept to the microsecond and
// written as fixed-width RFC 3339 text: both ledger kinds then compare times
// alike. The zero Time is written as "", which sorts before every other.
type Time struct{ time.Time }

// At returns t as it will read back from a document.
func At(t time.Time) Time {
	if t.IsZero() {
		return Time{}
	}
	return Time{t.UTC().Truncate(time.Microsecond)}
}

// String returns the stored form.
func (t Time) String() string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timeLayout)
}

// MarshalText implements encoding.TextMarshaler.
func (t Time) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// MarshalJSON implements json.Marshaler; it hides that of the embedded Time.
func (t Time) MarshalJSON() ([]byte, error) { return []byte(`"` + t.String() + `"`), nil }

// UnmarshalText accepts the stored form and any RFC 3339 time.
func (t *Time) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*t = Time{}
		return nil
	}
	parsed, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return fmt.Errorf("%q is no time: want RFC 3339, such as 2026-11-22T14:00:00Z", text)
	}
	if year := parsed.UTC().Year(); year < 1 || year > 9999 {
		return fmt.Errorf("%q is no time that can be stored: want a year from 1 to 9999", text)
	}
	*t = At(parsed)
	return nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Time) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*t = Time{}
		return nil
	}
	if len(data) < 2 || data[0] != '"' || data[len(data)-1] != '"' {
		return fmt.Errorf("%s is no time: want a string in RFC 3339 form", data)
	}
	return t.UnmarshalText(data[1 : len(data)-1])
}

// Duration is a time.Duration that reads and writes as text such as "1m30s".
type Duration time.Duration

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns the form that UnmarshalText reads.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. A bare number is refused:
// nobody can tell whether it means seconds.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no duration: want a number with its unit, such as 30s, 5m or 1h30m", text)
	}
	*d = Duration(parsed)
	return nil
}
