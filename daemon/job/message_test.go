package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const someID = ID("01890a5d-ac96-774b-bcce-b302099a8057")

func TestSubmissionKeepsDefaults(t *testing.T) {
	body := fmt.Sprintf(`{"schema":1,"id":%q,"spec":{"command":["train"],"gpus":0,"grace":"0s"}}`, someID)
	got, err := ParseSubmission([]byte(body), "ada")
	if err != nil {
		t.Fatal(err)
	}
	want := validSpec()
	want.GPUs, want.Grace = 0, 0 // zero is a value, not an absence
	if !reflect.DeepEqual(got, Submission{Schema: Schema, ID: someID, Spec: want}) {
		t.Errorf("%+v", got)
	}
}

func TestSubmissionOfEveryFieldRoundTrips(t *testing.T) {
	want := Submission{Schema: Schema, ID: KeyID("ada", fullSpec().Key), Spec: fullSpec()}
	body, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseSubmission(body, "ada")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestSubmissionID: the ID is the client's, or the key's, and never in doubt.
func TestSubmissionID(t *testing.T) {
	keyed := KeyID("ada", "nightly")
	for _, c := range []struct {
		name, submitter, id, key string
		want                     ID // "" when refused
		says                     string
	}{
		{"ID alone", "ada", string(someID), "", someID, ""},
		{"key alone", "ada", "", "nightly", keyed, ""},
		{"key and its ID", "ada", string(keyed), "nightly", keyed, ""},
		{"key and another ID", "ada", string(someID), "nightly", "", "leave id out"},
		{"key and the ID of another submitter", "eve", string(keyed), "nightly", "", "leave id out"},
		{"same key of another submitter", "bob", "", "nightly", KeyID("bob", "nightly"), ""},
		{"neither", "ada", "", "", "", "give a fresh UUID"},
		{"no UUID", "ada", "job-7", "", "", "no job ID"},
		{"capitals", "ada", strings.ToUpper(string(someID)), "", "", "lower case"},
		{"no submitter", "", string(someID), "", "", "user-id"},
		{"no submitter with a key", "", "", "nightly", "", "user-id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := fmt.Sprintf(`{"schema":1,"id":%q,"spec":{"command":["train"],"key":%q}}`, c.id, c.key)
			got, err := ParseSubmission([]byte(body), c.submitter)
			if c.want != "" {
				if err != nil || got.ID != c.want {
					t.Errorf("%s, %v, want %s", got.ID, err, c.want)
				}
				return
			}
			if !errors.Is(err, ErrMessage) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want ErrMessage with %q", err, c.says)
			}
		})
	}
}

func TestSubmissionIsRefused(t *testing.T) {
	id := fmt.Sprintf(`"id":%q`, someID)
	const spec = `"spec":{"command":["train"]}`
	for _, c := range []struct{ name, body, says string }{
		{"empty", ``, "unparsable"},
		{"no JSON", `train --fast`, "unparsable"},
		{"array", `[]`, "unparsable"},
		{"cut short", `{"schema":1,` + id, "unparsable"},
		{"trailing object", `{"schema":1,` + id + `,` + spec + `}{}`, "unparsable"},
		{"trailing text", `{"schema":1,` + id + `,` + spec + `} and more`, "unparsable"},
		{"no schema", `{` + id + `,` + spec + `}`, "unknown schema version (none)"},
		{"null", `null`, "unknown schema version (none)"},
		{"schema null", `{"schema":null,` + id + `,` + spec + `}`, "unknown schema version (none)"},
		{"schema 0", `{"schema":0,` + id + `,` + spec + `}`, "unknown schema version 0"},
		{"schema 2", `{"schema":2,` + id + `,` + spec + `}`, "unknown schema version 2"},
		{"schema of the future, unknown fields", `{"schema":2,"what":[]}`, "unknown schema version 2"},
		{"schema as text", `{"schema":"1",` + id + `,` + spec + `}`, "unparsable"},
		{"unknown field", `{"schema":1,` + id + `,` + spec + `,"user":"root"}`, `"user"`},
		{"unknown field of the spec", `{"schema":1,` + id + `,"spec":{"command":["x"],"gpu":1}}`, `"gpu"`},
		{"bare number for a duration", `{"schema":1,` + id + `,"spec":{"command":["x"],"grace":10}}`, "grace"},
		{"duration without a unit", `{"schema":1,` + id + `,"spec":{"command":["x"],"grace":"10"}}`, "unit"},
		{"command as text", `{"schema":1,` + id + `,"spec":{"command":"train"}}`, "command"},
		{"no spec", `{"schema":1,` + id + `}`, "command"},
		{"invalid spec", `{"schema":1,` + id + `,"spec":{"command":["x"],"gpus":-1,"pool":"P"}}`, "gpus"},
		{"second problem of the spec", `{"schema":1,` + id + `,"spec":{"command":["x"],"gpus":-1,"pool":"P"}}`, "pool"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseSubmission([]byte(c.body), "ada")
			if !errors.Is(err, ErrMessage) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want ErrMessage with %q", err, c.says)
			}
			if !reflect.DeepEqual(got, Submission{}) {
				t.Errorf("something comes with the error: %+v", got)
			}
		})
	}
}

// TestSubmissionSize: the bound is on the bytes as they arrive, and is told
// before anything of them is read.
func TestSubmissionSize(t *testing.T) {
	body := fmt.Sprintf(`{"schema":1,"id":%q,"spec":{"command":["train"]}}`, someID)
	fits := body + strings.Repeat(" ", MessageBytesMax-len(body))
	if _, err := ParseSubmission([]byte(fits), "ada"); err != nil {
		t.Errorf("%d bytes: %v", len(fits), err)
	}
	for _, over := range []string{fits + " ", strings.Repeat("{", MessageBytesMax+1)} {
		_, err := ParseSubmission([]byte(over), "ada")
		if !errors.Is(err, ErrMessage) || !strings.Contains(err.Error(), "oversized") {
			t.Errorf("%d bytes: %v", len(over), err)
		}
	}
}

// TestLargestSpecFitsAMessage: what Validate accepts can be sent.
func TestLargestSpecFitsAMessage(t *testing.T) {
	spec := validSpec()
	padTo(&spec, SpecBytesMax)
	body, err := json.Marshal(Submission{Schema: Schema, ID: someID, Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseSubmission(body, "ada"); err != nil {
		t.Errorf("a spec of %d bytes makes a message of %d: %v", SpecBytesMax, len(body), err)
	}
}

// TestAnyBytesAreAMessageOrAnErrMessage: a daemon dead-letters what it cannot
// use, so the kind of the error must hold for whatever arrives.
func TestAnyBytesAreAMessageOrAnErrMessage(t *testing.T) {
	part := rapid.SampledFrom([]string{
		`{`, `}`, `[`, `]`, `,`, `:`, `"`, `\`, `null`, `1`, `-1e999`, `"schema"`, `"id"`, `"spec"`, `"command"`, `"x"`,
		`{"schema":1,`, `"schema":1`, `"id":"` + string(someID) + `"`, `"spec":{"command":["x"]}`, `"enqueued_at":""`, "\xff", " ",
	})
	rapid.Check(t, func(t *rapid.T) {
		body := []byte(strings.Join(rapid.SliceOf(part).Draw(t, "parts"), ""))
		if s, err := ParseSubmission(body, "ada"); err == nil {
			if err := s.Spec.Validate(); err != nil {
				t.Fatalf("%s is accepted: %v", body, err)
			}
		} else if !errors.Is(err, ErrMessage) {
			t.Fatalf("%s as a submission: %v", body, err)
		}
		if ticket, err := ParseTicket(body); err == nil {
			if _, err := ParseID(string(ticket.ID)); err != nil || ticket.Schema != Schema {
				t.Fatalf("%s is accepted as %+v", body, ticket)
			}
		} else if !errors.Is(err, ErrMessage) {
			t.Fatalf("%s as a ticket: %v", body, err)
		}
	})
}

func TestTicketRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Ticket{Schema: Schema, ID: KeyID("ada", rapid.String().Draw(t, "key")), EnqueuedAt: At(anyTime.Draw(t, "at"))}
		if rapid.Bool().Draw(t, "no time") {
			want.EnqueuedAt = Time{}
		}
		got, err := ParseTicket(want.Encode())
		if err != nil || got != want {
			t.Fatalf("%s reads as %+v, %v", want.Encode(), got, err)
		}
	})
}

func TestTicketIsEncodedInThisSchema(t *testing.T) {
	at := At(time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC))
	got := string(Ticket{Schema: 99, ID: someID, EnqueuedAt: at}.Encode())
	want := `{"schema":1,"id":"` + string(someID) + `","enqueued_at":"2026-11-22T14:00:00.000000Z"}`
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestTicketIsRefused(t *testing.T) {
	id := fmt.Sprintf(`"id":%q`, someID)
	for _, c := range []struct{ name, body, says string }{
		{"empty", ``, "unparsable"},
		{"no schema", `{` + id + `,"enqueued_at":""}`, "unknown schema version 0"},
		{"schema 2", `{"schema":2,` + id + `,"enqueued_at":""}`, "unknown schema version 2"},
		{"unknown field", `{"schema":1,` + id + `,"fence":7}`, `"fence"`},
		{"no ID", `{"schema":1,"enqueued_at":""}`, "no job ID"},
		{"ID in capitals", `{"schema":1,"id":"` + strings.ToUpper(string(someID)) + `"}`, "no job ID"},
		{"no time", `{"schema":1,` + id + `,"enqueued_at":"soon"}`, "RFC 3339"},
		{"trailing", `{"schema":1,` + id + `,"enqueued_at":""} x`, "unparsable"},
		{"trailing object", `{"schema":1,` + id + `,"enqueued_at":""}{}`, "something follows"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseTicket([]byte(c.body))
			if !errors.Is(err, ErrMessage) || !strings.Contains(err.Error(), c.says) || got != (Ticket{}) {
				t.Errorf("%+v, %v, want ErrMessage with %q", got, err, c.says)
			}
		})
	}
}

// TestNobodyTakesAnothersKeyedID: a submission without a key may not carry an ID
// of version 5, or anybody who guesses submitter and key could occupy it first.
func TestNobodyTakesAnothersKeyedID(t *testing.T) {
	body := fmt.Sprintf(`{"schema":1,"id":%q,"spec":{"command":["x"]}}`, KeyID("ada", "nightly"))
	if s, err := ParseSubmission([]byte(body), "eve"); err == nil {
		t.Errorf("eve holds ada's nightly job: %s", s.ID)
	}
}

func TestArgumentThatIsNotUTF8IsRefusedNotChanged(t *testing.T) {
	body := "{\"schema\":1,\"id\":\"" + string(someID) + "\",\"spec\":{\"command\":[\"cat\",\"/data/\xff\"]}}"
	if s, err := ParseSubmission([]byte(body), "ada"); err == nil {
		t.Errorf("the job runs %q", s.Spec.Command)
	}
}

func TestRefusalOfAnySubmissionIsShort(t *testing.T) {
	long := strings.Repeat("k", 200_000)
	for _, body := range []string{`{"schema":1,"` + long + `":1}`, `{"schema":1,"id":"` + long + `","spec":{"command":["x"]}}`} {
		_, err := ParseSubmission([]byte(body), "ada")
		if !errors.Is(err, ErrMessage) || len(err.Error()) > 1100 {
			t.Errorf("a message with a part of 200 kB is refused with %d bytes, %t", len(err.Error()), errors.Is(err, ErrMessage))
		}
	}
}
