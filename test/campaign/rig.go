package campaign

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/job"
	"gpuqd/test/cluster"
)

// The cluster of a campaign: that of make up, but for what a campaign is about.
const (
	workers         = 3
	devicesPer      = 2
	slotsPer        = 3 // attempts without a device, probes among them
	leaseTTL        = 15 * time.Second
	consumerTimeout = time.Minute
)

// rig is the cluster under test, with what is broken of it.
type rig struct {
	*cluster.Cluster
	log     *slog.Logger
	witness string               // directory of the payloads' files
	disks   map[string]smallDisk // by worker; empty where nothing can be mounted
	self    string               // path of gpuq-campaign

	store, brokerVersion string // for the report

	supervision *os.File // the supervisor's log

	mu   sync.Mutex
	busy map[string]bool // units that a fault has to itself now
	free chan struct{}   // closed and replaced when one is free again
}

const supervisionFile = "supervisor.json"

// newRig prepares the cluster below a directory.
func newRig(ctx context.Context, o Options, dir string, log *slog.Logger) (*rig, error) {
	r := &rig{
		log: log, witness: filepath.Join(dir, "witness"), self: o.Program,
		disks: map[string]smallDisk{}, busy: map[string]bool{}, free: make(chan struct{}),
	}
	if err := os.Mkdir(r.witness, 0o700); err != nil {
		return nil, err
	}
	var err error
	if r.supervision, err = os.Create(filepath.Join(dir, supervisionFile)); err != nil {
		return nil, err
	}
	r.Cluster, err = cluster.New(ctx, cluster.Options{
		Dir: filepath.Join(dir, "c"), BinDir: o.BinDir, Ledger: o.Ledger,
		Workers: workers, DevicesPerWorker: devicesPer, LeaseTTL: leaseTTL, ConsumerTimeout: consumerTimeout,
		Log: slog.New(slog.NewJSONHandler(r.supervision, nil)),
		Configure: func(worker string, cfg *config.Config) {
			cfg.Host.Pools = append(cfg.Host.Pools, worker) // for probes
			cfg.Host.SlotsWithoutGPU = slotsPer
			cfg.Device.BreakerFast = 0 // commands fail at random, which is no fault of a device
			cfg.Log.Level, cfg.Log.Format = "debug", config.LogJSON
		},
	})
	if err != nil {
		return nil, err
	}
	if !Isolated() {
		return r, nil
	}
	for _, worker := range r.Workers() {
		if r.disks[worker], err = mountDisk(r.StateDir(worker)); err != nil {
			return nil, errors.Join(err, r.unmount())
		}
	}
	return r, nil
}

// end ends every process, takes the disks away and deletes the files of the
// cluster.
func (r *rig) end() error {
	err := r.Stop()
	return errors.Join(err, r.supervision.Close(), r.unmount(), cluster.Remove(r.Dir()))
}

func (r *rig) unmount() error {
	var errs []error
	for _, disk := range r.disks {
		if disk.dir != "" {
			errs = append(errs, disk.unmount())
		}
	}
	return errors.Join(errs...)
}

// describe fills in what the report says of the servers.
func (r *rig) describe(ctx context.Context) error {
	r.store = "SQLite"
	if r.ledgerUnit() != "" {
		r.store = "mongowire (FerretDB behind a gate)"
		if _, err := exec.LookPath("mongod"); err == nil {
			r.store = "mongod, a replica set of one"
		}
	}
	version, err := r.Rabbit().Eval(ctx, r.Rabbit().Nodes[0], "rabbit_misc:version().")
	r.brokerVersion = "RabbitMQ " + strings.Trim(version, `"`)
	return err
}

// units lists what can be killed and started, workers last.
func (r *rig) units() []string {
	var names []string
	for _, s := range r.Status() {
		names = append(names, s.Name)
	}
	return names
}

// reserve gives a fault one of the named units to itself: the first from pick on
// that no other fault has. It waits until there is one.
func (r *rig) reserve(ctx context.Context, pick int, names []string) (string, error) {
	for {
		r.mu.Lock()
		for i := range names {
			name := names[(pick+i)%len(names)]
			if !r.busy[name] {
				r.busy[name] = true
				r.mu.Unlock()
				return name, nil
			}
		}
		free := r.free
		r.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
			return "", fmt.Errorf("wait for one of %s: %w", strings.Join(names, ", "), context.Cause(ctx))
		}
	}
}

func (r *rig) release(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, name)
	close(r.free)
	r.free = make(chan struct{})
}

// heal makes everything run again, whatever was done to it. A unit that was just
// killed may seem to run, so it looks again until all is well.
func (r *rig) heal(ctx context.Context) error {
	for {
		err := r.healOnce(ctx)
		if err == nil {
			return nil
		}
		if stopped := pause(ctx, time.Second); stopped != nil {
			return fmt.Errorf("heal the cluster: %w", errors.Join(stopped, err))
		}
	}
}

func (r *rig) healOnce(ctx context.Context) error {
	for _, unit := range r.units() {
		_ = r.Signal(unit, syscall.SIGCONT) // it may be down
		if err := r.StartUnit(ctx, unit); err != nil {
			return err
		}
	}
	for i, node := range r.Rabbit().Nodes {
		if _, err := r.Rabbit().Eval(ctx, node, diskLimit(false)); err != nil {
			return fmt.Errorf("end the disk alarm of %s: %w", r.RabbitNodes()[i], err)
		}
	}
	return nil
}

// isWorker reports whether a unit is a daemon.
func (r *rig) isWorker(unit string) bool { return slices.Contains(r.Workers(), unit) }

// ledgerUnit is the ledger's server, "" where it needs none.
func (r *rig) ledgerUnit() string {
	if r.LedgerKind() == config.LedgerMongoDB {
		return "mongodb"
	}
	return ""
}

// clientConfig is that of gpuqctl, with shorter patience: a campaign counts each
// outcome that is not known.
func (r *rig) clientConfig() (config.Client, error) {
	cfg, err := config.LoadClient(r.ClientConfigPath())
	cfg.Timeout = job.Duration(5 * time.Second)
	return cfg, err
}
