package cluster

import (
	"strconv"

	"gpuqd/test/services"
)

// Workers returns the names of the workers.
func (c *Cluster) Workers() []string {
	var names []string
	for n := 1; n <= c.settings.Workers; n++ {
		names = append(names, workerName(n))
	}
	return names
}

// RabbitNodes returns the names of the RabbitMQ nodes.
func (c *Cluster) RabbitNodes() []string {
	var names []string
	for n := 1; n <= c.settings.RabbitNodes; n++ {
		names = append(names, rabbitName(n))
	}
	return names
}

// Dir returns the cluster's directory.
func (c *Cluster) Dir() string { return c.files.dir }

// StateDir returns a worker's state directory.
func (c *Cluster) StateDir(worker string) string { return c.files.state(worker) }

// Socket returns a worker's control socket.
func (c *Cluster) Socket(worker string) string { return c.files.socket(worker) }

// ConfigPath returns a worker's configuration file.
func (c *Cluster) ConfigPath(worker string) string { return c.files.config(worker) }

// ClientConfigPath returns gpuqctl's configuration file.
func (c *Cluster) ClientConfigPath() string { return c.files.gpuqctl() }

// WorkRoot returns the parent of every job's GPUQ_WORKDIR.
func (c *Cluster) WorkRoot() string { return c.files.workRoot() }

// LogPath returns the log of a server or daemon.
func (c *Cluster) LogPath(unit string) string { return c.files.log(unit) }

// LedgerKind returns config.LedgerSQLite or config.LedgerMongoDB.
func (c *Cluster) LedgerKind() string { return c.ledger.kind }

// SQLitePath returns the ledger's file, "" where the ledger is MongoDB.
func (c *Cluster) SQLitePath() string { return c.ledger.path }

// MongoDBURI returns the ledger's address, "" where the ledger is SQLite.
func (c *Cluster) MongoDBURI() string { return c.ledger.uri }

// RedisAddr returns Redis's host:port. Its password is in SecretPath("redis").
func (c *Cluster) RedisAddr() string {
	return "127.0.0.1:" + strconv.Itoa(c.settings.Ports[redisName])
}

// RedisPassword returns Redis's password.
func (c *Cluster) RedisPassword() (string, error) { return c.files.secret(secretRedis) }

// User returns the broker account, and name, of the person who uses the cluster.
func (c *Cluster) User() string { return c.user }

// UserURLs returns the nodes' AMQP URLs with the person's credentials.
func (c *Cluster) UserURLs() ([]string, error) { return c.urls(c.user, secretUser) }

// HostURLs returns the nodes' AMQP URLs with the daemons' credentials.
func (c *Cluster) HostURLs() ([]string, error) { return c.urls(c.account, secretHost) }

func (c *Cluster) urls(account, secret string) ([]string, error) {
	password, err := c.files.secret(secret)
	if err != nil {
		return nil, err
	}
	var urls []string
	for _, node := range c.rabbit.Nodes {
		urls = append(urls, node.URL(account, password))
	}
	return urls, nil
}

// Rabbit returns the RabbitMQ cluster, for what only its own tools can do. Its
// processes are the supervisor's.
func (c *Cluster) Rabbit() *services.RabbitCluster { return c.rabbit }
