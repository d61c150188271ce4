package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/job"
)

// LedgerAuto takes MongoDB where a mongod is on the PATH, else SQLite. The other
// choices are config.LedgerSQLite and config.LedgerMongoDB.
const LedgerAuto = "auto"

// Options say what a cluster consists of. The zero value of each field but Dir
// and BinDir is the choice of `make up`.
type Options struct {
	Dir    string // all files; made if missing
	BinDir string // gpuqd, gpuqctl, gpuqd-shim, gpuqd-device

	Workers          int    // daemons; 3
	DevicesPerWorker int    // simulated ones, where there are no real ones; 2
	RabbitNodes      int    // 3
	Ledger           string // LedgerAuto, or a kind of ledger; "" is LedgerAuto
	// RealDevices shares the GPUs of this machine out among the workers. A
	// worker that gets none simulates its devices.
	RealDevices bool

	LeaseTTL   time.Duration // 15 s
	LeaseRenew time.Duration // 2 s
	// ConsumerTimeout is how long the broker lets a delivery stay open; 30 days.
	ConsumerTimeout time.Duration
	// Simulate lets gpuqctl simulate rehearse faults at the workers.
	Simulate bool
	// Configure has the last word on a worker's settings; nil changes nothing.
	Configure func(worker string, cfg *config.Config)

	// Monitoring adds what watches the cluster. With nil a new cluster has none, and
	// one that has it keeps it.
	Monitoring *Monitoring

	// Orphan lets the processes outlive this one. Tests leave it false.
	Orphan bool
	// Progress is told each step, one line each; nil tells nobody.
	Progress io.Writer
	Log      *slog.Logger // of the supervisor; nil logs nothing
}

// Monitoring says how a cluster is watched. Its zero value is the choice of `make
// up MONITORING=1`.
type Monitoring struct {
	// RulesDir has Prometheus's rules, *.yml; "" is those of a site.
	RulesDir string
	// Interval is that of scrapes and of the evaluation of rules; 5 s.
	Interval time.Duration
}

// workersMax and devicesMax bound what a single machine is asked to carry.
const (
	workersMax = 64
	devicesMax = 64
	nodesMax   = 7
)

// complete fills in defaults and refuses what cannot work.
func (o Options) complete() (Options, error) {
	var errs []error
	for _, path := range []*string{&o.Dir, &o.BinDir} {
		absolute, err := filepath.Abs(*path)
		if err != nil || *path == "" {
			errs = append(errs, fmt.Errorf("the cluster's directory and that of its programs must be named: %w", err))
		}
		*path = absolute
	}
	orDefault(&o.Workers, 3)
	orDefault(&o.DevicesPerWorker, 2)
	orDefault(&o.RabbitNodes, 3)
	orDefault(&o.LeaseTTL, 15*time.Second)
	orDefault(&o.LeaseRenew, 2*time.Second)
	orDefault(&o.Ledger, LedgerAuto)
	orDefault(&o.Progress, io.Discard)
	orDefault(&o.Log, slog.New(slog.DiscardHandler))
	for _, bound := range []struct {
		what      string
		is, atMax int
	}{
		{"workers", o.Workers, workersMax},
		{"devices per worker", o.DevicesPerWorker, devicesMax},
		{"RabbitMQ nodes", o.RabbitNodes, nodesMax},
	} {
		if bound.is < 1 || bound.is > bound.atMax {
			errs = append(errs, fmt.Errorf("%d %s: want 1 to %d", bound.is, bound.what, bound.atMax))
		}
	}
	switch o.Ledger {
	case LedgerAuto, config.LedgerSQLite, config.LedgerMongoDB:
	default:
		errs = append(errs, fmt.Errorf("ledger %q: want %s, %s or %s", o.Ledger, config.LedgerSQLite, config.LedgerMongoDB, LedgerAuto))
	}
	return o, errors.Join(errs...)
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// ledgerKind resolves LedgerAuto.
func (o Options) ledgerKind() string {
	if o.Ledger != LedgerAuto {
		return o.Ledger
	}
	if _, err := exec.LookPath("mongod"); err == nil {
		return config.LedgerMongoDB
	}
	return config.LedgerSQLite
}

// program returns the path of one of our programs, which must be there.
func (o Options) program(name string) (string, error) {
	path := filepath.Join(o.BinDir, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not built: run make build (%w)", name, err)
	}
	return path, nil
}

func duration(d time.Duration) job.Duration { return job.Duration(d) }
