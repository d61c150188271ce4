package job

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// TestKeyIDIsStable holds keyed IDs to values that were computed apart from this
// code (version 5 of the namespace and "<bytes>:<submitter>:<key>"). A change
// would run every keyed job a second time.
func TestKeyIDIsStable(t *testing.T) {
	for _, c := range []struct {
		submitter, key string
		want           ID
	}{
		{"alice", "nightly", "770e1869-e78f-512c-8477-3ef9d5998f5c"},
		{"bob", "nightly", "7eab2e39-5eb1-5c78-b51e-121ac6869ecb"},
		{"alice", "", "8da32dd9-6fac-595b-9771-cbd6b3667e85"},
		{"a:1", "b", "872a1b5e-41b3-51c0-a132-9b5d85f7297a"},
		{"a", "1:b", "60b450a0-ae9e-5acc-bf7d-69b86644bfa0"},
		{"müller", "größe", "cfd329aa-d348-5b51-98c0-915af743f588"},
	} {
		if got := KeyID(c.submitter, c.key); got != c.want {
			t.Errorf("KeyID(%q, %q) = %s, want %s", c.submitter, c.key, got, c.want)
		}
	}
}

// TestRequeueIDIsStable holds requeues to values that were computed apart from
// this code. A change would requeue jobs a second time.
func TestRequeueIDIsStable(t *testing.T) {
	for old, want := range map[ID]ID{
		"fd4e7552-6444-4017-97e8-531212383f32": "4971a6b4-5c2e-5aee-9ccb-d42a7aa51b07",
		"ac532e07-a9c3-51fd-8f81-e09a33fc14a0": "66522afb-e3af-5c4a-b67a-d0e713d80772",
	} {
		if got := RequeueID(old); got != want {
			t.Errorf("RequeueID(%s) = %s, want %s", old, got, want)
		}
		if !RequeueID(old).keyed() {
			t.Errorf("the ID of the requeue of %s is one that anybody may choose", old)
		}
	}
}

// TestKeyIDsDoNotCollide: no two pairs name one job, whatever characters they
// are made of; those that the name is put together with are drawn often.
func TestKeyIDsDoNotCollide(t *testing.T) {
	part := rapid.OneOf(rapid.StringOfN(rapid.SampledFrom([]rune("a1:")), 0, 4, -1), rapid.String())
	rapid.Check(t, func(t *rapid.T) {
		s1, k1 := part.Draw(t, "submitter 1"), part.Draw(t, "key 1")
		s2, k2 := part.Draw(t, "submitter 2"), part.Draw(t, "key 2")
		same := s1 == s2 && k1 == k2
		if got := KeyID(s1, k1) == KeyID(s2, k2); got != same {
			t.Fatalf("KeyID(%q, %q) == KeyID(%q, %q) is %v", s1, k1, s2, k2, got)
		}
	})
}

// TestKeyIDsOfMovedBoundariesDiffer: the pairs whose plain concatenation, with
// or without a separator, is one text.
func TestKeyIDsOfMovedBoundariesDiffer(t *testing.T) {
	seen := map[ID]string{}
	const text = "1:a:1:b:"
	for i := range len(text) + 1 {
		id := KeyID(text[:i], text[i:])
		if before, ok := seen[id]; ok {
			t.Errorf("%q|%q has the ID of %s", text[:i], text[i:], before)
		}
		seen[id] = text[:i] + "|" + text[i:]
	}
}

func TestIDVersionsTellWhoPicked(t *testing.T) {
	if v := uuid.MustParse(string(NewID())).Version(); v != 7 {
		t.Errorf("a fresh ID has version %d, want 7", v)
	}
	if v := uuid.MustParse(string(KeyID("ada", "k"))).Version(); v != 5 {
		t.Errorf("a keyed ID has version %d, want 5", v)
	}
}

func TestNewIDsSortInOrderOfTheirMaking(t *testing.T) {
	before := NewID()
	for range 10_000 {
		id := NewID()
		if id <= before {
			t.Fatalf("%s was made after %s and sorts before it", id, before)
		}
		before = id
	}
}

func TestParseIDAcceptsTheCanonicalFormOnly(t *testing.T) {
	const good = "01890a5d-ac96-774b-bcce-b302099a8057"
	for _, c := range []struct {
		text string
		ok   bool
	}{
		{good, true},
		{string(KeyID("ada", "nightly")), true},
		{"", false},
		{strings.ToUpper(good), false},
		{"{" + good + "}", false},
		{"urn:uuid:" + good, false},
		{strings.ReplaceAll(good, "-", ""), false},
		{good + "\n", false},
		{" " + good, false},
		{good[:35], false},
		{good + "0", false},
		{strings.Replace(good, "0", "g", 1), false},
		{"../" + good, false},
	} {
		id, err := ParseID(c.text)
		if (err == nil) != c.ok {
			t.Errorf("ParseID(%q): %v, want ok %v", c.text, err, c.ok)
		}
		if err == nil && string(id) != c.text || err != nil && id != "" {
			t.Errorf("ParseID(%q) = %q", c.text, id)
		}
		if err != nil && !strings.Contains(err.Error(), "lower case") {
			t.Errorf("ParseID(%q): %v does not say what it wants", c.text, err)
		}
	}
}

func TestEveryIDParses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := KeyID(rapid.String().Draw(t, "submitter"), rapid.String().Draw(t, "key"))
		if rapid.Bool().Draw(t, "fresh") {
			id = NewID()
		}
		if got, err := ParseID(string(id)); err != nil || got != id {
			t.Fatalf("ParseID(%s) = %s, %v", id, got, err)
		}
	})
}
