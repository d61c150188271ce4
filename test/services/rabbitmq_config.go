package services

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// consumerTimeout has to exceed the longest job, whose delivery stays open all
// the while.
const consumerTimeout = 30 * 24 * time.Hour

// rabbitConf is a node's configuration. consumer_timeout is in ms. The WAL
// is kept small, since it is held in memory too. Blank nodes that start at the
// same time form their cluster under a lock; the first finds no peer with
// tables, and by default looks for one for another 5 s. A message larger than
// any that we accept would only fill the daemons' memory.
const rabbitConf = `listeners.tcp.1 = 127.0.0.1:%d
loopback_users = none
load_definitions = %s
cluster_formation.peer_discovery_backend = classic_config
%scluster_formation.discovery_retry_limit = 1
cluster_formation.discovery_retry_interval = 100
cluster_partition_handling = pause_minority
consumer_timeout = %d
max_message_size = 2097152
disk_free_limit.absolute = 64MB
vm_memory_high_watermark.absolute = 1GB
raft.wal_max_size_bytes = 32000000
log.console = true
log.console.level = info
log.file = false
`

// writeConfig writes the files that the node reads at its start.
func (n *RabbitNode) writeConfig(c *RabbitCluster) error {
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		return err
	}
	var peers strings.Builder
	for i, peer := range c.Nodes {
		fmt.Fprintf(&peers, "cluster_formation.classic_config.nodes.%d = %s\n", i+1, peer.Name)
	}
	conf, plugins := fmt.Sprintf(rabbitConf, n.Port, c.definitionsPath(), peers.String(), c.timeout().Milliseconds()), "[].\n"
	if n.MetricsPort != 0 {
		conf += fmt.Sprintf("prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = %d\n", n.MetricsPort)
		plugins = "[rabbitmq_prometheus].\n"
	}
	files := map[string]string{
		n.path("rabbitmq.conf"):     conf,
		n.path("rabbitmq-env.conf"): "# Empty: keeps the system's own settings out.\n",
		n.path("enabled_plugins"):   plugins,
	}
	for path, content := range files {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// SetConsumerTimeout changes how long a delivery may stay open, which is 30 days
// without it, and has each node look for one that is overdue six times within
// that. It must be called before the nodes are started.
func (c *RabbitCluster) SetConsumerTimeout(timeout time.Duration) error {
	c.consumerTimeout = timeout
	if err := c.prepare(); err != nil {
		return fmt.Errorf("prepare rabbitmq: %w", err)
	}
	return nil
}

// SetMetricsPorts has each node serve its metrics for Prometheus, at a port of its
// own. It must be called before the nodes are started.
func (c *RabbitCluster) SetMetricsPorts(ports ...int) error {
	if len(ports) != len(c.Nodes) {
		return fmt.Errorf("prepare rabbitmq: %d nodes need as many ports for metrics, not %d", len(c.Nodes), len(ports))
	}
	for i, node := range c.Nodes {
		node.MetricsPort = ports[i]
	}
	if err := c.prepare(); err != nil {
		return fmt.Errorf("prepare rabbitmq: %w", err)
	}
	return nil
}

func (c *RabbitCluster) timeout() time.Duration {
	if c.consumerTimeout > 0 {
		return c.consumerTimeout
	}
	return consumerTimeout
}

// lookout is an argument of the Erlang VM: how often a channel looks for
// deliveries that are overdue, 60 s by default.
func (c *RabbitCluster) lookout() string {
	if c.consumerTimeout <= 0 {
		return ""
	}
	return fmt.Sprintf(" -rabbit channel_tick_interval %d", c.consumerTimeout.Milliseconds()/6)
}

func (n *RabbitNode) path(name string) string { return filepath.Join(n.dir, name) }

// env is the environment of whatever is Erlang here: nodes, rabbitmqctl and
// epmd. None of them may start an epmd of its own, which would outlive us all.
func (c *RabbitCluster) env() []string {
	return []string{
		"HOME=" + filepath.Join(c.Dir, "home"),
		"ERL_EPMD_PORT=" + strconv.Itoa(c.epmdPort),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_AFLAGS=-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
	}
}

// env is what tells this node from the others. With RUNNING_UNDER_SYSTEMD the
// start script execs the Erlang VM instead of waiting for it, so that signals
// to the Process reach the VM. One scheduler, which does not spin: three nodes
// have to fit beside the jobs. An expired message whose target does not exist is
// tried again after 5 s, not the default 180 s.
func (n *RabbitNode) env(c *RabbitCluster) []string {
	return []string{
		"RABBITMQ_NODENAME=" + n.Name,
		"RABBITMQ_DIST_PORT=" + strconv.Itoa(n.distPort),
		"RABBITMQ_MNESIA_BASE=" + n.path("mnesia"),
		"RABBITMQ_LOG_BASE=" + n.path("log"),
		"RABBITMQ_CONFIG_FILE=" + n.path("rabbitmq.conf"),
		"RABBITMQ_CONF_ENV_FILE=" + n.path("rabbitmq-env.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + n.path("enabled_plugins"),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 1:1 +sbwt none -rabbit dead_letter_worker_publisher_confirm_timeout 5000 -kernel net_ticktime 10" + c.lookout(),
		"RABBITMQ_LOG=-color",
		"RUNNING_UNDER_SYSTEMD=true",
		"NOTIFY_SOCKET=",
	}
}
