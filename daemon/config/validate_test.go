package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/job"
)

func TestDefaultsAreValid(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Errorf("the daemon's: %v", err)
	}
	if err := DefaultClient().Validate(); err != nil {
		t.Errorf("gpuqctl's: %v", err)
	}
}

func TestDefaultsAreNotShared(t *testing.T) {
	a := Default()
	a.Host.Pools[0], a.Broker.URLs[0] = "changed", "changed"
	if b := Default(); b.Host.Pools[0] != "default" || b.Broker.URLs[0] == "changed" {
		t.Error("a change of one Default shows in the next")
	}
}

// mongo returns valid settings with a MongoDB ledger.
func mongo() Config {
	c := Default()
	c.Ledger.Kind = LedgerMongoDB
	return c
}

func TestValidateRefuses(t *testing.T) {
	for _, c := range []struct {
		want string
		set  func(*Config)
	}{
		{"host.name: \"a.b\" is no host name", func(c *Config) { c.Host.Name = "a.b" }},
		{"host.name:", func(c *Config) { c.Host.Name = strings.Repeat("a", 64) }},
		{"host.name:", func(c *Config) { c.Host.Name = "-a" }},
		{"host.name:", func(c *Config) { c.Host.Name = "a\n" }},
		{"host.pools:", func(c *Config) { c.Host.Pools = []string{"A"} }},
		{"host.pools:", func(c *Config) { c.Host.Pools = []string{"x.again"} }},
		{"host.pools: it has 33 entries: want 0 to 32", func(c *Config) { c.Host.Pools = many(33) }},
		{"host.state_dir: \"var\" is no absolute path", func(c *Config) { c.Host.StateDir = "var" }},
		{"host.state_dir: it is empty", func(c *Config) { c.Host.StateDir = "" }},
		{"host.slots_without_gpu: -1 is not between 0 and 1024", func(c *Config) { c.Host.SlotsWithoutGPU = -1 }},
		{"broker.urls: it has 0 entries: want 1 to 16", func(c *Config) { c.Broker.URLs = nil }},
		{"broker.urls: entry 1 is no AMQP", func(c *Config) { c.Broker.URLs = []string{"amqp://"} }},
		{"broker.urls: entry 1 is no AMQP", func(c *Config) { c.Broker.URLs = []string{"amqp://h:port/"} }},
		{"broker.urls: entry 1 is no AMQP", func(c *Config) { c.Broker.URLs = []string{"amqp:h:1"} }},
		{"broker.urls: entry 1 has options", func(c *Config) { c.Broker.URLs = []string{"amqp://h/v?heartbeat=1"} }},
		{"broker.urls: entry 1 has more than one vhost", func(c *Config) { c.Broker.URLs = []string{"amqp://h/a/b"} }},
		{"broker.urls: entry 1 holds credentials", func(c *Config) { c.Broker.URLs = []string{"amqp://u@h/"} }},
		{"broker.user: it is empty", func(c *Config) { c.Broker.User = "" }},
		{"broker.password_file: it is empty, but broker.user is \"gpuqd\"", func(c *Config) { c.Broker.PasswordFile = "" }},
		{"broker.password_file:", func(c *Config) { c.Broker.PasswordFile = "$CREDENTIALS_DIRECTORY/a/b" }},
		{"broker.password_file:", func(c *Config) { c.Broker.PasswordFile = "$CREDENTIALS_DIRECTORY/.." }},
		{"broker.ca_file:", func(c *Config) { c.Broker.CAFile = "ca.pem" }},
		{"broker.take_timeout: 0s is not between 1s and 5m", func(c *Config) { c.Broker.TakeTimeout = 0 }},
		{"broker.confirm_timeout:", func(c *Config) { c.Broker.ConfirmTimeout = hours(1) }},
		{"broker.heartbeat: 1.5s is no whole number of seconds", func(c *Config) { c.Broker.Heartbeat = millis(1500) }},
		{"broker.rabbitmqctl: it has 33 entries: want at most 32", func(c *Config) { c.Broker.Rabbitmqctl = many(33) }},
		{"broker.rabbitmqctl: entry 2 cannot be used", func(c *Config) { c.Broker.Rabbitmqctl = []string{"env", ""} }},
		{"broker.rabbitmqctl: \"sudo rabbitmqctl\" is no program", func(c *Config) { c.Broker.Rabbitmqctl = []string{"sudo rabbitmqctl"} }},
		{"broker.rabbitmqctl: entry 2 holds the cookie", func(c *Config) { c.Broker.Rabbitmqctl = []string{"rabbitmqctl", "--erlang-cookie=x"} }},
		{"ledger.kind: \"postgres\" is none of the values it can have: \"sqlite\", \"mongodb\"", func(c *Config) { c.Ledger.Kind = "postgres" }},
		{"ledger.path:", func(c *Config) { c.Ledger.Path = "" }},
		{"ledger.uri: it is set, but ledger.kind is \"sqlite\"", func(c *Config) { c.Ledger.URI = "mongodb://db1" }},
		{"ledger.single_node: it is set, but", func(c *Config) { c.Ledger.SingleNode = true }},
		{"ledger.path: it is set, but ledger.kind is \"mongodb\"", func(c *Config) { *c = mongo(); c.Ledger.Path = "/x" }},
		{"ledger.uri: it is no MongoDB address", func(c *Config) { *c = mongo(); c.Ledger.URI = "" }},
		{"ledger.uri: it is no MongoDB address", func(c *Config) { *c = mongo(); c.Ledger.URI = "mongodb://a:1,,b:2" }},
		{"ledger.uri: it holds credentials", func(c *Config) { *c = mongo(); c.Ledger.URI = "mongodb://u:hunter2@a:1" }},
		{"ledger.uri: it holds credentials", func(c *Config) {
			*c = mongo()
			c.Ledger.URI = "mongodb://a:1/?tlsCertificateKeyFilePassword=hunter2"
		}},
		{"ledger.uri: the option readPreference is settled", func(c *Config) { *c = mongo(); c.Ledger.URI = "mongodb://a:1/?readPreference=nearest" }},
		{"ledger.uri: the option w is settled", func(c *Config) { *c = mongo(); c.Ledger.URI = "mongodb://a:1/?w=0" }},
		{"ledger.database:", func(c *Config) { *c = mongo(); c.Ledger.Database = "a.b" }},
		{"ledger.user: it is empty, but ledger.password_file is set", func(c *Config) { *c = mongo(); c.Ledger.PasswordFile = "/p" }},
		{"ledger.password_file: it is empty, but ledger.user", func(c *Config) { *c = mongo(); c.Ledger.User = "u" }},
		{"ledger.timeout: 99ms is not between 100ms and 1m", func(c *Config) { c.Ledger.Timeout = millis(99) }},
		{"ledger.timeout: 5s is more than a third of lease.ttl (12s)", func(c *Config) { c.Lease.TTL, c.Lease.Renew = seconds(12), seconds(2) }},
		{"redis.addresses: entry 1 is no address: want host:port", func(c *Config) { c.Redis.Addresses = []string{"redis://h:6379"} }},
		{"redis.addresses: entry 1 is no address", func(c *Config) { c.Redis.Addresses = []string{"h"} }},
		{"redis.addresses: entry 1 holds credentials", func(c *Config) { c.Redis.Addresses = []string{"u:hunter2@h:1"} }},
		{"redis.password_file: it is set, but redis.addresses is empty", func(c *Config) { c.Redis.PasswordFile = "/p" }},
		{"redis.ttl:", func(c *Config) { c.Redis.TTL = seconds(59) }},
		{"redis.timeout:", func(c *Config) { c.Redis.Timeout = 0 }},
		{"lease.renew: 999ms is not between 1s and 8h", func(c *Config) { c.Lease.Renew = millis(999) }},
		{"lease.ttl: 5m is less than three times lease.renew (1m40.001s)", func(c *Config) { c.Lease.Renew = millis(100_001) }},
		{"lease.ttl: 25h is not between 3s and 24h", func(c *Config) { c.Lease.TTL = hours(25) }},
		{"lease.on_loss: \"\" is none of", func(c *Config) { c.Lease.OnLoss = "" }},
		{"lease.freeze_max:", func(c *Config) { c.Lease.FreezeMax = -1 }},
		{"take.tick:", func(c *Config) { c.Take.Tick = 0 }},
		{"take.slack: 4s is less than take.tick (5s)", func(c *Config) { c.Take.Slack = seconds(4) }},
		{"take.claim_timeout: 4s is less than ledger.timeout (5s)", func(c *Config) { c.Take.ClaimTimeout = seconds(4) }},
		{"take.shapes_max: 0 is not between 1 and 4096", func(c *Config) { c.Take.ShapesMax = 0 }},
		{"device.kind:", func(c *Config) { c.Device.Kind = "cuda" }},
		{"device.include: \"GPU-1\" is in it twice", func(c *Config) { c.Device.Include = []string{"GPU-1", "GPU-1"} }},
		{"device.include: it is empty: want a name", func(c *Config) { c.Device.Include = []string{""} }},
		{"device.include: it is set, but device.kind is \"simulated\"", func(c *Config) { c.Device.Kind, c.Device.Include = DeviceSim, []string{"GPU-1"} }},
		{"device.helper:", func(c *Config) { c.Device.Helper = "gpuqd-device" }},
		{"device.silence:", func(c *Config) { c.Device.Silence = 0 }},
		{"device.allow_processes: \"/usr/lib/xorg/Xorg\" has a path", func(c *Config) { c.Device.AllowProcesses = []string{"/usr/lib/xorg/Xorg"} }},
		{"device.allow_processes: it is empty", func(c *Config) { c.Device.AllowProcesses = []string{""} }},
		{"device.breaker_fast:", func(c *Config) { c.Device.BreakerFast = job.Duration(2 * time.Hour) }},
		{"device.simulated_count: 65 is not between 0 and 64", func(c *Config) { c.Device.Kind, c.Device.SimulatedCount = DeviceSim, 65 }},
		{"device.simulated_count: it is set, but device.kind is \"nvml\"", func(c *Config) { c.Device.SimulatedCount = 2 }},
		{"device.simulated_model:", func(c *Config) { c.Device.SimulatedModel = "" }},
		{"device.simulated_memory_bytes:", func(c *Config) { c.Device.SimulatedMemoryBytes = 0 }},
		{"runner.starter: \"docker\" is none of", func(c *Config) { c.Runner.Starter = "docker" }},
		{"device.simulated_nodes: \"gpu\" is no absolute path", func(c *Config) {
			c.Device.Kind, c.Device.SimulatedCount, c.Device.SimulatedNodes = DeviceSim, 1, []string{"gpu"}
		}},
		{"device.simulated_nodes: it has 2 entries for 1 devices", func(c *Config) {
			c.Device.Kind, c.Device.SimulatedCount, c.Device.SimulatedNodes = DeviceSim, 1, []string{"/dev/a", "/dev/b"}
		}},
		{"device.simulated_nodes: it is set, but device.kind is \"nvml\"", func(c *Config) { c.Device.SimulatedNodes = []string{"/dev/a"} }},
		{"runner.numa: \"local\" is none of", func(c *Config) { c.Runner.NUMA = "local" }},
		{"runner.device_nodes: \"fuse\" is no absolute path", func(c *Config) { c.Runner.DeviceNodes = []string{"fuse"} }},
		{"runner.device_nodes: \"/dev/[\" is no pattern", func(c *Config) { c.Runner.DeviceNodes = []string{"/dev/["} }},
		{"runner.accounts: \"a b\" is no name", func(c *Config) { c.Runner.Accounts = map[string]string{"a b": "x"} }},
		{"runner.accounts: \"0\" is a number", func(c *Config) { c.Runner.Accounts = map[string]string{"alice": "0"} }},
		{"runner.accounts: it is empty", func(c *Config) { c.Runner.Accounts = map[string]string{"alice": ""} }},
		{"runner.account_default: \"1000\" is a number", func(c *Config) { c.Runner.AccountDefault = "1000" }},
		{"runner.shim:", func(c *Config) { c.Runner.Shim = "" }},
		{"runner.work_root:", func(c *Config) { c.Runner.WorkRoot = "work" }},
		{"runner.log_bytes_max: 65535 is not between 65536 and 1099511627776", func(c *Config) { c.Runner.LogBytesMax = 65535 }},
		{"runner.keep_logs:", func(c *Config) { c.Runner.KeepLogs = 0 }},
		{"runner.keep_logs_bytes: 65536 is less than runner.log_bytes_max", func(c *Config) { c.Runner.KeepLogsBytes = 65536 }},
		{"control.socket: a path of 108 bytes is too long", func(c *Config) { c.Control.Socket = "/" + strings.Repeat("s", 107) }},
		{"control.operators:", func(c *Config) { c.Control.Operators = []string{"a b"} }},
		{"log.level: \"warning\" is none of", func(c *Config) { c.Log.Level = "warning" }},
		{"log.format:", func(c *Config) { c.Log.Format = "logfmt" }},
	} {
		t.Run(strings.SplitN(c.want, ":", 2)[0], func(t *testing.T) {
			cfg := Default()
			c.set(&cfg)
			err := cfg.Validate()
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Fatalf("got  %v\nwant %s…", err, c.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows a password: %v", err)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("one mistake was reported more than once:\n%v", err)
			}
		})
	}
}

func TestValidateAccepts(t *testing.T) {
	for name, set := range map[string]func(*Config){
		"a host with underscore":   func(c *Config) { c.Host.Name = "worker_1" },
		"the longest host":         func(c *Config) { c.Host.Name = strings.Repeat("a", 63) },
		"a login node":             func(c *Config) { c.Host.Pools, c.Host.SlotsWithoutGPU, c.Device.Kind = nil, 0, DeviceSim },
		"three broker nodes":       func(c *Config) { c.Broker.URLs = []string{"amqps://a:5671/q", "amqps://b/q", "amqps://[::1]:5671/q"} },
		"a vhost with a slash":     func(c *Config) { c.Broker.URLs = []string{"amqp://a/x%2Fy"} },
		"a credential":             func(c *Config) { c.Broker.PasswordFile = "$CREDENTIALS_DIRECTORY/broker" },
		"a replica set":            func(c *Config) { *c = mongo(); c.Ledger.URI = "mongodb://a:27017,b:27018,[::1]:1/?replicaSet=rs0" },
		"a replica set by DNS":     func(c *Config) { *c = mongo(); c.Ledger.URI = "mongodb+srv://cluster.example.org/" },
		"a lone MongoDB":           func(c *Config) { *c = mongo(); c.Ledger.SingleNode = true },
		"a MongoDB account":        func(c *Config) { *c = mongo(); c.Ledger.User, c.Ledger.PasswordFile = "u", "/p" },
		"Sentinels":                func(c *Config) { c.Redis.Addresses, c.Redis.MasterName = []string{"a:26379", "b:26379"}, "m" },
		"Redis with password only": func(c *Config) { c.Redis.Addresses, c.Redis.PasswordFile = []string{"a:6379"}, "/p" },
		"the shortest lease":       func(c *Config) { c.Lease.TTL, c.Lease.Renew, c.Ledger.Timeout = seconds(3), seconds(1), seconds(1) },
		"the local cluster's":      func(c *Config) { c.Lease.TTL, c.Lease.Renew = seconds(15), seconds(2) },
		"the longest socket":       func(c *Config) { c.Control.Socket = "/" + strings.Repeat("s", 106) },
		"64 simulated devices":     func(c *Config) { c.Device.Kind, c.Device.SimulatedCount = DeviceSim, 64 },
	} {
		cfg := Default()
		set(&cfg)
		if err := cfg.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A check that misspells its key would name one that nobody can find, and lose
// its line. The zero Config fails nearly all checks.
func TestProblemsNameKeysThatExist(t *testing.T) {
	known := knownKeys(reflect.TypeFor[Config](), nil)
	var zero, mongoZero Config
	mongoZero.Ledger.Kind = LedgerMongoDB
	mongoZero.Ledger.PasswordFile = "x"
	for _, cfg := range []Config{zero, mongoZero} {
		var check checker
		cfg.check(&check)
		if len(check.problems) < 20 {
			t.Errorf("an empty Config has only %d problems", len(check.problems))
		}
		for _, p := range check.problems {
			if !slices.Contains(known, p.Key) {
				t.Errorf("a problem names the key %q, which does not exist", p.Key)
			}
		}
	}
}

func TestGraceIsFiveSecondsOrOnePercent(t *testing.T) {
	for ttl, want := range map[time.Duration]time.Duration{
		15 * time.Second: 5 * time.Second,
		5 * time.Minute:  5 * time.Second,
		time.Hour:        36 * time.Second,
	} {
		if got := (Lease{TTL: job.Duration(ttl)}).Grace(); got != want {
			t.Errorf("the grace of %s is %s, want %s", ttl, got, want)
		}
	}
}

func millis(n int) job.Duration { return job.Duration(time.Duration(n) * time.Millisecond) }

// many returns n different pool names.
func many(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = "p" + strings.Repeat("x", i%16) + strings.Repeat("y", i/16)
	}
	return names
}
