package mongodb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// The conversion between JSON and BSON is exact for every document of the
// ledger: an integer becomes an int64, any other number a double, and text stays
// text, whatever it looks like. MongoDB's extended JSON is not used: it would
// read a user's {"$oid": …} as something else.
//
// Keys below the top are users' in part. Servers differ in what they take as a
// key, so what is special to any of them is escaped, as in URLs.

// keyEscapes are the bytes that a stored key never holds: operators begin with
// $, paths are cut at dots, names end at NUL, and % is the escape itself.
var (
	keyEscapes   = strings.NewReplacer("%", "%25", "$", "%24", ".", "%2E", "\x00", "%00")
	keyUnescapes = strings.NewReplacer("%25", "%", "%24", "$", "%2E", ".", "%00", "\x00")
)

// keyEmpty stands for the empty key; no escape begins like it.
const keyEmpty = "%"

func escapeKey(key string) string {
	if key == "" {
		return keyEmpty
	}
	return keyEscapes.Replace(key)
}

func unescapeKey(key string) string {
	if key == keyEmpty {
		return ""
	}
	return keyUnescapes.Replace(key)
}

// documentToBSON converts a whole document, whose field "id" must be the given
// one; it becomes _id and comes first.
func documentToBSON(doc json.RawMessage, id string) (bson.D, error) {
	value, err := parseJSON(doc)
	if err != nil {
		return nil, err
	}
	fields, ok := value.(bson.D)
	if !ok {
		return nil, errors.New("a document is a JSON object")
	}
	out := bson.D{{Key: "_id", Value: id}}
	found := false
	for _, f := range fields {
		switch f.Key {
		case "id":
			if f.Value != id || found {
				return nil, fmt.Errorf("not a document with the id %q", id)
			}
			found = true
		case "_id":
			return nil, errors.New("_id is the server's name of id: call the field otherwise")
		default:
			out = append(out, f)
		}
	}
	if !found {
		return nil, fmt.Errorf("not a document with the id %q", id)
	}
	return out, nil
}

// valueToBSON converts a value by way of its JSON form.
func valueToBSON(v any) (any, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return parseJSON(text)
}

// parseJSON reads exactly one JSON value.
func parseJSON(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	value, err := parseValue(d)
	if err != nil {
		return nil, fmt.Errorf("read JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read JSON: something follows the value")
	}
	return value, nil
}

func parseValue(d *json.Decoder) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		if t == '{' {
			return parseObject(d)
		}
		return parseArray(d)
	case json.Number:
		return parseNumber(string(t))
	}
	return token, nil // text, bool or nil
}

func parseObject(d *json.Decoder) (bson.D, error) {
	fields := bson.D{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		value, err := parseValue(d)
		if err != nil {
			return nil, err
		}
		fields = append(fields, bson.E{Key: escapeKey(key.(string)), Value: value}) // the decoder takes only text for a key
	}
	_, err := d.Token()
	return fields, err
}

func parseArray(d *json.Decoder) (bson.A, error) {
	values := bson.A{}
	for d.More() {
		value, err := parseValue(d)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	_, err := d.Token()
	return values, err
}

// parseNumber keeps integers whole; one past 64 bits is refused, not rounded.
func parseNumber(text string) (any, error) {
	if strings.ContainsAny(text, ".eE") || text == "-0" {
		return strconv.ParseFloat(text, 64)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if !errors.Is(err, strconv.ErrRange) {
		return n, err
	}
	// Large doubles are written without a point, too; what no double equals is
	// refused.
	f, floatErr := strconv.ParseFloat(text, 64)
	if back, _ := json.Marshal(f); floatErr != nil || string(back) != text {
		return nil, err
	}
	return f, nil
}

// documentToJSON converts a stored document; _id becomes id.
func documentToJSON(raw bson.Raw) (json.RawMessage, error) {
	var out bytes.Buffer
	if err := writeObject(&out, raw, true); err != nil {
		return nil, fmt.Errorf("read a stored document: %w", err)
	}
	return out.Bytes(), nil
}

func writeObject(out *bytes.Buffer, raw bson.Raw, top bool) error {
	elements, err := raw.Elements()
	if err != nil {
		return err
	}
	out.WriteByte('{')
	for i, e := range elements {
		if i > 0 {
			out.WriteByte(',')
		}
		key := unescapeKey(e.Key())
		if top && key == "_id" {
			key = "id"
		}
		if err := writeJSON(out, key); err != nil {
			return err
		}
		out.WriteByte(':')
		if err := writeValue(out, e.Value()); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	out.WriteByte('}')
	return nil
}

func writeValue(out *bytes.Buffer, v bson.RawValue) error {
	switch v.Type {
	case bson.TypeEmbeddedDocument:
		return writeObject(out, v.Document(), false)
	case bson.TypeArray:
		values, err := v.Array().Values()
		if err != nil {
			return err
		}
		out.WriteByte('[')
		for i, value := range values {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := writeValue(out, value); err != nil {
				return err
			}
		}
		out.WriteByte(']')
		return nil
	case bson.TypeString:
		return writeJSON(out, v.StringValue())
	case bson.TypeInt64:
		return writeJSON(out, v.Int64())
	case bson.TypeInt32:
		return writeJSON(out, v.Int32())
	case bson.TypeDouble:
		return writeJSON(out, v.Double())
	case bson.TypeBoolean:
		return writeJSON(out, v.Boolean())
	case bson.TypeNull:
		return writeJSON(out, nil)
	}
	return fmt.Errorf("a value of BSON type %s was not written by gpuqd", v.Type)
}

func writeJSON(out *bytes.Buffer, v any) error {
	text, err := json.Marshal(v)
	if err == nil {
		out.Write(text)
	}
	return err
}
