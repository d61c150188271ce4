// Mongowire is a MongoDB-wire server for tests where no genuine mongod is to be
// had: FerretDB, embedded over SQLite files, behind a gate that lets one request
// at a time through. FerretDB's own updates are not atomic; behind the gate they
// are. It is for correctness, never for benchmarks, and never for production.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/FerretDB/FerretDB/ferretdb"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:27017", "loopback `address` to serve on")
	anyAddress := flag.Bool("any-address", false, "serve on an address that other hosts reach: whoever does may read and write all")
	dir := flag.String("dir", "", "`directory` of the databases; made if absent")
	ungated := flag.Bool("ungated", false, "let requests race, to show that gpuqd refuses such a server")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	slog.SetDefault(log)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, *listen, *anyAddress, *dir, *ungated, log); err != nil {
		fmt.Fprintln(os.Stderr, "mongowire:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. The order at the end matters: the gate first waits
// for the request that is under way, so that its answer and its effect agree.
func run(ctx context.Context, listen string, anyAddress bool, dir string, ungated bool, log *slog.Logger) error {
	serve := listenLoopback
	if anyAddress {
		serve = listenAnywhere
	}
	gateListener, err := serve(listen)
	if err != nil {
		return err
	}
	defer gateListener.Close()
	db, err := open(dir, log)
	if err != nil {
		return err
	}
	dbCtx, stopDB := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- db.Run(dbCtx) }()
	address, err := url.Parse(db.MongoDBURI())
	if err != nil {
		stopDB()
		<-ended
		return fmt.Errorf("read FerretDB's address: %w", err)
	}
	g := newGate(gateListener, address.Host, ungated)
	served := g.serve(ctx)
	stopDB()
	if err := <-ended; err != nil {
		return fmt.Errorf("run FerretDB: %w", err)
	}
	return served
}

// listenLoopback refuses other addresses: there is no authentication behind it.
func listenLoopback(address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("--listen %q is no loopback address: give 127.0.0.1:PORT, or --any-address", address)
	}
	return listenAnywhere(address)
}

func listenAnywhere(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// open makes FerretDB over SQLite files in dir. It listens on a loopback port of
// its own, which only the gate is told. Telemetry has no reporter when embedded.
func open(dir string, log *slog.Logger) (*ferretdb.FerretDB, error) {
	if dir == "" {
		return nil, fmt.Errorf("--dir is empty: say where the databases live")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory: %w", err)
	}
	files := url.URL{Scheme: "file", Path: dir + "/"}
	db, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{TCP: "127.0.0.1:0"},
		Logger:    log,
		Handler:   "sqlite",
		SQLiteURL: files.String(),
	})
	if err != nil {
		return nil, fmt.Errorf("open FerretDB: %w", err)
	}
	return db, nil
}
