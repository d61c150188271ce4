package config

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gpuqd/daemon/job"
)

// Validate reports everything that is wrong with the settings at once, as
// joined *Problem values without file and line. Load has done it already; it is
// for settings that were put together in code.
func (c Config) Validate() error {
	var check checker
	c.check(&check)
	return join(check.problems)
}

func (c Config) check(v *checker) {
	c.Host.check(v)
	c.Broker.check(v)
	c.Ledger.check(v)
	c.Redis.check(v)
	c.Lease.check(v)
	c.Take.check(v)
	c.Device.check(v)
	c.Runner.check(v)
	c.Control.check(v)
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", c.Log.Format, LogAuto, LogJournal, LogText, LogJSON)
	v.socket("log.journal_socket", c.Log.JournalSocket)
	if c.Metrics.Listen != "" && !address(c.Metrics.Listen, false) {
		v.bad("metrics.listen", "%q is no address: want host:port, such as 127.0.0.1:9850", c.Metrics.Listen)
	}
	c.checkRelations(v)
}

// checkRelations checks what spans sections.
func (c Config) checkRelations(v *checker) {
	// Three operations that hang must fit into a lease, else one slow answer of
	// the ledger's freezes the host's attempts.
	if v.readable("ledger.timeout", "lease.ttl") && c.Ledger.Timeout > c.Lease.TTL/3 {
		v.bad("ledger.timeout", "%s is more than a third of lease.ttl (%s): shorten it, or lengthen the lease",
			plain(c.Ledger.Timeout.Std()), plain(c.Lease.TTL.Std()))
	}
	if v.readable("take.claim_timeout", "ledger.timeout") && c.Take.ClaimTimeout < c.Ledger.Timeout {
		v.bad("take.claim_timeout", "%s is less than ledger.timeout (%s), so a claim would be released while its answer is still due: lengthen it",
			plain(c.Take.ClaimTimeout.Std()), plain(c.Ledger.Timeout.Std()))
	}
}

func (h Host) check(v *checker) {
	if h.Name != "" && !hostPattern.MatchString(h.Name) {
		v.bad("host.name", "%q is no host name: want %s", h.Name, hostForm)
	}
	v.list("host.pools", h.Pools, 0, 32)
	for _, pool := range h.Pools {
		if !isPool(pool) {
			v.bad("host.pools", "%q is no pool name: want 1 to 32 of a-z, 0-9, _ and -, with a letter or digit at both ends", pool)
		}
		if job.IsRehearsalPool(pool) {
			v.bad("host.pools", "%q is kept for rehearsals, which simulate.allowed turns on: take a name that does not begin so", pool)
		}
	}
	v.path("host.state_dir", h.StateDir, false)
	number(v, "host.slots_without_gpu", h.SlotsWithoutGPU, 0, 1024)
}

// isPool asks package job, whose rule it is: a pool's name is part of a queue's.
func isPool(name string) bool {
	s := job.Shape{Pool: name, Priority: job.Normal, Class: job.ClassAny}
	back, err := job.ParseQueue(s.Queue())
	return err == nil && back == s
}

func (b Broker) check(v *checker) {
	v.brokerURLs("broker.urls", b.URLs, 1)
	v.text("broker.user", b.User, false)
	v.secret("broker.user", b.User, "broker.password_file", b.PasswordFile)
	v.path("broker.ca_file", b.CAFile, true)
	v.command("broker.rabbitmqctl", b.Rabbitmqctl)
	v.duration("broker.take_timeout", b.TakeTimeout, time.Second, 5*time.Minute)
	v.duration("broker.confirm_timeout", b.ConfirmTimeout, time.Second, 5*time.Minute)
	v.duration("broker.heartbeat", b.Heartbeat, time.Second, 5*time.Minute)
	if b.Heartbeat.Std()%time.Second != 0 {
		v.bad("broker.heartbeat", "%s is no whole number of seconds, which is all that AMQP can say: round it", b.Heartbeat)
	}
}

func (l Ledger) check(v *checker) {
	v.duration("ledger.timeout", l.Timeout, 100*time.Millisecond, time.Minute)
	v.oneOf("ledger.kind", l.Kind, LedgerSQLite, LedgerMongoDB)
	if !v.readable("ledger.kind") {
		return
	}
	switch l.Kind {
	case LedgerSQLite:
		v.path("ledger.path", l.Path, false)
		l.checkUnusedMongoDB(v)
	case LedgerMongoDB:
		v.mongoURI("ledger.uri", l.URI)
		v.database("ledger.database", l.Database)
		v.text("ledger.user", l.User, true)
		v.secret("ledger.user", l.User, "ledger.password_file", l.PasswordFile)
		if l.PasswordFile != "" && l.User == "" {
			v.bad("ledger.user", "it is empty, but ledger.password_file is set: name the user, or leave the file out")
		}
		v.path("ledger.ca_file", l.CAFile, true)
		if l.Path != Default().Ledger.Path {
			v.bad("ledger.path", `it is set, but ledger.kind is "mongodb": leave it out`)
		}
	}
}

// checkUnusedMongoDB refuses MongoDB settings that a SQLite ledger would not
// use. A host that was meant to join the others' ledger must not open one of its
// own because kind was forgotten.
func (l Ledger) checkUnusedMongoDB(v *checker) {
	usual := Default().Ledger
	for _, k := range []struct {
		key    string
		differ bool
	}{
		{"ledger.uri", l.URI != usual.URI},
		{"ledger.database", l.Database != usual.Database},
		{"ledger.user", l.User != usual.User},
		{"ledger.password_file", l.PasswordFile != usual.PasswordFile},
		{"ledger.ca_file", l.CAFile != usual.CAFile},
		{"ledger.single_node", l.SingleNode != usual.SingleNode},
	} {
		if k.differ {
			v.bad(k.key, `it is set, but ledger.kind is "sqlite": set kind = "mongodb", or leave this key out`)
		}
	}
}

func (r Redis) check(v *checker) {
	v.list("redis.addresses", r.Addresses, 0, 16)
	v.redisAddresses("redis.addresses", r.Addresses)
	v.text("redis.master_name", r.MasterName, true)
	v.text("redis.user", r.User, true)
	v.secret("redis.user", r.User, "redis.password_file", r.PasswordFile)
	v.duration("redis.ttl", r.TTL, time.Minute, 30*24*time.Hour)
	v.duration("redis.timeout", r.Timeout, 10*time.Millisecond, 5*time.Second)
	if len(r.Addresses) > 0 || !v.readable("redis.addresses") {
		return
	}
	for _, k := range [][2]string{
		{"redis.master_name", r.MasterName}, {"redis.user", r.User}, {"redis.password_file", r.PasswordFile},
	} {
		if k[1] != "" {
			v.bad(k[0], "it is set, but redis.addresses is empty, which turns the done-cache off: name the addresses, or leave this key out")
		}
	}
}

func (l Lease) check(v *checker) {
	v.duration("lease.ttl", l.TTL, 3*time.Second, 24*time.Hour)
	v.duration("lease.renew", l.Renew, time.Second, 8*time.Hour)
	v.oneOf("lease.on_loss", l.OnLoss, OnLossFreeze, OnLossStop, OnLossContinue)
	v.duration("lease.freeze_max", l.FreezeMax, time.Second, 30*24*time.Hour)
	if v.readable("lease.ttl", "lease.renew") && l.TTL < 3*l.Renew {
		v.bad("lease.ttl", "%s is less than three times lease.renew (%s), so two lost renewals would lose the lease: lengthen it to %s, or renew more often",
			plain(l.TTL.Std()), plain(l.Renew.Std()), plain(3*l.Renew.Std()))
	}
}

func (t Take) check(v *checker) {
	v.duration("take.tick", t.Tick, 100*time.Millisecond, 10*time.Minute)
	v.duration("take.slack", t.Slack, time.Second, time.Hour)
	v.duration("take.claim_timeout", t.ClaimTimeout, time.Second, time.Hour)
	number(v, "take.shapes_max", t.ShapesMax, 1, 4096)
	if v.readable("take.tick", "take.slack") && t.Slack < t.Tick {
		v.bad("take.slack", "%s is less than take.tick (%s), so messages would be published again before a host has looked: lengthen it",
			plain(t.Slack.Std()), plain(t.Tick.Std()))
	}
}

func (d Device) check(v *checker) {
	v.oneOf("device.kind", d.Kind, DeviceNVML, DeviceSim)
	v.list("device.include", d.Include, 0, 512)
	for _, uuid := range d.Include {
		v.text("device.include", uuid, false)
	}
	v.path("device.helper", d.Helper, false)
	v.path("device.library", d.Library, true)
	v.duration("device.silence", d.Silence, time.Second, 10*time.Minute)
	v.duration("device.breaker_fast", d.BreakerFast, 0, time.Hour)
	d.checkAllowed(v)
	d.checkSimulated(v)
	if d.Kind == DeviceSim && len(d.Include) > 0 {
		v.bad("device.include", `it is set, but device.kind is "simulated", which makes devices up: leave it out`)
	}
}

// checkAllowed checks names of programs, as the kernel keeps them.
func (d Device) checkAllowed(v *checker) {
	v.list("device.allow_processes", d.AllowProcesses, 0, 64)
	for _, name := range d.AllowProcesses {
		v.text("device.allow_processes", name, false)
		if strings.Contains(name, "/") {
			v.bad("device.allow_processes", "%q has a path: want the program's name alone, such as %q", name, filepath.Base(name))
		}
	}
}

func (r Runner) check(v *checker) {
	v.oneOf("runner.starter", r.Starter, StarterAuto, StarterSystemd, StarterProcess)
	v.oneOf("runner.numa", r.NUMA, NUMABind, NUMAPrefer, NUMAOff)
	r.checkNodes(v)
	r.checkAccounts(v)
	v.path("runner.shim", r.Shim, false)
	v.path("runner.work_root", r.WorkRoot, true)
	number(v, "runner.log_bytes_max", r.LogBytesMax, 64<<10, 1<<40)
	v.duration("runner.keep_logs", r.KeepLogs, time.Minute, 10*365*24*time.Hour)
	number(v, "runner.keep_logs_bytes", r.KeepLogsBytes, 64<<10, 1<<50)
	if v.readable("runner.log_bytes_max", "runner.keep_logs_bytes") && r.KeepLogsBytes < r.LogBytesMax {
		v.bad("runner.keep_logs_bytes", "%d is less than runner.log_bytes_max (%d), so one attempt's output could not be kept: raise it", r.KeepLogsBytes, r.LogBytesMax)
	}
}

func (r Runner) checkNodes(v *checker) {
	v.list("runner.device_nodes", r.DeviceNodes, 0, 64)
	for _, pattern := range r.DeviceNodes {
		v.path("runner.device_nodes", pattern, false)
		if _, err := filepath.Match(pattern, ""); err != nil {
			v.bad("runner.device_nodes", "%q is no pattern: close its brackets", pattern)
		}
	}
}

func (r Runner) checkAccounts(v *checker) {
	if len(r.Accounts) > accountsMax {
		v.bad("runner.accounts", "it has %d entries: want at most %d", len(r.Accounts), accountsMax)
	}
	for _, submitter := range slices.Sorted(maps.Keys(r.Accounts)) {
		v.text("runner.accounts", submitter, false)
		v.account("runner.accounts", r.Accounts[submitter], false)
	}
	v.account("runner.account_default", r.AccountDefault, true)
}

// accountsMax bounds what a person is to look through.
const accountsMax = 1024

func (c Control) check(v *checker) {
	v.socket("control.socket", c.Socket)
	v.list("control.operators", c.Operators, 0, 1024)
	for _, name := range c.Operators {
		v.text("control.operators", name, false)
	}
}
