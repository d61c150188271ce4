// Package mongodb keeps the ledger in MongoDB: one database, a collection per
// collection of the ledger, and findOneAndUpdate as its compare-and-set. Writes
// are acknowledged by a majority of the replica set, on disk; reads are
// linearizable where the server can (see Store.Prepare).
//
// Other servers that speak MongoDB's protocol are taken if they pass the
// ledger's own race of compare-and-sets. FerretDB 1.x on its own does not.
package mongodb

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"gpuqd/daemon/ledger"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

// Options say where the ledger is.
type Options struct {
	// URI is MongoDB's connection string; it names every member, or an SRV
	// record, and carries the TLS settings.
	URI      string
	Database string // "" is DatabaseDefault
	// SingleNode accepts a server that is not a replica set of several members.
	// The loss of its disk is then the loss of the ledger.
	SingleNode bool
	// Username and Password log in, if set, in place of the URI's own.
	Username, Password string
	AuthSource         string      // database of the user; "" is "admin"
	TLS                *tls.Config // nil leaves TLS to the URI
	// Timeout bounds every call, choosing the server included; 0 is 10 s. The
	// caller's context bounds it, too.
	Timeout time.Duration
}

// DatabaseDefault is the database of a ledger that is not told another.
const DatabaseDefault = "gpuqd"

const (
	authSourceDefault = "admin"
	timeoutDefault    = 10 * time.Second
	// poolMost bounds the connections to each member.
	poolMost = 16
)

// Store is a ledger.Store in a MongoDB database.
type Store struct {
	client     *mongo.Client
	database   *mongo.Database
	singleNode bool
	timeout    time.Duration
	// local is set by Prepare for a server without linearizable reads; reads
	// of a lone server's own data are linearizable by themselves.
	local atomic.Bool
}

var _ ledger.Store = (*Store)(nil)

// Open returns a store on the database. It does not wait for the server: the
// first call does.
func Open(_ context.Context, o Options) (*Store, error) {
	if o.URI == "" {
		return nil, errors.New("the mongodb ledger has no URI: set the connection string of its replica set")
	}
	if o.Database == "" {
		o.Database = DatabaseDefault
	}
	if o.Timeout <= 0 {
		o.Timeout = timeoutDefault
	}
	opts := clientOptions(o)
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("the URI of the mongodb ledger is no connection string: want mongodb://HOST:PORT,…/?replicaSet=NAME: %w", redact(err, o))
	}
	client, err := mongo.Connect(opts)
	if err != nil {
		return nil, fmt.Errorf("open the mongodb ledger: %w", redact(err, o))
	}
	return &Store{client: client, database: client.Database(o.Database), singleNode: o.SingleNode, timeout: o.Timeout}, nil
}

// clientOptions sets what the contract of ledger.Store rests on last, so that
// the URI cannot weaken it. The driver repeats a write once after a network
// error, under its transaction number, by which a replica set recognises it;
// for a lone server the driver does not repeat writes.
func clientOptions(o Options) *options.ClientOptions {
	journal := true
	opts := options.Client().
		ApplyURI(o.URI).
		SetAppName("gpuqd").
		SetMaxPoolSize(poolMost).
		SetTimeout(o.Timeout).
		SetServerSelectionTimeout(o.Timeout).
		SetConnectTimeout(o.Timeout).
		SetWriteConcern(&writeconcern.WriteConcern{W: writeconcern.WCMajority, Journal: &journal}).
		SetReadConcern(readconcern.Linearizable()).
		SetReadPreference(readpref.Primary()).
		SetRetryWrites(true).
		SetRetryReads(true)
	if o.TLS != nil {
		opts.SetTLSConfig(o.TLS)
	}
	if o.Username != "" {
		if o.AuthSource == "" {
			o.AuthSource = authSourceDefault
		}
		opts.SetAuth(options.Credential{AuthSource: o.AuthSource, Username: o.Username, Password: o.Password, PasswordSet: true})
	}
	return opts
}

// Kind implements ledger.Store.
func (s *Store) Kind() string { return "mongodb" }

// closeTimeout bounds the goodbye to the server, which is a courtesy: a server
// that is out of reach must not hold up the end of the daemon.
const closeTimeout = time.Second

// Close implements ledger.Store.
func (s *Store) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return s.client.Disconnect(ctx)
}

// collection returns a collection, and a context within the store's bound.
func (s *Store) collection(ctx context.Context, c ledger.Collection) (*mongo.Collection, context.Context, context.CancelFunc, error) {
	if !slices.Contains(ledger.Collections, c) {
		return nil, nil, nil, fmt.Errorf("%q is no collection of the ledger", c)
	}
	opts := options.Collection()
	if s.local.Load() {
		opts.SetReadConcern(readconcern.Local())
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	return s.database.Collection(string(c), opts), ctx, cancel, nil
}

// Insert implements ledger.Store.
func (s *Store) Insert(ctx context.Context, c ledger.Collection, id string, doc json.RawMessage) error {
	coll, ctx, cancel, err := s.collection(ctx, c)
	if err != nil {
		return err
	}
	defer cancel()
	d, err := documentToBSON(doc, id)
	if err != nil {
		return fmt.Errorf("insert into %s: %w", c, err)
	}
	_, err = coll.InsertOne(ctx, d)
	switch {
	case onlyDuplicate(err):
		return ledger.ErrExists
	case err != nil:
		return fmt.Errorf("insert into %s: %w", c, err)
	}
	return nil
}

// onlyDuplicate reports whether an insert failed because the ID is taken, and
// for nothing else: beside a write-concern error it settles nothing.
func onlyDuplicate(err error) bool {
	var e mongo.WriteException
	if errors.As(err, &e) && e.WriteConcernError != nil {
		return false
	}
	return mongo.IsDuplicateKeyError(err)
}

// Update implements ledger.Store.
func (s *Store) Update(ctx context.Context, c ledger.Collection, id string, when []ledger.Cond, u ledger.Update) (json.RawMessage, error) {
	coll, ctx, cancel, err := s.collection(ctx, c)
	if err != nil {
		return nil, err
	}
	defer cancel()
	change, err := changeOf(u)
	if err != nil {
		return nil, fmt.Errorf("update %s: %w", c, err)
	}
	filter, err := filterOf(when)
	if err != nil {
		return nil, fmt.Errorf("update %s: %w", c, err)
	}
	filter = append(bson.D{{Key: "_id", Value: id}}, filter...)
	after := options.FindOneAndUpdate().SetReturnDocument(options.After).SetUpsert(false)
	raw, err := coll.FindOneAndUpdate(ctx, filter, change, after).Raw()
	switch {
	case errors.Is(err, mongo.ErrNoDocuments):
		return nil, ledger.ErrNoMatch
	case err != nil:
		return nil, fmt.Errorf("update %s: %w", c, err)
	}
	return documentToJSON(raw)
}

// Get implements ledger.Store.
func (s *Store) Get(ctx context.Context, c ledger.Collection, id string) (json.RawMessage, error) {
	coll, ctx, cancel, err := s.collection(ctx, c)
	if err != nil {
		return nil, err
	}
	defer cancel()
	raw, err := coll.FindOne(ctx, bson.D{{Key: "_id", Value: id}}).Raw()
	switch {
	case errors.Is(err, mongo.ErrNoDocuments):
		return nil, ledger.ErrNotFound
	case err != nil:
		return nil, fmt.Errorf("get from %s: %w", c, err)
	}
	return documentToJSON(raw)
}

// Find implements ledger.Store. Documents that sort alike come in the order of
// their IDs.
func (s *Store) Find(ctx context.Context, c ledger.Collection, q ledger.Query) ([]json.RawMessage, error) {
	coll, ctx, cancel, err := s.collection(ctx, c)
	if err != nil {
		return nil, err
	}
	defer cancel()
	filter, err := filterOf(q.When)
	if err != nil {
		return nil, fmt.Errorf("find in %s: %w", c, err)
	}
	opts, err := findOptions(q)
	if err != nil {
		return nil, fmt.Errorf("find in %s: %w", c, err)
	}
	cursor, err := coll.Find(ctx, filter, opts)
	if err != nil {
		return nil, fmt.Errorf("find in %s: %w", c, err)
	}
	var raws []bson.Raw
	if err := cursor.All(ctx, &raws); err != nil { // All also closes it
		return nil, fmt.Errorf("find in %s: %w", c, err)
	}
	docs := make([]json.RawMessage, len(raws))
	for i, raw := range raws {
		if docs[i], err = documentToJSON(raw); err != nil {
			return nil, fmt.Errorf("find in %s: %w", c, err)
		}
	}
	return docs, nil
}

// Delete implements ledger.Store.
func (s *Store) Delete(ctx context.Context, c ledger.Collection, id string) error {
	coll, ctx, cancel, err := s.collection(ctx, c)
	if err != nil {
		return err
	}
	defer cancel()
	if _, err := coll.DeleteOne(ctx, bson.D{{Key: "_id", Value: id}}); err != nil {
		return fmt.Errorf("delete from %s: %w", c, err)
	}
	return nil
}
