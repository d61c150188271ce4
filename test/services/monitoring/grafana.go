package monitoring

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"gpuqd/test/services"
)

// Where Grafana's packages have the program, and what it serves.
const (
	grafanaProgram = "/usr/share/grafana/bin/grafana"
	grafanaHome    = "/usr/share/grafana"
)

// GrafanaInstalled reports whether there is a Grafana to start: neither Debian nor
// the Go module proxy has it.
func GrafanaInstalled() bool {
	_, err := os.Stat(grafanaProgram)
	return err == nil
}

// NewGrafana writes a Grafana's configuration, with a site's data sources and
// dashboards, and returns its process, not yet started, with the files that it reads.
// Whoever reaches it may look, without an account.
func NewGrafana(ctx context.Context, dir string, port, prometheusPort, lokiPort int) (*services.Process, []string, error) {
	if _, err := installed(grafanaProgram); err != nil {
		return nil, nil, err
	}
	root, err := checkout()
	if err != nil {
		return nil, nil, err
	}
	var files []string
	for kind, variables := range map[string]map[string]any{
		"datasources": {"gpuq_prometheus_port": prometheusPort, "gpuq_loki_port": lokiPort},
		"dashboards":  {"grafana_dashboards_installed": filepath.Join(root, "ansible", "roles", "grafana", "files", "dashboards")},
	} {
		config, err := render(ctx, "grafana", kind+".yml.j2", variables)
		if err != nil {
			return nil, nil, err
		}
		path := filepath.Join(dir, "provisioning", kind, "gpuq.yml")
		if err := write(path, config); err != nil {
			return nil, nil, fmt.Errorf("prepare grafana: %w", err)
		}
		files = append(files, path)
	}
	slices.Sort(files)
	return &services.Process{
		Name: "grafana", Path: grafanaProgram, Args: []string{"server", "--homepath", grafanaHome}, Dir: dir,
		LogPath: filepath.Join(dir, "grafana.log"),
		Env: []string{
			"GF_PATHS_DATA=" + filepath.Join(dir, "data"), "GF_PATHS_LOGS=" + filepath.Join(dir, "logs"),
			"GF_PATHS_PLUGINS=" + filepath.Join(dir, "plugins"), "GF_PATHS_PROVISIONING=" + filepath.Join(dir, "provisioning"),
			"GF_SERVER_HTTP_ADDR=127.0.0.1", "GF_SERVER_HTTP_PORT=" + strconv.Itoa(port),
			"GF_AUTH_ANONYMOUS_ENABLED=true", "GF_AUTH_ANONYMOUS_ORG_ROLE=Viewer",
			"GF_ANALYTICS_REPORTING_ENABLED=false", "GF_ANALYTICS_CHECK_FOR_UPDATES=false",
		},
		Ready: responds(port, "/api/health"),
	}, files, nil
}
