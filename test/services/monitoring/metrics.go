package monitoring

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"gpuqd/test/services"
)

// Host is what the host of Prometheus, Alertmanager and Loki is called in labels.
const Host = "monitoring"

// Target is where a host answers to Prometheus.
type Target struct {
	Host string // the label host
	Port int    // of 127.0.0.1
}

// PrometheusOptions say what a Prometheus scrapes and how.
type PrometheusOptions struct {
	Dir              string // of its files
	Port             int
	AlertmanagerPort int
	// Interval is that of scrapes and of the evaluation of rules; 0 is a site's.
	Interval time.Duration
	// RulesDir has the rules, *.yml; "" is RulesDir().
	RulesDir string
	// Targets are those of each job that a site has, by its name. A job that is
	// not here has none.
	Targets map[string][]Target
}

// NewPrometheus writes a Prometheus's configuration and returns its process, not
// yet started, with the files that it reads.
func NewPrometheus(ctx context.Context, opts PrometheusOptions) (*services.Process, []string, error) {
	program, err := installed("/usr/bin/prometheus")
	if err != nil {
		return nil, nil, err
	}
	if opts.RulesDir == "" {
		if opts.RulesDir, err = RulesDir(); err != nil {
			return nil, nil, err
		}
	}
	targets := filepath.Join(opts.Dir, "targets")
	variables := map[string]any{
		"gpuq_prometheus_port":              opts.Port,
		"gpuq_prometheus_alertmanager_port": opts.AlertmanagerPort,
		"prometheus_peers":                  []string{},
		"gpuq_site_groups":                  []string{},
		"gpuq_logs_agent":                   "promtail",
		"prometheus_rules_dir":              opts.RulesDir,
		"prometheus_targets_dir":            targets,
	}
	if opts.Interval > 0 {
		variables["gpuq_prometheus_scrape_interval"] = fmt.Sprintf("%dms", opts.Interval.Milliseconds())
	}
	config, err := render(ctx, "prometheus", "prometheus.yml.j2", variables)
	if err != nil {
		return nil, nil, err
	}
	path := filepath.Join(opts.Dir, "prometheus.yml")
	read := []string{path}
	if err := write(path, config); err != nil {
		return nil, nil, fmt.Errorf("prepare prometheus: %w", err)
	}
	for _, job := range jobs(config) {
		file := filepath.Join(targets, job+".yml")
		if err := write(file, groups(job, opts.Targets[job])); err != nil {
			return nil, nil, fmt.Errorf("prepare prometheus: %w", err)
		}
		read = append(read, file)
		delete(opts.Targets, job)
	}
	for job := range opts.Targets {
		return nil, nil, fmt.Errorf("prepare prometheus: ansible/roles/prometheus scrapes no job %q", job)
	}
	rules, err := filepath.Glob(filepath.Join(opts.RulesDir, "*.yml"))
	if err != nil {
		return nil, nil, fmt.Errorf("prepare prometheus: %w", err)
	}
	args := []string{
		"--config.file=" + path, "--web.listen-address=" + local(opts.Port),
		"--storage.tsdb.path=" + filepath.Join(opts.Dir, "data"), "--web.enable-lifecycle",
	}
	if opts.Interval > 0 {
		// A minute by default: a site's four intervals.
		args = append(args, fmt.Sprintf("--rules.alert.resend-delay=%dms", (resendIntervals*opts.Interval).Milliseconds()))
	}
	return &services.Process{
		Name: "prometheus", Path: program, Dir: opts.Dir, LogPath: filepath.Join(opts.Dir, "prometheus.log"),
		Args:  args,
		Ready: responds(opts.Port, "/-/ready"),
	}, append(read, rules...), nil
}

// resendIntervals is after how many intervals alerts that go on are sent again. Alertmanager
// takes one for over when it has not come four times as long.
const resendIntervals = 4

// jobs returns the scrape jobs that have a file of targets.
func jobs(config map[string]any) (names []string) {
	scrapes, _ := config["scrape_configs"].([]any)
	for _, s := range scrapes {
		scrape, _ := s.(map[string]any)
		name, _ := scrape["job_name"].(string)
		if scrape["file_sd_configs"] != nil && name != "" {
			names = append(names, name)
		}
	}
	return names
}

// groups writes targets as the role's targets.yml.j2 does.
func groups(job string, targets []Target) []map[string]any {
	list := []map[string]any{}
	for _, t := range targets {
		list = append(list, map[string]any{
			"targets": []string{local(t.Port)},
			"labels":  map[string]string{"__gpuq_job": job, "host": t.Host, "instance": t.Host + ":" + strconv.Itoa(t.Port)},
		})
	}
	return list
}

// NewAlertmanager writes an Alertmanager's configuration and returns its process,
// not yet started, with the files that it reads. It tells nobody of alerts: they
// are at its API.
func NewAlertmanager(ctx context.Context, dir string, port int) (*services.Process, []string, error) {
	program, err := installed("/usr/bin/prometheus-alertmanager")
	if err != nil {
		return nil, nil, err
	}
	config, err := render(ctx, "prometheus", "alertmanager.yml.j2", map[string]any{})
	if err != nil {
		return nil, nil, err
	}
	path := filepath.Join(dir, "alertmanager.yml")
	if err := write(path, config); err != nil {
		return nil, nil, fmt.Errorf("prepare alertmanager: %w", err)
	}
	return &services.Process{
		Name: "alertmanager", Path: program, Dir: dir, LogPath: filepath.Join(dir, "alertmanager.log"),
		Args: []string{
			"--config.file=" + path, "--web.listen-address=" + local(port), "--cluster.listen-address=",
			"--storage.path=" + filepath.Join(dir, "data"),
		},
		Ready: responds(port, "/-/ready"),
	}, []string{path}, nil
}

// NewNodeExporter returns a node exporter, not yet started. All of one machine
// tell the same. Files of metrics (*.prom) in dir are told, too.
func NewNodeExporter(dir string, port int) (*services.Process, error) {
	program, err := installed("/usr/bin/prometheus-node-exporter")
	if err != nil {
		return nil, err
	}
	return &services.Process{
		Name: "node_exporter", Path: program, LogPath: filepath.Join(dir, "node_exporter.log"),
		// Debian's asks systemd, which need not be there.
		Args: []string{
			"--web.listen-address=" + local(port), "--no-collector.systemd", "--collector.textfile.directory=" + dir,
			"--log.level=warn",
		},
		Ready: responds(port, "/"),
	}, nil
}

// NewRedisExporter writes the file with Redis's password and returns an exporter of
// that Redis, not yet started.
func NewRedisExporter(dir string, port int, redis, password string) (*services.Process, error) {
	program, err := installed("/usr/bin/prometheus-redis-exporter")
	if err != nil {
		return nil, err
	}
	passwords := filepath.Join(dir, "passwords.json")
	if err := write(passwords, map[string]string{"redis://" + redis: password}); err != nil {
		return nil, fmt.Errorf("prepare redis_exporter: %w", err)
	}
	return &services.Process{
		Name: "redis_exporter", Path: program, LogPath: filepath.Join(dir, "redis_exporter.log"),
		Args: []string{
			"-web.listen-address=" + local(port), "-redis.addr=redis://" + redis, "-redis.password-file=" + passwords,
		},
		Ready: responds(port, "/health"),
	}, nil
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// responds returns a check that a path of a port answers with 200.
func responds(port int, path string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		body, err := get(ctx, "http://"+local(port)+path, nil)
		if err == nil {
			err = body.Close()
		}
		return err
	}
}

// client keeps no connections: what it asks may end and come back.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
