package cluster

import (
	"context"
	"net"
	"strconv"
	"time"

	"gpuqd/test/cluster/supervisor"
	"gpuqd/test/services"
	"gpuqd/test/services/monitoring"
)

// The names of what watches the cluster.
const (
	prometheusName    = "prometheus"
	alertmanagerName  = "alertmanager"
	lokiName          = "loki"
	lokiGRPCPort      = "loki_grpc" // no unit
	redisExporterName = "redis_exporter"
	grafanaName       = "grafana"
)

// A worker is a host to those who watch: it has a journald, a Promtail and a node
// exporter of its own.
func journaldName(n int) string { return "journald_" + strconv.Itoa(n) }
func promtailName(n int) string { return "promtail_" + strconv.Itoa(n) }
func nodeName(n int) string     { return "node_" + strconv.Itoa(n) }

func rabbitMetricsPort(n int) string { return rabbitName(n) + "_metrics" }

// monitoringPorts are the names of the ports that a watched cluster has besides.
func monitoringPorts(rabbitNodes, workers int) []string {
	names := []string{prometheusName, alertmanagerName, lokiName, lokiGRPCPort, redisExporterName, grafanaName}
	for n := 1; n <= rabbitNodes; n++ {
		names = append(names, rabbitMetricsPort(n))
	}
	for n := 1; n <= workers; n++ {
		names = append(names, promtailName(n), nodeName(n))
	}
	return names
}

// ports returns the ports of the first n of a kind.
func (c *Cluster) ports(n int, name func(int) string) []int {
	var list []int
	for i := 1; i <= n; i++ {
		list = append(list, c.settings.Ports[name(i)])
	}
	return list
}

// monitoringParts is what watches a cluster, with the files that each part reads.
type monitoringParts struct {
	prometheus, alertmanager, loki, redisExporter watcher
	grafana                                       watcher       // no process where it is not installed
	hosts                                         []watchedHost // by worker
}

// watcher is a process and the files that it reads.
type watcher struct {
	process *services.Process
	files   []string
}

// watchedHost is what a worker's host has beside gpuqd.
type watchedHost struct {
	journald       *monitoring.Journald
	promtail, node watcher
}

// monitoringInterval is the interval of scrapes and rules, shorter than a site's: a
// person waits for what it shows.
const monitoringInterval = 5 * time.Second

// prepareMonitoring writes the files of all that watches the cluster, if it is to be
// watched.
func (c *Cluster) prepareMonitoring(ctx context.Context) error {
	if !c.settings.Monitoring {
		return nil
	}
	built, err := monitoring.FindBuilt(ctx)
	if err != nil {
		return err
	}
	parts, ports := &monitoringParts{}, c.settings.Ports
	dir := func(name string) string { return c.files.path("monitoring", name) }
	if parts.prometheus, err = c.preparePrometheus(ctx, dir(prometheusName)); err != nil {
		return err
	}
	if parts.alertmanager, err = watched(monitoring.NewAlertmanager(ctx, dir(alertmanagerName), ports[alertmanagerName])); err != nil {
		return err
	}
	if parts.loki, err = watched(built.NewLoki(ctx, dir(lokiName), ports[lokiName], ports[lokiGRPCPort])); err != nil {
		return err
	}
	if monitoring.GrafanaInstalled() {
		parts.grafana, err = watched(monitoring.NewGrafana(ctx, dir(grafanaName), ports[grafanaName], ports[prometheusName], ports[lokiName]))
		if err != nil {
			return err
		}
	}
	password, err := c.files.secret(secretRedis)
	if err != nil {
		return err
	}
	exporter, err := monitoring.NewRedisExporter(dir(redisExporterName), ports[redisExporterName], c.RedisAddr(), password)
	if err != nil {
		return err
	}
	parts.redisExporter.process = exporter
	for n := 1; n <= c.settings.Workers; n++ {
		host, err := c.prepareHost(ctx, built, n)
		if err != nil {
			return err
		}
		parts.hosts = append(parts.hosts, host)
	}
	c.monitoring = parts
	return nil
}

func watched(p *services.Process, files []string, err error) (watcher, error) {
	return watcher{p, files}, err
}

func (c *Cluster) preparePrometheus(ctx context.Context, dir string) (watcher, error) {
	o := Monitoring{}
	if c.opts.Monitoring != nil {
		o = *c.opts.Monitoring
	}
	orDefault(&o.Interval, monitoringInterval)
	ports, targets := c.settings.Ports, map[string][]monitoring.Target{}
	for n, name := range c.Workers() {
		targets["gpuqd"] = append(targets["gpuqd"], monitoring.Target{Host: name, Port: ports[name]})
		targets["node"] = append(targets["node"], monitoring.Target{Host: name, Port: ports[nodeName(n+1)]})
		targets["logs"] = append(targets["logs"], monitoring.Target{Host: name, Port: ports[promtailName(n+1)]})
	}
	for n, name := range c.RabbitNodes() {
		targets["rabbitmq"] = append(targets["rabbitmq"], monitoring.Target{Host: name, Port: ports[rabbitMetricsPort(n+1)]})
	}
	targets["redis"] = []monitoring.Target{{Host: redisName, Port: ports[redisExporterName]}}
	targets["loki"] = []monitoring.Target{{Host: monitoring.Host, Port: ports[lokiName]}}
	if monitoring.GrafanaInstalled() {
		targets["grafana"] = []monitoring.Target{{Host: monitoring.Host, Port: ports[grafanaName]}}
	}
	return watched(monitoring.NewPrometheus(ctx, monitoring.PrometheusOptions{
		Dir: dir, Port: ports[prometheusName], AlertmanagerPort: ports[alertmanagerName],
		Interval: o.Interval, RulesDir: o.RulesDir, Targets: targets,
	}))
}

func (c *Cluster) prepareHost(ctx context.Context, built monitoring.Built, n int) (h watchedHost, err error) {
	name, ports := workerName(n), c.settings.Ports
	if h.journald, err = monitoring.NewJournald(c.files.journalSockets(name), c.files.journal(name)); err != nil {
		return h, err
	}
	h.promtail, err = watched(built.NewPromtail(ctx, monitoring.PromtailOptions{
		Dir: c.files.path(name, "promtail"), Port: ports[promtailName(n)], JournalDir: c.files.journal(name),
		Job: "workers", Host: name, LokiPort: ports[lokiName],
	}))
	if err != nil {
		return h, err
	}
	h.node.process, err = monitoring.NewNodeExporter(c.files.worker(name), ports[nodeName(n)])
	return h, err
}

// watchingUnits are what watches the cluster, for its waves of servers.
type watchingUnits struct{ first, second []supervisor.Unit }

// monitoringUnits returns them: journald starts first, so that no line is lost.
func (c *Cluster) monitoringUnits() (units watchingUnits, err error) {
	if c.monitoring == nil {
		return units, nil
	}
	add := func(to *[]supervisor.Unit, name string, w watcher, ports ...int) {
		u := c.serverUnit(name, w.process, ports...)
		sum, bad := fingerprint(w.process, w.files...)
		if bad != nil && err == nil {
			err = bad
		}
		u.Fingerprint = sum
		*to = append(*to, u)
	}
	m, ports := c.monitoring, c.settings.Ports
	for i, host := range m.hosts {
		add(&units.first, journaldName(i+1), watcher{process: host.journald.Process})
		add(&units.second, nodeName(i+1), host.node, ports[nodeName(i+1)])
		add(&units.second, promtailName(i+1), host.promtail, ports[promtailName(i+1)])
	}
	add(&units.second, redisExporterName, m.redisExporter, ports[redisExporterName])
	add(&units.second, alertmanagerName, m.alertmanager, ports[alertmanagerName])
	add(&units.second, lokiName, m.loki, ports[lokiName], ports[lokiGRPCPort])
	add(&units.second, prometheusName, m.prometheus, ports[prometheusName])
	if m.grafana.process != nil {
		add(&units.second, grafanaName, m.grafana, ports[grafanaName])
	}
	return units, err
}

// companions are the units that are on the same host as a worker, in the order in
// which they start.
func (c *Cluster) companions(unit string) []string {
	n, ok := workerNumber(unit)
	if !ok || c.monitoring == nil {
		return nil
	}
	return []string{journaldName(n), promtailName(n), nodeName(n)}
}

// Monitored reports whether the cluster is watched.
func (c *Cluster) Monitored() bool { return c.settings.Monitoring }

// Prometheus, Alertmanager and Loki are to be asked about a cluster that is
// watched.
func (c *Cluster) Prometheus() monitoring.Prometheus {
	return monitoring.Prometheus(c.address(prometheusName))
}

// Alertmanager is where alerts arrive.
func (c *Cluster) Alertmanager() monitoring.Alertmanager {
	return monitoring.Alertmanager(c.address(alertmanagerName))
}

// Loki has the workers' journals.
func (c *Cluster) Loki() monitoring.Loki { return monitoring.Loki(c.address(lokiName)) }

// Grafana returns Grafana's address; "" where it is not installed.
func (c *Cluster) Grafana() string {
	if c.monitoring == nil || c.monitoring.grafana.process == nil {
		return ""
	}
	return c.address(grafanaName)
}

// JournalDir returns a worker's journal, for journalctl --directory; "" where the
// cluster is not watched, and daemons log to LogPath.
func (c *Cluster) JournalDir(worker string) string {
	if !c.settings.Monitoring {
		return ""
	}
	return c.files.journal(worker)
}

func (c *Cluster) address(name string) string {
	return "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(c.settings.Ports[name]))
}
