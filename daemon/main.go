// Gpuqd runs GPU jobs on this host: it takes them from RabbitMQ, runs them under
// shims that outlive it, and keeps every result in the ledger.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/broker"
	"gpuqd/daemon/config"
	"gpuqd/daemon/dedup"
	"gpuqd/daemon/device"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/ledger/mongodb"
	"gpuqd/daemon/ledger/sqlite"
	"gpuqd/daemon/owner"
	"gpuqd/daemon/runner"
	"gpuqd/daemon/version"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func main() {
	path := flag.String("config", "/etc/gpuqd/gpuqd.toml", "`file` with the settings")
	show := flag.Bool("version", false, "print the version and exit")
	restored := flag.Bool("ledger-restored", false, "make a ledger that was put back from a backup fit for service, and exit; every gpuqd has to be stopped")
	flag.Parse()
	if *show {
		fmt.Println(version.Get())
		return
	}
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "gpuqd: unexpected argument %q; see gpuqd --help\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *restored {
		if err := ledgerRestored(ctx, *path, os.Stdout); err != nil {
			fmt.Fprintf(os.Stderr, "gpuqd: %v\n", err)
			os.Exit(exitCode(err))
		}
		return
	}
	reloads := make(chan os.Signal, 1) // one that waits covers all that come meanwhile
	signal.Notify(reloads, syscall.SIGHUP)
	if err := run(ctx, *path, reloads); err != nil {
		fmt.Fprintf(os.Stderr, "gpuqd: %v\n", err)
		os.Exit(exitCode(err))
	}
}

// exitSettings is the exit code for settings that cannot be used: starting again
// does not mend them, and gpuqd.service does not try.
const exitSettings = 78 // EX_CONFIG of sysexits.h

// errSettings marks an error of the settings.
type errSettings struct{ error }

func (e errSettings) Unwrap() error { return e.error }

func exitCode(err error) int {
	if errors.As(err, &errSettings{}) {
		return exitSettings
	}
	return 1
}

// run builds the daemon from its settings and runs it until ctx ends. The
// settings are read again at every signal of reloads.
func run(ctx context.Context, path string, reloads <-chan os.Signal) error {
	cfg, err := config.Load(path)
	if err != nil {
		return errSettings{err}
	}
	secrets, err := cfg.Secrets()
	if err != nil {
		return errSettings{err}
	}
	manager, err := underSystemd()
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	log, entries := newLogger(cfg.Log, level, os.Stderr)
	if entries != nil {
		defer entries.Close() // last: it tells of what journald has missed
	}
	build := version.Get()
	m := newMeters(build)
	m.entries = entries
	journal, err := runner.OpenJournal(cfg.Host.StateDir)
	if err != nil {
		return err
	}
	defer journal.Close()
	journal.ObserveSyncs(m.observeSync)
	identity, err := agent.LoadIdentity(cfg.Host.StateDir)
	if err != nil {
		return err
	}
	running := markIn(cfg.Host.StateDir)
	last, err := running.begin(identity.BootID)
	if err != nil { // a full disk keeps nobody from looking after what runs
		log.Warn("the next daemon will not know how this one ended", "err", err)
	}
	m.observePredecessor(last)
	if last == endDied {
		log.Warn("the last gpuqd of this host did not end in order: it was killed, crashed, or gave up; its last lines say more")
	}
	client, err := newBroker(cfg, secrets.Broker, log, m)
	if err != nil {
		return err
	}
	written := cfg // "auto" too, which the starter settles: a reload compares with it
	starter, accounts, err := newStarter(ctx, &cfg)
	if err != nil {
		return err
	}
	defer starter.Close()
	done := dedup.New(dedup.Config{
		Addrs: cfg.Redis.Addresses, MasterName: cfg.Redis.MasterName,
		Username: cfg.Redis.User, Password: secrets.Redis,
		TTL: cfg.Redis.TTL.Std(), Timeout: cfg.Redis.Timeout.Std(), Logger: log, Observe: m.cache.observe,
	})
	defer done.Close()
	devices := newDevices(cfg, identity, log)
	m.registry.MustRegister(standing{client.Connections, done.Circuits})
	end := newHostEnd(log)
	a := agent.New(agent.Options{
		Config: cfg, Identity: identity, Version: build.Version, Commit: build.Commit,
		Broker: client, Done: done, Devices: devices,
		Runner: agent.Disk{Journal: journal, Starter: starter}, Accounts: accounts,
		OpenLedger: func(ctx context.Context) (*ledger.Ledger, error) {
			return openLedger(ctx, cfg.Ledger, secrets.Ledger, m)
		},
		Logger: log, Registerer: m.registry, Notify: manager.notify, Watchdog: manager.watchdog, Shutdown: end.words,
	})
	again := &reloader{
		load: func() (config.Config, error) { return config.Load(path) }, cfg: written,
		level: level, daemon: a, service: manager, applied: m.loaded.SetToCurrentTime, log: log,
	}
	err = serve(end.before(ctx), a.Run, client.Run, devices.Run, end.logind, metricsServer(cfg.Metrics.Listen, m.registry),
		func(ctx context.Context) error { return again.run(ctx, reloads) })
	if err != nil {
		return err
	}
	if err := running.ended(); err != nil {
		log.Warn("the next daemon will take this one for dead", "err", err)
	}
	return nil
}

// serve runs the agent on the parts that it needs; these end after it.
func serve(ctx context.Context, agent func(context.Context) error, parts ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	below, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var group sync.WaitGroup
	for _, part := range parts {
		group.Go(func() {
			if err := part(below); err != nil && below.Err() == nil {
				cancel(err)
			}
		})
	}
	err := agent(ctx)
	end()
	group.Wait()
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

func newBroker(cfg config.Config, password string, log *slog.Logger, m *meters) (*broker.Client, error) {
	tls, err := config.TLS(cfg.Broker.CAFile)
	if err != nil {
		return nil, err
	}
	return broker.New(broker.Config{
		URLs: cfg.Broker.URLs, User: cfg.Broker.User, Password: password, Host: cfg.Host.Name, TLS: tls,
		TakeTimeout: cfg.Broker.TakeTimeout.Std(), ConfirmTimeout: cfg.Broker.ConfirmTimeout.Std(),
		Heartbeat: cfg.Broker.Heartbeat.Std(), Logger: log, Observe: m.broker.observe,
	}), nil
}

func newDevices(cfg config.Config, identity agent.Identity, log *slog.Logger) *device.Manager {
	o := device.Options{
		Logger: log, Processes: owner.Processes{}, BreakerFast: cfg.Device.BreakerFast.Std(), Allow: cfg.Device.AllowProcesses,
		StateFile: filepath.Join(cfg.Host.StateDir, "devices.json"), BootID: identity.BootID,
		Closed: cfg.Runner.Starter == config.StarterSystemd, // settled by newStarter
	}
	if cfg.Device.Kind == config.DeviceNVML {
		o.Silence = staleAfter(cfg.Device)
	}
	return device.NewWith(cfg.Host.Name, newSource(cfg, log), o)
}

// staleAfter is the age at which an inventory is no ground to grant devices. Between two
// of them heartbeats alone tell that the helper goes on, and it answers for their silence.
func staleAfter(d config.Device) time.Duration { return d.Silence.Std() + device.DefaultInterval }

func newSource(cfg config.Config, log *slog.Logger) device.Source {
	if cfg.Device.Kind == config.DeviceSim {
		return newSimulated(cfg.Host.Name, cfg.Device)
	}
	return &device.Helper{
		Path: cfg.Device.Helper, Library: cfg.Device.Library, Silence: cfg.Device.Silence.Std(), Include: cfg.Device.Include, Logger: log,
	}
}

func newSimulated(host string, cfg config.Device) *device.Simulated {
	s := &device.Simulated{
		Host: host, Count: cfg.SimulatedCount, Model: cfg.SimulatedModel, MemoryBytes: cfg.SimulatedMemoryBytes,
		Nodes: cfg.SimulatedNodes, ComputeCapability: cfg.SimulatedComputeCapability, MIG: cfg.SimulatedMIG,
		Silence: cfg.Silence.Std(),
	}
	for _, f := range cfg.SimulatedFaults {
		s.Script = append(s.Script, device.ScriptedFault{After: f.After.Std(), Fault: f.Fault})
	}
	return s
}

func openLedger(ctx context.Context, l config.Ledger, password string, m *meters) (*ledger.Ledger, error) {
	store, err := openStore(ctx, l, password)
	if err != nil {
		return nil, err
	}
	opened, err := ledger.Open(ctx, ledger.Observed(store, m.ledger.observe))
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return opened, nil
}

func openStore(ctx context.Context, l config.Ledger, password string) (ledger.Store, error) {
	if l.Kind == config.LedgerSQLite {
		return sqlite.Open(ctx, sqlite.Options{Path: l.Path, BusyTimeout: l.Timeout.Std()})
	}
	tls, err := config.TLS(l.CAFile)
	if err != nil {
		return nil, err
	}
	return mongodb.Open(ctx, mongodb.Options{
		URI: l.URI, Database: l.Database, SingleNode: l.SingleNode,
		Username: l.User, Password: password, TLS: tls, Timeout: l.Timeout.Std(),
	})
}

// metricsServer serves /metrics until its context ends; without an address it
// serves nothing.
func metricsServer(listen string, registry *prometheus.Registry) func(context.Context) error {
	return func(ctx context.Context) error {
		if listen == "" {
			return nil
		}
		listener, err := net.Listen("tcp", listen)
		if err != nil {
			return fmt.Errorf("metrics.listen: %w", err)
		}
		mux := http.NewServeMux()
		mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
		server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
		context.AfterFunc(ctx, func() { _ = server.Close() })
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve metrics on %s: %w", listen, err)
		}
		return nil
	}
}
