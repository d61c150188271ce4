package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
)

// change is one part of a checked ledger.Update.
type change struct {
	field string
	path  path
	op    changeOp
	value []byte // of set and push, as JSON
	inc   int64
}

type changeOp int

const (
	set changeOp = iota
	inc
	push
)

// errType: an update met a field of another type than it needs.
var errType = errors.New("a field has the wrong type: want an object as parent, a number to add to, an array to push to")

// changesOf checks an update. The order of the changes is that of the names: new
// members of one document do not differ in their order from run to run.
func changesOf(u ledger.Update) ([]change, error) {
	list := make([]change, 0, len(u.Set)+len(u.Inc)+len(u.Push))
	for field, value := range u.Set {
		text, err := encode(value)
		if err != nil {
			return nil, fmt.Errorf("set %q: %w", field, err)
		}
		list = append(list, change{field: field, op: set, value: text})
	}
	for field, n := range u.Inc {
		list = append(list, change{field: field, op: inc, inc: n})
	}
	for field, value := range u.Push {
		text, err := encode(value)
		if err != nil {
			return nil, fmt.Errorf("push to %q: %w", field, err)
		}
		list = append(list, change{field: field, op: push, value: text})
	}
	slices.SortFunc(list, func(a, b change) int { return strings.Compare(a.field, b.field) })
	for i := range list {
		var err error
		if list[i].path, err = pathOf(list[i].field); err != nil {
			return nil, err
		}
	}
	return list, checkFields(list)
}

// encode is json.Marshal, with a short way for what most updates set.
func encode(value any) ([]byte, error) {
	switch v := value.(type) {
	case nil:
		return []byte("null"), nil
	case string:
		if isPlain(v) {
			return quoted(v), nil
		}
	case job.State:
		if isPlain(string(v)) {
			return quoted(string(v)), nil
		}
	case job.Time:
		return quoted(v.String()), nil
	}
	return json.Marshal(value)
}

// isPlain reports whether json.Marshal writes every byte of the text as it is.
func isPlain(t string) bool {
	for i := range len(t) {
		if c := t[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

func quoted(t string) []byte {
	return append(append(append(make([]byte, 0, len(t)+2), '"'), t...), '"')
}

// checkFields refuses an update of nothing, of the identity, and of two paths of
// which one holds the other: their order would decide the result.
func checkFields(list []change) error {
	if len(list) == 0 {
		return errors.New("it changes nothing")
	}
	for i := range list {
		p := list[i].field
		if p == "id" || strings.HasPrefix(p, "id.") {
			return errors.New("a document's id never changes")
		}
		for j := range list[:i] {
			if q := list[j].field; list[j].path.top == list[i].path.top && (p == q || strings.HasPrefix(p, q+".")) {
				return fmt.Errorf("it changes both %q and %q", q, p)
			}
		}
	}
	return nil
}

// replaced is a member of a document with its new value.
type replaced struct {
	at    int    // index of the member; -1 for a new one
	name  string // of a new one
	value []byte
}

// apply returns the document after the changes.
func apply(s *state, changes []change, at time.Duration) (*state, error) {
	var room [16]replaced
	news := room[:0]
	for i := range changes {
		c := &changes[i]
		at := find(s.text, s.spans, c.path.top)
		k := slices.IndexFunc(news, func(r replaced) bool { return r.at == at && (at >= 0 || r.name == c.path.top) })
		if k < 0 {
			k = len(news)
			news = append(news, replaced{at: at, name: c.path.top})
			if at >= 0 {
				news[k].value = s.spans[at].valueIn(s.text)
			}
		}
		value, err := c.changed(news[k].value, c.path.rest)
		if err != nil {
			return nil, err
		}
		news[k].value = value
	}
	after := &state{since: at}
	after.text, after.spans = splice(s.text, s.spans, news, after.room[:0])
	return after, nil
}

// changed returns the value after the change, which lies below it by rest.
func (c *change) changed(value []byte, rest []string) ([]byte, error) {
	if len(rest) > 0 {
		return c.changedBelow(value, rest)
	}
	switch c.op {
	case set:
		return c.value, nil
	case push:
		return pushed(value, c.value)
	}
	return added(value, c.inc)
}

func (c *change) changedBelow(value []byte, rest []string) ([]byte, error) {
	switch kindOf(value) {
	case kindAbsent:
		value = []byte("{}")
	case kindObject:
	default:
		return nil, errType
	}
	var room [16]span
	spans := members(value, room[:0])
	r := replaced{at: find(value, spans, rest[0]), name: rest[0]}
	var old []byte
	if r.at >= 0 {
		old = spans[r.at].valueIn(value)
	}
	var err error
	if r.value, err = c.changed(old, rest[1:]); err != nil {
		return nil, err
	}
	var places [16]span
	below, _ := splice(value, spans, []replaced{r}, places[:0])
	return below, nil
}

func pushed(value, element []byte) ([]byte, error) {
	switch kindOf(value) {
	case kindAbsent:
		value = []byte("[]")
	case kindArray:
	default:
		return nil, errType
	}
	out := make([]byte, 0, len(value)+len(element)+1)
	out = append(out, value[:len(value)-1]...)
	if value[skipSpace(value, 1)] != ']' {
		out = append(out, ',')
	}
	return append(append(out, element...), ']'), nil
}

func added(value []byte, n int64) ([]byte, error) {
	switch kindOf(value) {
	case kindAbsent:
		value = []byte("0")
	case kindNumber:
	default:
		return nil, errType
	}
	if i, err := strconv.ParseInt(string(value), 10, 64); err == nil {
		sum := i + n
		if (sum > i) != (n > 0) && n != 0 {
			return nil, errors.New("the sum is past 64 bits")
		}
		return strconv.AppendInt(nil, sum, 10), nil
	}
	f, err := strconv.ParseFloat(string(value), 64)
	if err != nil {
		return nil, err
	}
	return json.Marshal(f + float64(n))
}

// splice returns the object with its members replaced and added, and appends
// their places to places.
func splice(text []byte, spans []span, news []replaced, places []span) ([]byte, []span) {
	size := len(text)
	for _, r := range news {
		size += len(r.name) + len(r.value) + 4
	}
	out := append(make([]byte, 0, size), '{')
	for i, s := range spans {
		value := s.valueIn(text)
		for k := range news {
			if news[k].at == i {
				value = news[k].value
			}
		}
		out, places = appendMember(out, places, s.keyIn(text), value)
	}
	for k := range news {
		if news[k].at < 0 {
			out, places = appendMember(out, places, quoted(news[k].name), news[k].value) // a path's name is plain
		}
	}
	return append(out, '}'), places
}

func appendMember(out []byte, places []span, key, value []byte) ([]byte, []span) {
	if len(out) > 1 {
		out = append(out, ',')
	}
	s := span{key: int32(len(out))}
	out = append(out, key...)
	s.keyEnd = int32(len(out))
	out = append(out, ':')
	s.value = int32(len(out))
	out = append(out, value...)
	s.end = int32(len(out))
	return out, append(places, s)
}
