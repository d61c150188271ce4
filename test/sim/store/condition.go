package store

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"gpuqd/daemon/ledger"
)

// path is a field's name in parts. Most fields have one.
type path struct {
	top  string
	rest []string
	hint int // where the last document had it: the next is likely to
}

// pathOf cuts a field's path, which consists of names only, as the real stores
// have it: letters, digits, _ and -, not beginning with a digit or -.
func pathOf(field string) (path, error) {
	start := true
	dots := 0
	for i := range len(field) {
		c := field[i]
		switch {
		case c == '.' && !start:
			start = true
			dots++
			continue
		case c == '_', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		case !start && ('0' <= c && c <= '9' || c == '-'):
		default:
			return path{}, fmt.Errorf("%q is no path of a field", field)
		}
		start = false
	}
	if start {
		return path{}, fmt.Errorf("%q is no path of a field", field)
	}
	if dots == 0 {
		return path{top: field}, nil
	}
	parts := strings.Split(field, ".")
	return path{top: parts[0], rest: parts[1:]}, nil
}

// of returns the value at the path; nil where it is absent.
func (p *path) of(s *state) []byte {
	if p.hint >= len(s.spans) || !isNamed(s.spans[p.hint].keyIn(s.text), p.top) {
		if p.hint = find(s.text, s.spans, p.top); p.hint < 0 {
			p.hint = 0
			return nil
		}
	}
	value := s.spans[p.hint].valueIn(s.text)
	for _, name := range p.rest {
		if value == nil {
			return nil
		}
		value = member(value, name)
	}
	return value
}

// condition is a checked ledger.Cond.
type condition struct {
	path  path
	op    ledger.Op
	kind  kind // of the value that it compares with
	text  string
	n     int64 // of a number; 1 for true
	texts []string
}

func conditionsOf(when []ledger.Cond) ([]condition, error) {
	list := make([]condition, len(when))
	for i, cond := range when {
		c, err := conditionOf(cond)
		if err != nil {
			return nil, fmt.Errorf("condition on %q: %w", cond.Field, err)
		}
		list[i] = c
	}
	return list, nil
}

func conditionOf(cond ledger.Cond) (condition, error) {
	p, err := pathOf(cond.Field)
	if err != nil {
		return condition{}, err
	}
	c := condition{path: p, op: cond.Op}
	switch v := cond.Value.(type) {
	case nil:
		c.kind = kindNull
	case bool:
		c.kind = kindBool
		if v {
			c.n = 1
		}
	case int:
		c.kind, c.n = kindNumber, int64(v)
	case int64:
		c.kind, c.n = kindNumber, v
	case string:
		c.kind, c.text = kindText, v
	case []string:
		c.kind, c.texts = kindArray, v
	default:
		return condition{}, fmt.Errorf("values of type %T cannot be compared", cond.Value)
	}
	ordered := c.kind == kindNumber || c.kind == kindText
	switch cond.Op {
	case ledger.Eq:
		if c.kind == kindArray {
			return condition{}, fmt.Errorf("values of type %T cannot be compared", cond.Value)
		}
	case ledger.Lt, ledger.Lte, ledger.Gt:
		if !ordered {
			return condition{}, fmt.Errorf("values of type %T have no order", cond.Value)
		}
	case ledger.In:
		if c.kind != kindArray {
			return condition{}, fmt.Errorf("%T is no []string", cond.Value)
		}
	default:
		return condition{}, fmt.Errorf("unknown comparison %q", cond.Op)
	}
	return c, nil
}

func matches(s *state, when []condition) bool {
	for i := range when {
		if !when[i].holds(s) {
			return false
		}
	}
	return true
}

// holds compares like with like: a number is never less than a text, and null is
// less than neither.
func (c *condition) holds(s *state) bool {
	value := c.path.of(s)
	kind := kindOf(value)
	if c.op == ledger.In {
		return kind == kindText && slices.ContainsFunc(c.texts, func(t string) bool { return equalText(value, t) })
	}
	switch c.kind {
	case kindNull:
		return kind == kindNull || kind == kindAbsent
	case kindBool:
		return kind == kindBool && (value[0] == 't') == (c.n == 1)
	case kindText:
		if kind != kindText {
			return false
		}
		if c.op == ledger.Eq {
			return equalText(value, c.text)
		}
		return c.ordered(compareText(value, c.text))
	case kindNumber:
		return kind == kindNumber && c.ordered(compareNumber(value, c.n))
	}
	return false
}

// ordered judges the order of the document's value against the condition's.
func (c *condition) ordered(order int) bool {
	switch c.op {
	case ledger.Eq:
		return order == 0
	case ledger.Lt:
		return order < 0
	case ledger.Lte:
		return order <= 0
	}
	return order > 0
}

func equalText(quoted []byte, t string) bool {
	inside := quoted[1 : len(quoted)-1]
	if len(inside) > len(t) { // an escape is longer than what it stands for
		return hasEscape(quoted) && unquote(quoted) == t
	}
	return string(inside) == t && !hasEscape(inside)
}

func compareText(quoted []byte, t string) int {
	if hasEscape(quoted) {
		return strings.Compare(unquote(quoted), t)
	}
	return bytes.Compare(quoted[1:len(quoted)-1], []byte(t))
}

// compareNumber compares exactly, also past the integers that a float64 knows.
func compareNumber(value []byte, n int64) int {
	if i, err := strconv.ParseInt(string(value), 10, 64); err == nil {
		return cmp.Compare(i, n)
	}
	f, _ := strconv.ParseFloat(string(value), 64) // out of range is an infinity, which compares right
	switch {
	case f >= math.MaxInt64:
		return 1
	case f < math.MinInt64:
		return -1
	}
	whole := math.Floor(f)
	if order := cmp.Compare(int64(whole), n); order != 0 || f == whole {
		return order
	}
	return 1
}
