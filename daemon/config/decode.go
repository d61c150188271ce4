package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/BurntSushi/toml"

	"gpuqd/daemon/job"
)

// document is a TOML file on its way into a struct. Every key is decoded apart
// from the others, so that one bad value does not hide the next.
type document struct {
	file     string
	meta     toml.MetaData
	known    []string        // every key of the struct, with its section
	lines    map[string]int  // of the keys in the file
	broken   map[string]bool // keys whose value could not be read and kept its default
	problems []*Problem
}

// decode reads data over into, a pointer to a struct of sections and values.
// Keys match exactly (the library's own matching ignores case), and what the
// struct does not have is a problem. What could be read is in into, whatever
// the problems.
func decode(file string, data []byte, into any) *document {
	target := reflect.ValueOf(into).Elem()
	d := &document{
		file:   file,
		known:  knownKeys(target.Type(), nil),
		lines:  map[string]int{},
		broken: map[string]bool{},
	}
	var top map[string]toml.Primitive
	meta, err := toml.Decode(string(data), &top)
	if err != nil {
		p := &Problem{File: file, Text: err.Error()}
		var syntax toml.ParseError
		if errors.As(err, &syntax) {
			p.Line, p.Text = syntax.Position.Line, "this is not TOML: "+syntax.Message
		}
		d.problems = append(d.problems, p)
		// Nothing was read, so nothing can be said about any value.
		for _, key := range d.known {
			d.broken[key] = true
		}
		return d
	}
	d.meta = meta
	d.table(top, nil, target)
	return d
}

// table decodes one section into the struct target.
func (d *document) table(table map[string]toml.Primitive, section toml.Key, target reflect.Value) {
	for _, name := range slices.Sorted(maps.Keys(table)) {
		value := table[name]
		key := append(slices.Clone(section), name)
		d.lines[key.String()] = d.line(value)
		field, ok := fieldOf(target, name)
		switch {
		case !ok:
			d.bad(key, "%s", unknown(d.known, key, d.meta.Type(key...) == "Hash"))
		case field.Kind() == reflect.Struct:
			inner, ok := d.section(value)
			if !ok {
				d.bad(key, "want a section: write [%s] on a line of its own and its keys below", key)
				d.breakSection(key)
				continue
			}
			d.table(inner, key, field)
		default:
			d.value(value, key, field)
		}
	}
}

// section returns a value's keys if it is a table. The library decodes anything
// else into a map without an error, and leaves the map nil.
func (d *document) section(value toml.Primitive) (map[string]toml.Primitive, bool) {
	var inner map[string]toml.Primitive
	err := d.meta.PrimitiveDecode(value, &inner)
	return inner, err == nil && inner != nil
}

// breakSection marks all keys of a section as unread.
func (d *document) breakSection(section toml.Key) {
	for _, key := range d.known {
		if s, _ := split(key); s == section.String() {
			d.broken[key] = true
		}
	}
}

// value decodes one key's value into field, which keeps its default on failure.
func (d *document) value(value toml.Primitive, key toml.Key, field reflect.Value) {
	fresh := reflect.New(field.Type())
	err := d.meta.PrimitiveDecode(value, fresh.Interface())
	if field.CanUint() && err == nil {
		// The library wraps a negative number around.
		var signed int64
		if err = d.meta.PrimitiveDecode(value, &signed); err == nil && signed < 0 {
			err = errors.New("negative")
		}
	}
	if err == nil {
		field.Set(fresh.Elem())
		return
	}
	d.broken[key.String()] = true
	var text toml.ParseError
	_, own := fresh.Interface().(toml.Unmarshaler) // which says best what is wrong
	if errors.As(err, &text) && (own || d.meta.Type(key...) == "String") {
		d.bad(key, "%s", text.Message)
		return
	}
	d.bad(key, "want %s", form(field))
}

// form says how a value of the field's type is written.
func form(field reflect.Value) string {
	switch field.Interface().(type) {
	case job.Duration:
		return `a number with its unit, in quotes, such as "30s", "5m" or "1h30m"`
	case []string:
		return `a list of texts in quotes, such as ["a", "b"]`
	case SimulatedFaults:
		return `tables, such as [{ fault = "xid", device = 0, xid = 79, after = "1m" }]`
	case map[string]string:
		return `texts by name, such as { alice = "al", "bob@lab" = "bob" }`
	case string:
		return `a text in quotes, such as "a"`
	case bool:
		return "true or false, without quotes"
	case uint64:
		return "a whole number, not negative, without quotes"
	case int, int64:
		return "a whole number, without quotes"
	}
	panic(fmt.Sprintf("config has no form for %s", field.Type()))
}

func (d *document) bad(key toml.Key, format string, args ...any) {
	name := key.String()
	d.problems = append(d.problems, &Problem{
		File: d.file, Line: d.lines[name], Key: name, Text: fmt.Sprintf(format, args...),
	})
}

// join returns the document's problems together with those a checker found in
// what was read, which get their file and line here.
func (d *document) join(found []*Problem) error {
	for _, p := range found {
		p.File, p.Line = d.file, d.lines[p.Key]
	}
	return join(append(d.problems, found...))
}

// line returns the line of a key, or 0. The library tells it only in the error
// of a value that will not decode, so this one never does.
func (d *document) line(value toml.Primitive) int {
	var at toml.ParseError
	if errors.As(d.meta.PrimitiveDecode(value, &lineProbe{}), &at) {
		return at.Position.Line
	}
	return 0
}

type lineProbe struct{}

// UnmarshalTOML implements toml.Unmarshaler; it always fails.
func (*lineProbe) UnmarshalTOML(any) error { return errors.New("asked for the line only") }

// fieldOf returns the field of a struct that a key of its section sets.
func fieldOf(target reflect.Value, name string) (reflect.Value, bool) {
	for i := range target.NumField() {
		if target.Type().Field(i).Tag.Get("toml") == name {
			return target.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// knownKeys lists the keys of a struct in their order, each with its section.
func knownKeys(t reflect.Type, section toml.Key) []string {
	var keys []string
	for i := range t.NumField() {
		key := append(slices.Clone(section), t.Field(i).Tag.Get("toml"))
		if inner := t.Field(i).Type; inner.Kind() == reflect.Struct {
			keys = append(keys, knownKeys(inner, key)...)
			continue
		}
		keys = append(keys, key.String())
	}
	return keys
}
