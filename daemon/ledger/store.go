package ledger

import (
	"context"
	"encoding/json"
	"errors"
)

// Collection names a set of documents.
type Collection string

// The collections of a ledger.
const (
	Jobs        Collection = "jobs"
	Hosts       Collection = "hosts"
	Events      Collection = "events"
	DeadLetters Collection = "dead_letters"
	Shapes      Collection = "shapes"
	Meta        Collection = "meta"    // one document: the ledger's own identity
	Scratch     Collection = "scratch" // documents of the start-up check
)

// Collections lists every collection, for a store that has to create them.
var Collections = []Collection{Jobs, Hosts, Events, DeadLetters, Shapes, Meta, Scratch}

// Indexes lists the indexes of each collection; each is a list of fields.
var Indexes = map[Collection][][]string{
	Jobs: {
		{"queue", "state", "published_at"},
		{"state", "published_at"},
		{"state", "expires_at"},
		{"owner.session"},
		{"submitted_at"},
		{"submitter", "submitted_at"},
	},
	Events:      {{"at"}},
	DeadLetters: {{"at"}},
}

// Errors of a store. Any other error of a write means that its outcome is
// unknown: it may have been applied, or may yet be.
var (
	// ErrExists: a document of that ID is there already.
	ErrExists = errors.New("the document exists")
	// ErrNotFound: there is no document of that ID.
	ErrNotFound = errors.New("not found")
	// ErrNoMatch: the document is absent or does not meet the conditions;
	// nothing was changed.
	ErrNoMatch = errors.New("the document does not match")
	// ErrUnfit: the server cannot be a ledger; the text says why and what to do.
	ErrUnfit = errors.New("this server cannot hold the ledger")
)

// Op compares a field with a value.
type Op string

// The comparisons. Lt, Lte and Gt compare numbers, or the text of job.Time; a
// field that is null or absent meets none of the three.
const (
	Eq  Op = "eq" // the value nil also matches an absent field
	In  Op = "in" // Value is a []string
	Lt  Op = "lt"
	Lte Op = "lte"
	Gt  Op = "gt"
)

// Cond is one condition on a field, whose path has dots: "owner.session". The
// field "id" is the document's identity.
// Values are string, bool, int, int64 or nil; []string with In.
type Cond struct {
	Field string
	Op    Op
	Value any
}

// Update changes fields of one document. Values of Set and Push are marshalled
// as JSON. A path names an existing parent, or one field of the document.
type Update struct {
	Set  map[string]any
	Inc  map[string]int64 // an absent field counts as 0
	Push map[string]any   // append one element to an array
}

// Query selects documents of a collection.
type Query struct {
	When    []Cond
	Sort    string // field; "" leaves the order open
	Desc    bool
	Limit   int      // 0 is no limit
	Without []string // top-level fields to leave out
}

// Store is a document database as far as the ledger needs one. Documents are
// JSON objects whose field "id" is their identity; every write is atomic on its
// one document and durable when the call returns, and every read sees all
// writes that returned before it began, whichever process made them.
//
// Two kinds implement it, and one suite (ledgertest) holds them to it.
type Store interface {
	// Kind names the kind of store: "sqlite" or "mongodb".
	Kind() string
	// Prepare creates collections and indexes, and proves what the server says
	// of itself: write concern, file system. It returns ErrUnfit where the
	// store cannot keep the contract above.
	Prepare(ctx context.Context) error
	// Insert adds a document. ErrExists if its ID is taken.
	Insert(ctx context.Context, c Collection, id string, doc json.RawMessage) error
	// Update applies u to the document if it meets all conditions, in one
	// atomic step, and returns the document as it is after. ErrNoMatch if not.
	Update(ctx context.Context, c Collection, id string, when []Cond, u Update) (json.RawMessage, error)
	// Get returns a document, linearizably. ErrNotFound if there is none.
	Get(ctx context.Context, c Collection, id string) (json.RawMessage, error)
	// Find returns the documents that meet the query.
	Find(ctx context.Context, c Collection, q Query) ([]json.RawMessage, error)
	// Delete removes a document; one that is absent is no error.
	Delete(ctx context.Context, c Collection, id string) error
	// Close ends all connections; calls after it fail.
	Close() error
}
