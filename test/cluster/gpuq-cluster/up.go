package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"gpuqd/test/cluster"
)

// up is the command that brings the cluster up and shows that it works.
type up struct {
	*place
	cluster cluster.Options // what the flags say
	example string          // directory of the example; "" runs none
	epochs  int             // of each of its jobs
	// monitoring adds what watches the cluster.
	monitoring bool
	addresses  []string // of that, for people
}

func upCommand(at *place) *cobra.Command {
	u := &up{place: at}
	cmd := &cobra.Command{
		Use: "up", Short: "Start the cluster, and run the example on it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := u.run(cmd.Context())
			if cmd.Context().Err() != nil {
				fmt.Fprintln(os.Stderr, "\nInterrupted. What was started runs on: make up goes on, make down removes it.")
			}
			return err
		},
	}
	u.flags(cmd)
	cmd.Flags().StringVar(&u.example, "example", "examples/train", `directory of the example to run; "" runs none`)
	// Few enough that the example is seen, not awaited.
	cmd.Flags().IntVar(&u.epochs, "epochs", 300, "passes over the data of each of the example's jobs")
	return cmd
}

// flags registers what makes one cluster differ from another.
func (u *up) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&u.monitoring, "monitoring", false, "watch the cluster: Prometheus, Alertmanager, Loki, Promtail; it stays so until down")
	f.StringVar(&u.cluster.Ledger, "ledger", cluster.LedgerAuto, "sqlite, mongodb, or auto: MongoDB where there is a mongod")
	f.IntVar(&u.cluster.Workers, "workers", 3, "daemons")
	f.IntVar(&u.cluster.DevicesPerWorker, "devices", 2, "simulated devices of each worker that gets no real GPU")
	f.IntVar(&u.cluster.RabbitNodes, "rabbit-nodes", 3, "nodes of the RabbitMQ cluster")
}

func (u *up) options() cluster.Options {
	opts := u.cluster
	opts.Dir, opts.BinDir, opts.RealDevices, opts.Simulate = u.dir, u.bin, true, true
	if u.monitoring {
		opts.Monitoring = &cluster.Monitoring{}
	}
	return opts
}

// args returns the flags that make another process have the same options.
func (u *up) args() []string {
	return []string{
		"--dir", u.dir, "--bin", u.bin, "--ledger", u.cluster.Ledger,
		"--workers", strconv.Itoa(u.cluster.Workers), "--devices", strconv.Itoa(u.cluster.DevicesPerWorker),
		"--rabbit-nodes", strconv.Itoa(u.cluster.RabbitNodes), "--monitoring=" + strconv.FormatBool(u.monitoring),
	}
}

func (u *up) run(ctx context.Context) error {
	began := time.Now()
	unlock, err := cluster.Lock(u.dir)
	if err != nil {
		return err
	}
	defer unlock()
	fmt.Printf("gpuqd cluster in %s\n", u.dir)
	if err := u.renew(ctx); err != nil {
		return err
	}
	reply, err := cluster.Ask(ctx, u.dir, cluster.Request{Verb: cluster.VerbUp}, func(line string) { fmt.Println(line) })
	if err != nil {
		return err
	}
	fmt.Printf("  %-14s %s\n", "ledger", reply.Ledger)
	fmt.Printf("up after %.1f s\n", time.Since(began).Seconds())
	if u.example != "" {
		if err := u.runExample(ctx); err != nil {
			return err
		}
	}
	u.sayNext()
	return nil
}

// renew makes sure that a supervisor of the present programs runs. One of older
// programs leaves; the next adopts all processes that would be the same.
func (u *up) renew(ctx context.Context) error {
	opts := u.options()
	opts.Progress = os.Stdout
	c, err := cluster.New(ctx, opts)
	if err != nil {
		return err
	}
	programs, err := cluster.Programs(u.bin)
	if err != nil {
		return err
	}
	reply, err := cluster.Ask(ctx, u.dir, cluster.Request{Verb: cluster.VerbHello}, nil)
	if c.Monitored() {
		u.addresses = []string{
			"Prometheus    " + string(c.Prometheus()),
			"Alertmanager  " + string(c.Alertmanager()),
			"Loki          " + string(c.Loki()),
		}
		if at := c.Grafana(); at != "" {
			u.addresses = append(u.addresses, "Grafana       "+at)
		}
	}
	if err == nil && reply.Programs == programs && reply.Monitored == c.Monitored() && !reply.Failed {
		return nil
	}
	if err == nil {
		if reply.Programs != programs || reply.Monitored != c.Monitored() {
			fmt.Println("  the programs or what is to run have changed: what runs is taken over, what would be other is started again")
		}
		if _, err := cluster.Ask(ctx, u.dir, cluster.Request{Verb: cluster.VerbLeave}, nil); err != nil {
			return err
		}
	} else if !errors.Is(err, cluster.ErrNoSupervisor) {
		return err
	}
	return u.launch(ctx, c.LogPath("supervisor"))
}

// launchTimeout bounds the wait for the supervisor's first answer.
const launchTimeout = 30 * time.Second

// launch starts the supervisor in the background and waits until it answers.
func (u *up) launch(ctx context.Context, logPath string) error {
	ctx, cancel := context.WithTimeout(ctx, launchTimeout)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(self, append([]string{"supervise"}, u.args()...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), cluster.Marker(u.dir))
	// A session of its own: neither Ctrl-C nor a closed terminal reaches it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	ended := make(chan error, 1) // one send, whoever listens
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := cluster.Ask(ctx, u.dir, cluster.Request{Verb: cluster.VerbHello}, nil)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ended:
			return fmt.Errorf("the supervisor ended at once: %s", lastLine(logPath))
		case <-ctx.Done():
			return fmt.Errorf("the supervisor does not answer; its log is %s: %w", logPath, err)
		}
	}
}

// lastLine returns the last line of a log.
func lastLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// sayNext tells what to type next.
func (u *up) sayNext() {
	config := filepath.Join(u.dir, "gpuqctl.toml")
	if here, err := os.Getwd(); err == nil {
		if relative, err := filepath.Rel(here, config); err == nil && filepath.IsLocal(relative) {
			config = relative
		}
	}
	fmt.Printf(`
Next:
  export GPUQCTL_CONFIG=%s
  bin/gpuqctl submit -- sh -c 'echo hello from $GPUQ_JOB_ID'
  bin/gpuqctl list
  bin/gpuqctl hosts
  bin/gpuq-cluster kill worker_2      # it is started again, its jobs run on
  bin/gpuqctl simulate                # rehearse a fault, and see its verdict
  make status                         # what runs, and where: a worker's port has its /metrics
  make down                           # stop and remove all of it
`, config)
	u.sayMonitoring()
}

// sayMonitoring tells where to look at what watches the cluster, and what to ask.
func (u *up) sayMonitoring() {
	if len(u.addresses) == 0 {
		return
	}
	prometheus, loki := strings.Fields(u.addresses[0])[1], strings.Fields(u.addresses[2])[1]
	fmt.Printf(`
Monitoring, at addresses of this machine alone:
  %s
  curl -sG %s/api/v1/query --data-urlencode 'query=up'
  curl -sG %s/api/v1/query --data-urlencode 'query=sum by (outcome) (gpuqd_attempts_total)'
  curl -sG %s/loki/api/v1/query_range --data-urlencode 'query={job="workers"}'
  curl -sG %s/loki/api/v1/query_range --data-urlencode 'query={job="workers"} | job_id="UUID"'
  bin/gpuq-cluster kill-host worker_2 # and see HostDown at %s/alerts
`, strings.Join(u.addresses, "\n  "), prometheus, prometheus, loki, loki, prometheus)
}

// superviseCommand is the process in the background.
func superviseCommand(at *place) *cobra.Command {
	u := &up{place: at}
	cmd := &cobra.Command{
		Use: "supervise", Short: "Keep the cluster running (make up starts this)", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts := u.options()
			opts.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
			return cluster.Run(cmd.Context(), opts)
		},
	}
	u.flags(cmd)
	return cmd
}
