package docs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

// kinds are the types that examples are of, by the label of their block.
var kinds = map[string]func() any{
	"Job":         func() any { return new(job.Job) },
	"Ticket":      func() any { return new(job.Ticket) },
	"SubmitReply": func() any { return new(control.SubmitReply) },
	"StatesArgs":  func() any { return new(control.StatesArgs) },
	"StatesReply": func() any { return new(control.StatesReply) },
	"KillArgs":    func() any { return new(control.KillArgs) },
	"KillReply":   func() any { return new(control.KillReply) },
}

// Every example is what the code itself would write: decoded without unknown
// fields and encoded again, it is the same.
func TestExamplesAreWhatTheCodeWrites(t *testing.T) {
	seen := 0
	for _, b := range readPage(t).blocks() {
		words := strings.Fields(b.label)
		if len(words) == 0 || words[0] != "json" || slices.Contains(words, "Submission") {
			continue
		}
		seen++
		var err error
		switch {
		case len(words) > 1 && words[1] == "Request":
			err = checkRequest(b.text, words[2:])
		case len(words) > 1 && words[1] == "Response":
			err = checkResponse(b.text, words[2:])
		default:
			err = check(b.text, words[1:])
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", b.label, err, b.text)
		}
	}
	if seen < 5 {
		t.Errorf("only %d examples were found", seen)
	}
}

// check decodes a text as the type of the label, strictly, and encodes it again.
func check(text string, label []string) error {
	if len(label) != 1 || kinds[label[0]] == nil {
		return fmt.Errorf("the label %q names no type of an example", label)
	}
	return roundTrip(text, kinds[label[0]]())
}

func roundTrip(text string, into any) error {
	if err := job.DecodeStrict([]byte(text), into); err != nil {
		return err
	}
	again, err := json.Marshal(into)
	if err != nil {
		return err
	}
	var want bytes.Buffer
	if err := json.Compact(&want, []byte(text)); err != nil {
		return err
	}
	if !bytes.Equal(want.Bytes(), again) {
		return fmt.Errorf("the code writes\n%s", again)
	}
	return nil
}

func checkRequest(text string, label []string) error {
	var req control.Request
	if err := roundTrip(text, &req); err != nil {
		return err
	}
	if req.Schema != control.Schema {
		return fmt.Errorf("its schema is %d", req.Schema)
	}
	return check(string(req.Args), label)
}

func checkResponse(text string, label []string) error {
	var res control.Response
	if err := roundTrip(text, &res); err != nil {
		return err
	}
	switch {
	case res.Schema != control.Schema:
		return fmt.Errorf("its schema is %d", res.Schema)
	case res.Error != nil && !slices.Contains(control.Codes(), res.Error.Code):
		return fmt.Errorf("no daemon answers with the code %q", res.Error.Code)
	case res.Error != nil:
		return nil
	}
	return check(string(res.Data), label)
}

// A submission of the page is accepted as it stands, and between them the
// examples show every field.
func TestSubmissionsOfThePageAreAccepted(t *testing.T) {
	shown := map[string]bool{}
	for _, b := range readPage(t).blocks() {
		if b.label != "json Submission" {
			continue
		}
		if _, err := job.ParseSubmission([]byte(b.text), "alice"); err != nil {
			t.Errorf("%v\n%s", err, b.text)
		}
		var fields struct {
			Spec map[string]json.RawMessage `json:"spec"`
		}
		if err := json.Unmarshal([]byte(b.text), &fields); err != nil {
			t.Error(err)
		}
		for name := range fields.Spec {
			shown[name] = true
		}
	}
	for _, name := range readSource(t, "daemon/job/spec.go").structs["Spec"] {
		if !shown[name] {
			t.Errorf("no example shows the field %s", name)
		}
	}
}

// The refusal on the page is the daemon's own.
func TestRefusalOfThePageIsTheDaemons(t *testing.T) {
	id := job.NewID()
	_, err := job.ParseSubmission(fmt.Appendf(nil, `{"schema":1,"id":%q,"spec":{"comand":["x"]}}`, id), "alice")
	want := string(control.Encode(control.SubmitReply{}, err))
	for _, b := range readPage(t).blocks() {
		var text bytes.Buffer
		if b.label == "json Response" && json.Compact(&text, []byte(b.text)) == nil && text.String() == want {
			return
		}
	}
	t.Errorf("want the example %s", want)
}

// The defaults in the table of the spec are those of the code.
func TestDefaultsOfTheSpec(t *testing.T) {
	fields := map[string]json.RawMessage{}
	for _, row := range readPage(t).table(t, "Field of `Spec`") {
		text := row[1]
		if spans := code(text); len(spans) > 0 {
			text = spans[0]
		}
		if json.Valid([]byte(text)) {
			fields[code(row[0])[0]] = json.RawMessage(text)
		}
	}
	body, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	var got job.Spec
	if err := job.DecodeStrict(body, &got); err != nil {
		t.Fatal(err)
	}
	if want := job.DefaultSpec(); !reflect.DeepEqual(got, want) {
		t.Errorf("the page says\n%+v, the code\n%+v", got, want)
	}
}

// A bound on the page is the bound: it is accepted, and one more is not.
func TestBoundsOfTheSpec(t *testing.T) {
	many := func(n int, of string) string { return "[" + strings.TrimSuffix(strings.Repeat(of+",", n), ",") + "]" }
	text := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	labels := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"l%d":""`, i)
		}
		return "{" + strings.TrimPrefix(b.String(), ",") + "}"
	}
	rows := map[string]string{}
	for _, row := range readPage(t).table(t, "Field of `Spec`") {
		rows[code(row[0])[0]] = row[2]
	}
	for _, c := range []struct{ field, says, good, bad string }{
		{"command", "1 to 4096 texts", many(4096, `"x"`), many(4097, `"x"`)},
		{"command", "1 to 4096 texts", many(1, `"x"`), `[]`},
		{"name", "at most 128 bytes", text(128), text(129)},
		{"pool", "1 to 32", text(32), text(33)},
		{"gpus", "0 to 64", "64", "65"},
		{"gpus", "0 to 64", "0", "-1"},
		{"workdir", "absolute path", `"/x"`, `"x"`},
		{"env", "at most 128", `{` + text(128) + `:""}`, `{` + text(129) + `:""}`},
		{"time_limit", "at most `\"8760h\"`", `"8760h"`, `"8760h1s"`},
		{"grace", "at most `\"1h\"`", `"1h"`, `"1h1s"`},
		{"max_attempts", "1 to 100", "100", "101"},
		{"max_attempts", "1 to 100", "1", "0"},
		{"retry_on", "1 to 255", "[1,255]", "[256]"},
		{"backoff", "1 to 16 delays", many(16, `"1s"`), many(17, `"1s"`)},
		{"backoff", "at most `\"24h\"`", `["24h"]`, `["24h1s"]`},
		{"key", "at most 256 bytes", text(256), text(257)},
		{"expires", "at most `\"8760h\"`", `"8760h"`, `"8760h1s"`},
		{"labels", "at most 32:", labels(32), labels(33)},
		{"labels", "names of 1 to 63", `{` + text(63) + `:""}`, `{` + text(64) + `:""}`},
		{"labels", "at most 256 printable bytes", `{"x":` + text(256) + `}`, `{"x":` + text(257) + `}`},
	} {
		if !strings.Contains(rows[c.field], c.says) {
			t.Errorf("%s: want %q in the table", c.field, c.says)
		}
		if err := submit(c.field, c.good); err != nil {
			t.Errorf("%s: %v", c.field, err)
		}
		if err := submit(c.field, c.bad); err == nil {
			t.Errorf("%s: what is beyond %q is accepted", c.field, c.says)
		}
	}
}

// submit hands in a job with one field set.
func submit(field, value string) error {
	id, command := fmt.Sprintf(`"id":%q,`, job.NewID()), `"command":["x"],`
	switch field {
	case "command":
		command = ""
	case "key":
		id = ""
	}
	body := fmt.Sprintf(`{"schema":1,%s"spec":{%s%q:%s}}`, id, command, field, value)
	_, err := job.ParseSubmission([]byte(body), "alice")
	return err
}

// What has a number in the text has the code's.
func TestSizesAreTheCodes(t *testing.T) {
	words := strings.Join(strings.Fields(readPage(t).section(t, "## 5. For clients").prose()), " ")
	for _, want := range []string{
		fmt.Sprintf("At most %d bytes of UTF-8", job.MessageBytesMax),
		fmt.Sprintf("A spec has at most %d bytes", job.SpecBytesMax),
		fmt.Sprintf("A response has at most %d bytes, a request at most %d.", control.ResponseBytesMax, control.RequestBytesMax),
		fmt.Sprintf("`max` bytes, at most %d.", control.LogBytesMax),
		fmt.Sprintf("`limit`, %d unless given, at most %d.", control.RowsDefault, control.RowsMax),
		fmt.Sprintf("`ids`, 1 to %d; `wait`, at most %d s:", control.RowsMax, int(control.StatesWaitMax.Seconds())),
	} {
		if !strings.Contains(words, want) {
			t.Errorf("want %q on the page", want)
		}
	}
}

// Whoever makes the ID of a keyed job by the page makes the daemon's.
func TestKeysAreMadeAsThePageSays(t *testing.T) {
	clients := readPage(t).section(t, "### 5.3 Submission")
	for _, want := range []string{"5:alice:sweep-7/lr-3e-4", string(job.KeyID("alice", "sweep-7/lr-3e-4"))} {
		if !slices.Contains(code(clients.prose()), want) {
			t.Errorf("want %q on the page", want)
		}
	}
	s, err := job.ParseSubmission([]byte(`{"schema":1,"spec":{"command":["x"],"key":"sweep-7/lr-3e-4"}}`), "alice")
	if err != nil || s.ID != job.KeyID("alice", "sweep-7/lr-3e-4") {
		t.Errorf("got %s, %v", s.ID, err)
	}
}

// The document on the page is one that a ledger could hold.
func TestJobOfThePageIsWhole(t *testing.T) {
	for _, b := range readPage(t).blocks() {
		if b.label != "json Job" {
			continue
		}
		var j job.Job
		if err := json.Unmarshal([]byte(b.text), &j); err != nil {
			t.Fatal(err)
		}
		if j.SpecHash != j.Spec.Hash() || j.Queue != j.Spec.Shape().Queue() {
			t.Errorf("its hash is %s and its queue %s", j.Spec.Hash(), j.Spec.Shape().Queue())
		}
		for i := range j.History[1:] {
			if from, to := j.History[i].State, j.History[i+1].State; !job.Allowed(from, to) {
				t.Errorf("no job goes from %s to %s", from, to)
			}
		}
		return
	}
	t.Error("the page has no document of a job")
}
