package mongodb

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Error codes of the server. Source: src/mongo/base/error_codes.yml of MongoDB.
const (
	codeUnauthorized              = 13
	codeAuthenticationFailed      = 18
	codeNamespaceExists           = 48
	codeUnsatisfiableWriteConcern = 100
)

// hello is what a server says of itself.
type hello struct {
	SetName  string   `bson:"setName"`
	Hosts    []string `bson:"hosts"`    // members with data that can be elected
	Passives []string `bson:"passives"` // members with data that cannot
	Message  string   `bson:"msg"`      // "isdbgrid" for mongos
}

// lone reports whether the data is on one server only.
func (h hello) lone() bool {
	return h.Message != "isdbgrid" && (h.SetName == "" || len(h.Hosts)+len(h.Passives) < 2)
}

// Prepare implements ledger.Store. A server without a replica set has no
// linearizable reads; it answers each from the one copy of the data, which comes
// to the same.
func (s *Store) Prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTimeouts*s.timeout)
	defer cancel()
	var h hello
	if err := s.client.Database("admin").RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&h); err != nil {
		return fmt.Errorf("ask the server what it is: %w", hint(err))
	}
	if h.lone() && !s.singleNode {
		return fmt.Errorf("%w: it is a single server, and the ledger would be lost with its disk: "+
			"make it a replica set of three members, or accept that with single_node = true", ledger.ErrUnfit)
	}
	s.local.Store(h.SetName == "" && h.Message != "isdbgrid")
	for _, c := range ledger.Collections {
		if err := s.prepareCollection(ctx, c); err != nil {
			return fmt.Errorf("create the collection %s: %w", c, hint(err))
		}
	}
	return s.checkConcerns(ctx)
}

// prepareTimeouts is how many calls' time Prepare may take: building an index
// on a large collection takes longer than any other call.
const prepareTimeouts = 6

// prepareCollection creates a collection and its indexes; what is there already
// stays as it is.
func (s *Store) prepareCollection(ctx context.Context, c ledger.Collection) error {
	err := s.database.CreateCollection(ctx, string(c))
	if err != nil && !hasCode(err, codeNamespaceExists) {
		return err
	}
	indexes := s.database.Collection(string(c)).Indexes()
	present, err := indexes.ListSpecifications(ctx)
	if err != nil {
		return fmt.Errorf("list its indexes: %w", err)
	}
	for _, fields := range ledger.Indexes[c] {
		var keys bson.D
		for _, field := range fields {
			keys = append(keys, bson.E{Key: field, Value: int32(1)})
		}
		name := "by_" + strings.ReplaceAll(strings.Join(fields, "_"), ".", "_")
		if slices.ContainsFunc(present, func(i mongo.IndexSpecification) bool { return i.Name == name }) {
			continue // FerretDB 1.24 drops the connection when it is asked again
		}
		if _, err := indexes.CreateOne(ctx, mongo.IndexModel{Keys: keys, Options: options.Index().SetName(name)}); err != nil {
			return fmt.Errorf("index %s: %w", name, err)
		}
	}
	return nil
}

// checkConcerns proves on a scratch document that a majority confirms writes and
// that a linearizable read finds them.
func (s *Store) checkConcerns(ctx context.Context) error {
	id := uuid.NewString()
	err := s.Insert(ctx, ledger.Scratch, id, []byte(`{"id":"`+id+`"}`))
	if hasCode(err, codeUnsatisfiableWriteConcern) {
		return fmt.Errorf("%w: no majority of its members can confirm a write: add members with data (arbiters do not count): %w", ledger.ErrUnfit, err)
	}
	if err != nil {
		return fmt.Errorf("try a write that a majority confirms: %w", hint(err))
	}
	if _, err := s.Get(ctx, ledger.Scratch, id); err != nil {
		return fmt.Errorf("try a linearizable read: %w", hint(err))
	}
	if err := s.Delete(ctx, ledger.Scratch, id); err != nil {
		return fmt.Errorf("remove the scratch document: %w", err)
	}
	return nil
}

func hasCode(err error, code int) bool {
	var e mongo.ServerError
	return errors.As(err, &e) && e.HasErrorCode(code)
}

// hint adds what to do about errors that only an operator can end.
func hint(err error) error {
	switch {
	case hasCode(err, codeAuthenticationFailed):
		return fmt.Errorf("check the user name, its password and auth_source: %w", err)
	case hasCode(err, codeUnauthorized):
		return fmt.Errorf("give the user the role readWrite on the ledger's database: %w", err)
	}
	return err
}

// redact takes the passwords out of the text of an error about the options.
func redact(err error, o Options) error {
	text := err.Error()
	secrets := []string{o.Password}
	if at := strings.LastIndex(o.URI, "@"); at >= 0 {
		_, user, _ := strings.Cut(o.URI[:at], "://")
		_, password, _ := strings.Cut(user, ":")
		secrets = append(secrets, user, password)
		if plain, err := url.PathUnescape(password); err == nil {
			secrets = append(secrets, plain)
		}
	}
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "…")
		}
	}
	return errors.New(text)
}
