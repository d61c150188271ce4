package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// MessageBytesMax bounds a submission as it arrives.
const MessageBytesMax = SpecBytesMax + 4<<10

// Submission is the message to the exchange gpuq.submit. It has an ID of the
// client's choosing, or a spec with a key, of which the daemon makes the ID; so
// a message that is sent twice is one job.
type Submission struct {
	Schema int  `json:"schema"`
	ID     ID   `json:"id,omitempty"`
	Spec   Spec `json:"spec"`
}

// ErrMessage marks a message that no daemon will ever accept; its text says why
// and becomes the reason of the dead letter.
var ErrMessage = errors.New("unacceptable message")

// reasonBytesMax bounds the text of a refusal: it repeats parts of the message.
const reasonBytesMax = 1000

// ParseSubmission reads a submission from submitter, fills in the defaults and
// settles the ID. Every error is an ErrMessage, of bounded length.
func ParseSubmission(body []byte, submitter string) (Submission, error) {
	s, err := parseSubmission(body, submitter)
	if err != nil && len(err.Error()) > reasonBytesMax {
		text := strings.TrimPrefix(err.Error(), ErrMessage.Error()+": ")
		err = fmt.Errorf("%w: %s (cut)", ErrMessage, strings.ToValidUTF8(text[:reasonBytesMax], ""))
	}
	return s, err
}

func parseSubmission(body []byte, submitter string) (Submission, error) {
	if len(body) > MessageBytesMax {
		return Submission{}, fmt.Errorf("%w: oversized: %d bytes are more than %d; put large inputs in a file", ErrMessage, len(body), MessageBytesMax)
	}
	if !utf8.Valid(body) {
		return Submission{}, fmt.Errorf("%w: unparsable: it is not UTF-8", ErrMessage)
	}
	var head struct {
		Schema *int `json:"schema"`
	}
	if err := json.Unmarshal(body, &head); err != nil {
		return Submission{}, fmt.Errorf("%w: unparsable: not a JSON object with schema, id and spec: %w", ErrMessage, err)
	}
	if head.Schema == nil || *head.Schema != Schema {
		return Submission{}, fmt.Errorf("%w: unknown schema version %s: this daemon speaks %d", ErrMessage, showSchema(head.Schema), Schema)
	}
	s := Submission{Spec: DefaultSpec()}
	if err := DecodeStrict(body, &s); err != nil {
		return Submission{}, fmt.Errorf("%w: unparsable: %w", ErrMessage, err)
	}
	if err := s.settleID(submitter); err != nil {
		return Submission{}, fmt.Errorf("%w: invalid: %w", ErrMessage, err)
	}
	if err := s.Spec.Validate(); err != nil {
		return Submission{}, fmt.Errorf("%w: invalid: %w", ErrMessage, err)
	}
	return s, nil
}

func (s *Submission) settleID(submitter string) error {
	switch {
	case submitter == "":
		return errors.New("it names no submitter: publish with the user-id property set to your own account")
	case s.Spec.Key != "":
		keyed := KeyID(submitter, s.Spec.Key)
		if s.ID != "" && s.ID != keyed {
			return fmt.Errorf("id: a job with a key has the ID %s: leave id out", keyed)
		}
		s.ID = keyed
		return nil
	case s.ID == "":
		return errors.New("id: give a fresh UUID, or a key in the spec, so that a message sent twice is one job")
	}
	if _, err := ParseID(string(s.ID)); err != nil {
		return err
	}
	if s.ID.keyed() {
		return errors.New("id: UUIDs of version 5 are kept for jobs with a key: give one of version 7 or 4")
	}
	return nil
}

// DecodeStrict decodes one JSON value and refuses unknown fields: a misspelt one
// would be ignored in silence.
func DecodeStrict(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object")
	}
	return nil
}

func showSchema(n *int) string {
	if n == nil {
		return "(none)"
	}
	return fmt.Sprint(*n)
}

// Ticket is the body of a message in a job queue: all else is in the ledger.
type Ticket struct {
	Schema int `json:"schema"`
	ID     ID  `json:"id"`
	// EnqueuedAt is when the message entered its work queue at the earliest: the
	// publication, or a retry's due time. The sweeper compares by it.
	EnqueuedAt Time `json:"enqueued_at"`
}

// Encode returns the message body.
func (t Ticket) Encode() []byte {
	t.Schema = Schema
	body, err := json.Marshal(t)
	if err != nil {
		panic("a ticket is plain data: " + err.Error())
	}
	return body
}

// ParseTicket reads the body of a message in a job queue. Every error is an
// ErrMessage.
func ParseTicket(body []byte) (Ticket, error) {
	var t Ticket
	if err := DecodeStrict(body, &t); err != nil {
		return Ticket{}, fmt.Errorf("%w: unparsable: %w", ErrMessage, err)
	}
	if t.Schema != Schema {
		return Ticket{}, fmt.Errorf("%w: unknown schema version %d: this daemon speaks %d", ErrMessage, t.Schema, Schema)
	}
	if _, err := ParseID(string(t.ID)); err != nil {
		return Ticket{}, fmt.Errorf("%w: invalid: %w", ErrMessage, err)
	}
	return t, nil
}
