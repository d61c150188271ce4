package services

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Mongo is a server that speaks MongoDB's wire protocol: a genuine mongod, as a
// replica set of one member, where the PATH has one; else the test tool mongowire.
// To gpuqd both are single nodes.
type Mongo struct {
	// Kind says plainly what runs, for the output of tests and of make up.
	Kind string
	// Process is the server; whoever supervises it may stop and start it again
	// over the same data.
	Process *Process

	port    int
	genuine bool
}

// mongoReplicaSet names the replica set of a genuine mongod.
const mongoReplicaSet = "gpuq"

// Error codes of mongod. Source: src/mongo/base/error_codes.yml of MongoDB.
const (
	mongoNotYetInitialized  = 94
	mongoAlreadyInitialized = 23
)

// NewMongo makes a server with its data and its log below dir, on the given
// port of 127.0.0.1. It builds mongowire if that is needed and is not in the
// cache, which takes a minute or more; it starts nothing.
func NewMongo(ctx context.Context, dir string, port int) (*Mongo, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("make a MongoDB server: %w", err)
	}
	data := filepath.Join(dir, "mongodb")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("make a MongoDB server: %w", err)
	}
	m := &Mongo{port: port, Process: &Process{Name: "mongodb", LogPath: filepath.Join(dir, "mongodb.log")}}
	if path, err := exec.LookPath("mongod"); err == nil {
		m.genuine = true
		m.Kind = "mongod (a replica set of one)"
		m.Process.Path = path
		m.Process.Args = []string{
			"--bind_ip", "127.0.0.1", "--port", strconv.Itoa(port), "--dbpath", data,
			"--replSet", mongoReplicaSet, "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25",
		}
		m.Process.Ready = m.readyGenuine
		return m, nil
	}
	path, err := BuildMongowire(ctx)
	if err != nil {
		return nil, fmt.Errorf("build mongowire, since the PATH has no mongod: %w", err)
	}
	m.Kind = "mongowire (FerretDB behind a gate; no mongod on the PATH)"
	m.Process.Path = path
	m.Process.Args = []string{"--listen", "127.0.0.1:" + strconv.Itoa(port), "--dir", data}
	m.Process.Ready = m.ready
	return m, nil
}

// URI is the connection string for clients.
func (m *Mongo) URI() string {
	if m.genuine {
		return fmt.Sprintf("mongodb://127.0.0.1:%d/?replicaSet=%s", m.port, mongoReplicaSet)
	}
	return fmt.Sprintf("mongodb://127.0.0.1:%d/", m.port)
}

// Genuine reports whether the server is a real mongod.
func (m *Mongo) Genuine() bool { return m.genuine }

// Start starts the server and waits until it takes writes.
func (m *Mongo) Start(ctx context.Context) error { return m.Process.Start(ctx) }

// Stop ends the server; its data stays.
func (m *Mongo) Stop() { m.Process.Stop(mongoStopGrace) }

const mongoStopGrace = 10 * time.Second

// ready asks the server for an answer of any kind.
func (m *Mongo) ready(ctx context.Context) error {
	_, err := m.admin(ctx, bson.D{{Key: "hello", Value: 1}})
	return err
}

// readyGenuine waits until the only member is the primary. The first start has
// to make the replica set.
func (m *Mongo) readyGenuine(ctx context.Context) error {
	var e mongo.ServerError
	_, err := m.admin(ctx, bson.D{{Key: "replSetGetStatus", Value: 1}})
	if errors.As(err, &e) && e.HasErrorCode(mongoNotYetInitialized) {
		_, err = m.admin(ctx, bson.D{{Key: "replSetInitiate", Value: bson.D{
			{Key: "_id", Value: mongoReplicaSet},
			{Key: "members", Value: bson.A{bson.D{{Key: "_id", Value: 0}, {Key: "host", Value: fmt.Sprintf("127.0.0.1:%d", m.port)}}}},
		}}})
		if errors.As(err, &e) && e.HasErrorCode(mongoAlreadyInitialized) {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	hello, err := m.admin(ctx, bson.D{{Key: "hello", Value: 1}})
	if err != nil {
		return err
	}
	if primary, _ := hello.Lookup("isWritablePrimary").BooleanOK(); !primary {
		return errors.New("it is not the primary yet")
	}
	return nil
}

// admin runs one command on exactly this server, whatever state it is in.
func (m *Mongo) admin(ctx context.Context, command bson.D) (bson.Raw, error) {
	ctx, cancel := context.WithTimeout(ctx, mongoAdminTimeout)
	defer cancel()
	client, err := mongo.Connect(options.Client().
		ApplyURI(fmt.Sprintf("mongodb://127.0.0.1:%d/", m.port)).
		SetDirect(true).
		SetServerSelectionTimeout(mongoAdminTimeout))
	if err != nil {
		return nil, err
	}
	defer client.Disconnect(context.WithoutCancel(ctx)) //nolint:errcheck // its answer was read or is not wanted
	return client.Database("admin").RunCommand(ctx, command).Raw()
}

// mongoAdminTimeout bounds one question; Process.Start asks again.
const mongoAdminTimeout = 2 * time.Second
