package monitoring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"gpuqd/test/services"
)

// Built are the programs that Debian does not have, and that are built from their
// sources.
type Built struct{ Loki, Promtail string }

// FindBuilt returns Loki and Promtail, which packaging/thirdparty/build.sh has
// built, into a cache of this user's. It builds nothing.
func FindBuilt(ctx context.Context) (Built, error) {
	root, err := checkout()
	if err != nil {
		return Built{}, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(root, "packaging", "thirdparty", "build.sh"), "--check", "--programs", "loki", "promtail")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return Built{}, fmt.Errorf("find Loki and Promtail: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	paths := strings.Fields(stdout.String())
	if len(paths) != 2 {
		return Built{}, fmt.Errorf("find Loki and Promtail: build.sh says %q", stdout.String())
	}
	return Built{Loki: paths[0], Promtail: paths[1]}, nil
}

// NewLoki writes a Loki's configuration and returns its process, not yet started,
// with the files that it reads. The second port is for itself.
func (b Built) NewLoki(ctx context.Context, dir string, port, grpcPort int) (*services.Process, []string, error) {
	config, err := render(ctx, "loki", "loki.yml.j2", map[string]any{
		"gpuq_loki_listen_address": "127.0.0.1", "gpuq_loki_port": port, "gpuq_loki_data_dir": filepath.Join(dir, "data"),
	})
	if err != nil {
		return nil, nil, err
	}
	lay(config, map[string]any{"server": map[string]any{"grpc_listen_port": grpcPort}})
	path := filepath.Join(dir, "loki.yml")
	if err := write(path, config); err != nil {
		return nil, nil, fmt.Errorf("prepare loki: %w", err)
	}
	return &services.Process{
		Name: "loki", Path: b.Loki, Args: []string{"-config.file=" + path}, Dir: dir,
		LogPath: filepath.Join(dir, "loki.log"), Ready: responds(port, "/ready"),
	}, []string{path}, nil
}

// PromtailOptions say what a Promtail reads, and where to it ships that.
type PromtailOptions struct {
	Dir        string // of its files
	Port       int
	JournalDir string // of the journal's files; "" is the host's own
	Job, Host  string // labels
	LokiPort   int
}

// NewPromtail writes a Promtail's configuration and returns its process, not yet
// started, with the files that it reads.
func (b Built) NewPromtail(ctx context.Context, opts PromtailOptions) (*services.Process, []string, error) {
	config, err := render(ctx, "logs,promtail", "gpuq.yml.j2", map[string]any{
		"gpuq_logs_listen_address": "127.0.0.1", "gpuq_logs_listen_port": opts.Port,
		"gpuq_logs_job": opts.Job, "gpuq_logs_host": opts.Host,
		"gpuq_logs_urls": []string{"http://" + local(opts.LokiPort) + "/loki/api/v1/push"}, "gpuq_logs_retries": 0,
	})
	if err != nil {
		return nil, nil, err
	}
	lay(config, map[string]any{"positions": map[string]any{"filename": filepath.Join(opts.Dir, "positions.yml")}})
	scrapes, _ := config["scrape_configs"].([]any)
	if len(scrapes) != 1 {
		return nil, nil, fmt.Errorf("prepare promtail: %d scrape_configs in the role's template, want the one of the journal", len(scrapes))
	}
	scrape, _ := scrapes[0].(map[string]any)
	lay(scrape, map[string]any{"journal": map[string]any{"path": opts.JournalDir}})
	path := filepath.Join(opts.Dir, "promtail.yml")
	if err := write(path, config); err != nil {
		return nil, nil, fmt.Errorf("prepare promtail: %w", err)
	}
	return &services.Process{
		Name: "promtail", Path: b.Promtail, Args: []string{"-config.file=" + path}, Dir: opts.Dir,
		LogPath: filepath.Join(opts.Dir, "promtail.log"), Ready: responds(opts.Port, "/ready"),
	}, []string{path}, nil
}

// Journald is a journald of its own.
type Journald struct {
	*services.Process
	Socket string // where it takes entries
	Dir    string // where it keeps them: journalctl --directory=Dir
}

// journaldPath is where systemd has it on every distribution.
const journaldPath = "/lib/systemd/systemd-journald"

// NewJournald returns a journald, not yet started, with its sockets in one
// directory and its files in another.
func NewJournald(sockets, files string) (*Journald, error) {
	program, err := installed(journaldPath)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{sockets, files} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("prepare journald: %w", err)
		}
	}
	args := []string{"gpuq"} // the namespace, in _NAMESPACE
	if os.Geteuid() == 0 {
		// It would open the kernel's audit log, and can without these.
		args = append([]string{"--bounding-set", "-all", "--inh-caps", "-all", program}, args...)
		if program, err = exec.LookPath("setpriv"); err != nil {
			return nil, errors.New("setpriv is not installed: apt-get install util-linux")
		}
	}
	j := &Journald{Socket: filepath.Join(sockets, "socket"), Dir: files}
	j.Process = &services.Process{
		Name: "journald", Path: program, Args: args, LogPath: filepath.Join(files, "journald.log"),
		Env: []string{"RUNTIME_DIRECTORY=" + sockets, "LOGS_DIRECTORY=" + files, "NOTIFY_SOCKET=", "LISTEN_FDS=", "WATCHDOG_USEC="},
		Ready: func(context.Context) error {
			// Nobody listens at the socket that another one has left.
			conn, err := net.Dial("unixgram", j.Socket)
			if err == nil {
				err = conn.Close()
			}
			return err
		},
	}
	return j, nil
}
