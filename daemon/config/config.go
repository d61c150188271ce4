// Package config reads gpuqd.toml, and gpuqctl's gpuqctl.toml, into validated
// settings. The shipped files under etc document every key with its bounds; a
// test holds them to the structs and defaults here.
//
// A new setting goes into the struct, Default, the checks and the shipped file;
// the tests fail until the last has it at its default, with its bounds.
package config

import (
	"time"

	"gpuqd/daemon/job"
)

// The values of the keys that choose among kinds.
const (
	LedgerSQLite   = "sqlite"
	LedgerMongoDB  = "mongodb"
	OnLossFreeze   = "freeze"
	OnLossStop     = "stop"
	OnLossContinue = "continue"
	DeviceNVML     = "nvml"
	DeviceSim      = "simulated"
	StarterAuto    = "auto"
	StarterSystemd = "systemd"
	StarterProcess = "process"
	NUMABind       = "bind"
	NUMAPrefer     = "prefer"
	NUMAOff        = "off"
	LogAuto        = "auto"
	LogJournal     = "journal"
	LogText        = "text"
	LogJSON        = "json"
)

// Config holds the settings of one daemon. Durations are written as text, such
// as "5m". All of it is read at start; what IsLive names, at a reload too.
type Config struct {
	Host    Host    `toml:"host"`
	Broker  Broker  `toml:"broker"`
	Ledger  Ledger  `toml:"ledger"`
	Redis   Redis   `toml:"redis"`
	Lease   Lease   `toml:"lease"`
	Take    Take    `toml:"take"`
	Device  Device  `toml:"device"`
	Runner  Runner  `toml:"runner"`
	Control Control `toml:"control"`
	Log     Log     `toml:"log"`
	Metrics Metrics `toml:"metrics"`

	Simulate Simulate `toml:"simulate"`
}

// Host says who this host is and what it serves.
type Host struct {
	Name            string   `toml:"name"`              // never "" after Load; part of queue and file names
	Pools           []string `toml:"pools"`             // whose queues it serves; none on a login node
	StateDir        string   `toml:"state_dir"`         // journal of attempts, logs, sessions
	SlotsWithoutGPU int      `toml:"slots_without_gpu"` // attempts of jobs with gpus = 0 at a time
}

// Broker is the RabbitMQ cluster.
type Broker struct {
	URLs           []string     `toml:"urls"` // amqp://host:port/vhost of every node, without credentials
	User           string       `toml:"user"`
	PasswordFile   string       `toml:"password_file"`   // for Secret
	CAFile         string       `toml:"ca_file"`         // for amqps; "" trusts the system's authorities
	TakeTimeout    job.Duration `toml:"take_timeout"`    // of one get: on a frozen leader it has no end of its own
	ConfirmTimeout job.Duration `toml:"confirm_timeout"` // of one publish; after it the outcome is unknown
	Rabbitmqctl    []string     `toml:"rabbitmqctl"`     // how gpuqctl doctor runs it, without a subcommand; empty: not at all
	Heartbeat      job.Duration `toml:"heartbeat"`       // whole seconds; a node silent for three of them is given up
}

// Ledger is the authority: MongoDB, or SQLite where all daemons share one
// machine.
type Ledger struct {
	Kind         string       `toml:"kind"`          // LedgerSQLite or LedgerMongoDB
	Path         string       `toml:"path"`          // sqlite; one file for all daemons of the machine
	URI          string       `toml:"uri"`           // mongodb, without credentials
	Database     string       `toml:"database"`      // mongodb
	User         string       `toml:"user"`          // mongodb; "" does not authenticate
	PasswordFile string       `toml:"password_file"` // mongodb; for Secret
	CAFile       string       `toml:"ca_file"`       // mongodb; set, the connection is TLS
	SingleNode   bool         `toml:"single_node"`   // accept a lone MongoDB server
	Timeout      job.Duration `toml:"timeout"`       // of one operation
}

// Redis is the done-cache. Without addresses there is none.
type Redis struct {
	Addresses    []string     `toml:"addresses"`   // host:port; of the Sentinels where MasterName is set
	MasterName   string       `toml:"master_name"` // "" is no Sentinel
	User         string       `toml:"user"`
	PasswordFile string       `toml:"password_file"` // for Secret
	TTL          job.Duration `toml:"ttl"`           // how long a finished job is remembered
	Timeout      job.Duration `toml:"timeout"`       // of one question; a job waits no longer for the cache
}

// Lease is the time-bounded right of this host's session to run its jobs.
type Lease struct {
	TTL       job.Duration `toml:"ttl"`        // at least three times Renew
	Renew     job.Duration `toml:"renew"`      // between two renewals
	OnLoss    string       `toml:"on_loss"`    // OnLossFreeze, OnLossStop or OnLossContinue
	FreezeMax job.Duration `toml:"freeze_max"` // stop what has been frozen for so long
}

// Grace is added to TTL before another host's session is expired: at least 5 s
// and at least 1 % of TTL.
func (l Lease) Grace() time.Duration { return max(5*time.Second, l.TTL.Std()/100) }

// Take says how work is looked for.
type Take struct {
	Tick         job.Duration `toml:"tick"`          // look at every queue at least so often
	Slack        job.Duration `toml:"slack"`         // a queued job whose message is older is looked after
	ClaimTimeout job.Duration `toml:"claim_timeout"` // an own claim that nothing knows of is released after it
	ShapesMax    int          `toml:"shapes_max"`    // queues in use; a new shape past it is refused
}

// Device is where the devices come from.
type Device struct {
	Kind                 string       `toml:"kind"`            // DeviceNVML or DeviceSim
	Include              []string     `toml:"include"`         // UUIDs; empty is all
	Helper               string       `toml:"helper"`          // path of gpuqd-device
	Library              string       `toml:"library"`         // path of the NVML library; "" is the driver's own
	Silence              job.Duration `toml:"silence"`         // devices are sick when the helper says nothing for so long
	BreakerFast          job.Duration `toml:"breaker_fast"`    // an attempt that fails sooner is a fast failure; 0: there are no breakers
	AllowProcesses       []string     `toml:"allow_processes"` // programs whose processes may be on any device
	SimulatedCount       int          `toml:"simulated_count"` // 0 is a host without devices
	SimulatedModel       string       `toml:"simulated_model"`
	SimulatedMemoryBytes uint64       `toml:"simulated_memory_bytes"`
	SimulatedNodes       []string     `toml:"simulated_nodes"` // device files that stand for them, by index

	SimulatedComputeCapability string          `toml:"simulated_compute_capability"` // such as "9.0"; "" is none
	SimulatedMIG               int             `toml:"simulated_mig"`                // instances of each; 0 leaves them whole
	SimulatedFaults            SimulatedFaults `toml:"simulated_faults"`
}

// Runner is how attempts are run.
type Runner struct {
	Starter       string       `toml:"starter"`         // StarterAuto, StarterSystemd or StarterProcess
	Shim          string       `toml:"shim"`            // path of gpuqd-shim
	WorkRoot      string       `toml:"work_root"`       // parent of each job's GPUQ_WORKDIR; "" is below state_dir
	LogBytesMax   int64        `toml:"log_bytes_max"`   // of one attempt's output; the rest is dropped and counted
	KeepLogs      job.Duration `toml:"keep_logs"`       // after the attempt's end
	KeepLogsBytes int64        `toml:"keep_logs_bytes"` // of all attempts together; the oldest go first
	JournalOutput bool         `toml:"journal_output"`  // also to journald, where the host has one

	NUMA        string   `toml:"numa"`         // NUMABind, NUMAPrefer or NUMAOff: of commands to their devices' nodes
	DeviceNodes []string `toml:"device_nodes"` // device files that every job may open; patterns of filepath.Match

	// Whom jobs run as, where the starter is systemd.
	Accounts       map[string]string `toml:"accounts"`        // local account by submitter, before all else
	AccountDefault string            `toml:"account_default"` // of submitters without a local account; "" fails their jobs
	AllowRoot      bool              `toml:"allow_root"`      // run jobs of accounts with UID 0
}

// Control is the operator protocol.
type Control struct {
	Socket    string   `toml:"socket"`    // path of the Unix socket, made by the daemon
	Operators []string `toml:"operators"` // may act on everybody's jobs, beside root
}

// Log is the daemon's own log.
type Log struct {
	Level  string `toml:"level"`  // debug, info, warn or error
	Format string `toml:"format"` // LogAuto, LogJournal, LogText or LogJSON
	// JournalSocket is where journald takes entries: the daemon's, and those of its
	// attempts.
	JournalSocket string `toml:"journal_socket"`
}

// Metrics is where Prometheus reads the daemon's metrics.
type Metrics struct {
	Listen string `toml:"listen"` // host:port of /metrics; "" serves none
}

// Simulate is whether operators may rehearse faults at this host.
type Simulate struct {
	Allowed bool `toml:"allowed"` // gpuqctl simulate may kill this daemon, and lose its broker connection
}
