package store

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Documents are kept as their JSON text with the places of their top-level
// members, so that an update is one copy and a read is none. What follows reads
// text that json.Valid has passed.

// span is one member of an object: text[key:keyEnd] is its name with the quotes,
// text[value:end] its value.
type span struct{ key, keyEnd, value, end int32 }

func (s span) keyIn(text []byte) []byte   { return text[s.key:s.keyEnd] }
func (s span) valueIn(text []byte) []byte { return text[s.value:s.end] }

// members appends the members of the object that text is.
func members(text []byte, spans []span) []span {
	i := skipSpace(text, skipSpace(text, 0)+1)
	for text[i] != '}' {
		var s span
		s.key = int32(i)
		i = skipString(text, i)
		s.keyEnd = int32(i)
		i = skipSpace(text, skipSpace(text, i)+1) // the colon
		s.value = int32(i)
		i = skipValue(text, i)
		s.end = int32(i)
		spans = append(spans, s)
		if i = skipSpace(text, i); text[i] == ',' {
			i = skipSpace(text, i+1)
		}
	}
	return spans
}

// find returns the place of a member, or -1.
func find(text []byte, spans []span, name string) int {
	for i, s := range spans {
		if isNamed(s.keyIn(text), name) {
			return i
		}
	}
	return -1
}

// member returns the value of one member of the value that text is; nil where it
// is absent, or text is no object.
func member(text []byte, name string) []byte {
	if kindOf(text) != kindObject {
		return nil
	}
	i := skipSpace(text, skipSpace(text, 0)+1)
	for text[i] != '}' {
		keyEnd := skipString(text, i)
		value := skipSpace(text, skipSpace(text, keyEnd)+1)
		end := skipValue(text, value)
		if isNamed(text[i:keyEnd], name) {
			return text[value:end]
		}
		if i = skipSpace(text, end); text[i] == ',' {
			i = skipSpace(text, i+1)
		}
	}
	return nil
}

// isNamed compares a quoted key with a name, which is not empty.
func isNamed(quoted []byte, name string) bool {
	if len(quoted) == len(name)+2 {
		return string(quoted[1:len(quoted)-1]) == name
	}
	if len(quoted) < len(name)+2 || quoted[1] != name[0] && quoted[1] != '\\' {
		return false
	}
	return hasEscape(quoted) && unquote(quoted) == name
}

func hasEscape(quoted []byte) bool { return bytes.IndexByte(quoted, '\\') >= 0 }

// unquote returns the text that a JSON string stands for.
func unquote(quoted []byte) string {
	if !hasEscape(quoted) && utf8.Valid(quoted) {
		return string(quoted[1 : len(quoted)-1])
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		panic("the text of a document is JSON: " + err.Error())
	}
	return s
}

func skipSpace(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\t' || text[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the end of the string that begins at i.
func skipString(text []byte, i int) int {
	for i++; text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// skipValue returns the end of the value that begins at i.
func skipValue(text []byte, i int) int {
	switch text[i] {
	case '"':
		return skipString(text, i)
	case '{', '[':
		depth := 0
		for {
			switch text[i] {
			case '"':
				i = skipString(text, i)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			i++
			if depth == 0 {
				return i
			}
		}
	}
	for i < len(text) && strings.IndexByte(",]} \n\t\r", text[i]) < 0 {
		i++
	}
	return i
}

// kind is what a JSON value is.
type kind int

const (
	kindAbsent kind = iota
	kindNull
	kindBool
	kindNumber
	kindText
	kindObject
	kindArray
)

// kindOf returns the kind of a value; of nil, absent.
func kindOf(value []byte) kind {
	if len(value) == 0 {
		return kindAbsent
	}
	switch value[0] {
	case 'n':
		return kindNull
	case 't', 'f':
		return kindBool
	case '"':
		return kindText
	case '{':
		return kindObject
	case '[':
		return kindArray
	}
	return kindNumber
}

// integer returns the number of a value that is one and fits; else 0.
func integer(value []byte) int64 {
	n, _ := strconv.ParseInt(string(value), 10, 64)
	return n
}

// words returns the text of a value; "" where it is none.
func words(value []byte) string {
	if kindOf(value) != kindText {
		return ""
	}
	return unquote(value)
}
