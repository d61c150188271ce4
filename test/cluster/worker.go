package cluster

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/BurntSushi/toml"

	"gpuqd/daemon/config"
	"gpuqd/daemon/control"
	"gpuqd/test/cluster/supervisor"
	"gpuqd/test/services"
)

// workerConfig returns the settings of the n-th worker, from 1.
func (c *Cluster) workerConfig(n int) config.Config {
	name := workerName(n)
	cfg := config.Default()
	cfg.Host.Name = name
	cfg.Host.StateDir = c.files.state(name)
	// Each worker starts at another node.
	cfg.Broker.URLs = append(slices.Clone(c.brokerURLs[(n-1)%len(c.brokerURLs):]), c.brokerURLs[:(n-1)%len(c.brokerURLs)]...)
	cfg.Broker.Rabbitmqctl = c.rabbit.CtlCommand(c.rabbit.Nodes[(n-1)%len(c.rabbit.Nodes)])
	cfg.Broker.User = c.account
	cfg.Broker.PasswordFile = c.files.secretPath(secretHost)
	c.ledger.configure(&cfg.Ledger)
	cfg.Ledger.Timeout = min(cfg.Ledger.Timeout, duration(c.opts.LeaseTTL/3))
	cfg.Redis.Addresses = []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(c.settings.Ports[redisName]))}
	cfg.Redis.PasswordFile = c.files.secretPath(secretRedis)
	cfg.Lease.TTL = duration(c.opts.LeaseTTL)
	cfg.Lease.Renew = duration(c.opts.LeaseRenew)
	cfg.Device = c.shares[n-1].config(c.opts.BinDir, c.opts.DevicesPerWorker)
	cfg.Runner.Shim = c.opts.BinDir + "/gpuqd-shim"
	cfg.Runner.WorkRoot = c.files.workRoot()
	cfg.Control.Socket = c.files.socket(name)
	if port := c.settings.Ports[name]; port != 0 { // a cluster of an earlier version has none
		cfg.Metrics.Listen = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	if c.monitoring != nil {
		cfg.Log.Format, cfg.Log.JournalSocket = config.LogJournal, c.monitoring.hosts[n-1].journald.Socket
	}
	cfg.Simulate.Allowed = c.opts.Simulate
	if c.opts.Configure != nil {
		c.opts.Configure(name, &cfg)
	}
	return cfg
}

// workerUnit writes a worker's configuration and returns its unit.
func (c *Cluster) workerUnit(n int) (supervisor.Unit, error) {
	name := workerName(n)
	program, err := c.opts.program("gpuqd")
	if err != nil {
		return supervisor.Unit{}, err
	}
	cfg := c.workerConfig(n)
	if err := cfg.Validate(); err != nil {
		return supervisor.Unit{}, fmt.Errorf("configure %s: %w", name, err)
	}
	if err := os.MkdirAll(c.files.state(name), 0o700); err != nil {
		return supervisor.Unit{}, fmt.Errorf("configure %s: %w", name, err)
	}
	if err := writeTOML(c.files.config(name), cfg); err != nil {
		return supervisor.Unit{}, fmt.Errorf("configure %s: %w", name, err)
	}
	socket := cfg.Control.Socket
	process := &services.Process{
		Name: name, Path: program, Args: []string{"--config", c.files.config(name)},
		Env: []string{Marker(c.files.dir)}, Dir: c.files.worker(name), LogPath: c.files.log(name), Orphan: c.opts.Orphan,
		Ready: func(ctx context.Context) error { return answers(ctx, socket) },
	}
	sum, err := fingerprint(process, program, c.files.config(name))
	if err != nil {
		return supervisor.Unit{}, err
	}
	return supervisor.Unit{Process: process, Port: c.settings.Ports[name], Fingerprint: sum}, nil
}

// answers returns nil when a daemon answers on its control socket.
func answers(ctx context.Context, socket string) error {
	client := control.NewClient(control.SocketWay(socket))
	defer client.Close()
	client.Patience, client.AttemptTimeout = time.Second, time.Second
	_, err := client.Version(ctx)
	return err
}

// writeClientConfig writes the file that makes gpuqctl find this cluster.
func (c *Cluster) writeClientConfig() error {
	cfg := config.DefaultClient()
	cfg.Sockets = nil
	for n := 1; n <= min(c.settings.Workers, clientSocketsMax); n++ {
		cfg.Sockets = append(cfg.Sockets, c.files.socket(workerName(n)))
	}
	cfg.Broker.URLs = c.brokerURLs
	cfg.Broker.User = c.user
	cfg.Broker.PasswordFile = c.files.secretPath(secretUser)
	if err := writeTOML(c.files.gpuqctl(), cfg); err != nil {
		return fmt.Errorf("configure gpuqctl: %w", err)
	}
	return nil
}

// clientSocketsMax is as many sockets as gpuqctl takes.
const clientSocketsMax = 16

// writeTOML writes settings to a file, replacing it as a whole.
func writeTOML(path string, settings any) error {
	var text bytes.Buffer
	text.WriteString("# Written by test/cluster: changes are lost at the next start.\n")
	if err := toml.NewEncoder(&text).Encode(settings); err != nil {
		return err
	}
	if err := os.WriteFile(path+".tmp", text.Bytes(), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}
