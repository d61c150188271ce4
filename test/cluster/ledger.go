package cluster

import (
	"context"
	"os/exec"

	"gpuqd/daemon/config"
	"gpuqd/test/services"
)

// ledgerServer is what the ledger runs on.
type ledgerServer struct {
	kind    string
	detail  string            // for people
	path    string            // SQLite
	uri     string            // MongoDB
	process *services.Process // nil where no server is needed
}

// prepareLedger makes the ledger's server ready to be started, if it needs one.
func (c *Cluster) prepareLedger(ctx context.Context) (ledgerServer, error) {
	if c.settings.Ledger == config.LedgerSQLite {
		path := c.files.sqlite()
		return ledgerServer{kind: config.LedgerSQLite, path: path, detail: "SQLite, " + path}, nil
	}
	if _, err := exec.LookPath("mongod"); err != nil {
		c.progress.say(mongodbName, "no mongod on the PATH: mongowire stands in, built if need be (minutes, once)")
	}
	server, err := services.NewMongo(ctx, c.files.path(mongodbName), c.settings.Ports[mongodbName])
	if err != nil {
		return ledgerServer{}, err
	}
	return ledgerServer{
		kind: config.LedgerMongoDB, uri: server.URI(), process: server.Process, detail: "MongoDB, " + server.Kind,
	}, nil
}

// configure points a worker's settings at the ledger.
func (s ledgerServer) configure(cfg *config.Ledger) {
	cfg.Kind = s.kind
	if s.kind == config.LedgerSQLite {
		cfg.Path = s.path
		return
	}
	cfg.URI = s.uri
	cfg.SingleNode = true
}
