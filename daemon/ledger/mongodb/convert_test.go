package mongodb

import (
	"encoding/json"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"pgregory.net/rapid"
)

// value draws any JSON value, as the text that json.Marshal makes of it.
func value() *rapid.Generator[any] {
	leaf := rapid.OneOf(
		rapid.Just[any](nil),
		rapid.Bool().AsAny(),
		rapid.String().AsAny(),
		rapid.Int64().AsAny(),
		rapid.SampledFrom([]float64{1 << 63, -(1 << 63) - 4096, 1e20}).AsAny(),   // whole, and no int64
		rapid.Float64().Filter(func(f float64) bool { return f-f == 0 }).AsAny(), // JSON has no infinities
	)
	key := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "%", "$oid", "a.b", "%24", "%2524", "_id", "id", "\x00", "0"}))
	inner := rapid.OneOf(leaf, rapid.MapOfN(key, leaf, 0, 4).AsAny(), rapid.SliceOfN(leaf, 0, 4).AsAny())
	return rapid.OneOf(inner, rapid.MapOfN(key, inner, 0, 4).AsAny(), rapid.SliceOfN(inner, 0, 4).AsAny())
}

// Whatever goes in comes back as the same text, but for the order of keys, which
// json.Marshal settles.
func TestConversionIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want, err := json.Marshal(map[string]any{"id": "x", "value": value().Draw(t, "value")})
		if err != nil {
			t.Fatal(err)
		}
		d, err := documentToBSON(want, "x")
		if err != nil {
			t.Fatal(err)
		}
		raw, err := bson.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		got, err := documentToJSON(raw)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
		wantPlainKeys(t, raw)
	})
}

// wantPlainKeys checks that no server can take a stored key for an operator or
// a path.
func wantPlainKeys(t *rapid.T, raw bson.Raw) {
	elements, err := raw.Elements()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range elements {
		key := e.Key()
		if key == "" || key != escapeKey(unescapeKey(key)) {
			t.Fatalf("the key %q is stored", key)
		}
		if e.Value().Type == bson.TypeEmbeddedDocument {
			wantPlainKeys(t, e.Value().Document())
		}
	}
}

func TestConversionRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"IntegerPast64Bits": `{"id":"x","n":9223372036854775809}`,
		"FloatPastItsRange": `{"id":"x","n":1e999}`,
		"ServersOwnID":      `{"id":"x","_id":"y"}`,
		"TwoIDs":            `{"id":"x","id":"x"}`,
		"IDThatIsNoText":    `{"id":1}`,
		"CutOff":            `{"id":"x","n":[1`,
	} {
		if d, err := documentToBSON([]byte(text), "x"); err == nil {
			t.Errorf("%s: made %v", name, d)
		}
	}
	foreign, err := bson.Marshal(bson.D{{Key: "_id", Value: "x"}, {Key: "at", Value: bson.NewObjectID()}})
	if err != nil {
		t.Fatal(err)
	}
	if doc, err := documentToJSON(foreign); err == nil {
		t.Errorf("a foreign document was read as %s", doc)
	}
}
