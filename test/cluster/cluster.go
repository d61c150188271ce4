package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"gpuqd/test/cluster/supervisor"
	"gpuqd/test/services"
)

// Cluster is one cluster: prepared by New, running from Start to Stop.
type Cluster struct {
	opts       Options
	files      layout
	settings   *settings
	user       string // the person's broker account
	account    string // the daemons' broker account
	rabbit     *services.RabbitCluster
	brokerURLs []string // without credentials
	ledger     ledgerServer
	shares     []share          // per worker
	monitoring *monitoringParts // nil where nothing watches the cluster

	mu       sync.Mutex
	sup      *supervisor.Supervisor // nil before Start and after Stop
	progress progress
}

// New prepares a cluster: it chooses ports at the first time, makes up
// passwords, and writes every configuration. It starts nothing, and changes
// nothing for a cluster that runs already.
func New(ctx context.Context, opts Options) (*Cluster, error) {
	opts, err := opts.complete()
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: opts, user: userName(), account: "gpuqd", progress: progress{to: opts.Progress}}
	if c.user == c.account {
		c.account += "-host"
	}
	if c.files, err = newLayout(opts.Dir); err != nil {
		return nil, err
	}
	for _, name := range []string{"gpuqd", "gpuqctl", "gpuqd-shim"} {
		if _, err := opts.program(name); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("prepare the cluster: %w", err)
	}
	// The settings come first: they mark the directory as a cluster's.
	if c.settings, err = settle(c.files, opts); err != nil {
		return nil, err
	}
	if err := c.files.make(); err != nil {
		return nil, err
	}
	if err := c.prepareMonitoring(ctx); err != nil {
		return nil, err
	}
	if err := c.prepareRabbit(ctx); err != nil {
		return nil, err
	}
	if c.ledger, err = c.prepareLedger(ctx); err != nil {
		return nil, err
	}
	return c, c.writeClientConfig()
}

// userName returns the name of the person's broker account: that of the local
// user, which gpuqctl takes too.
func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "uid-" + strconv.Itoa(os.Getuid())
}

// Start starts what does not run, adopts what an earlier supervisor left, and
// waits until everything answers. After an error the cluster is to be stopped.
func (c *Cluster) Start(ctx context.Context) error {
	runDir := ""
	if c.opts.Orphan {
		runDir = c.files.path("run")
	}
	sup, err := supervisor.New(supervisor.Options{RunDir: runDir, Log: c.opts.Log})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.sup = sup
	c.mu.Unlock()
	waves, err := c.serverUnits()
	if err != nil {
		return err
	}
	for _, wave := range waves {
		if err := c.startWave(ctx, sup, wave); err != nil {
			return err
		}
	}
	c.shares = shareOut(c.devices(ctx), c.settings.Workers)
	var workers []supervisor.Unit
	for n := 1; n <= c.settings.Workers; n++ {
		u, err := c.workerUnit(n)
		if err != nil {
			return err
		}
		workers = append(workers, u)
	}
	if err := c.startWave(ctx, sup, workers); err != nil {
		return err
	}
	_, err = sup.EndStrays()
	return err
}

func (c *Cluster) startWave(ctx context.Context, sup *supervisor.Supervisor, wave []supervisor.Unit) error {
	for _, u := range wave {
		if err := sup.Add(u); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, u := range wave {
		group.Go(func() error { return c.await(ctx, sup, u) })
	}
	return group.Wait()
}

// patience is how long a start may take before the wait for it is mentioned.
const patience = 20 * time.Second

// await waits until a unit runs, and says so.
func (c *Cluster) await(ctx context.Context, sup *supervisor.Supervisor, u supervisor.Unit) error {
	began := time.Now()
	name := u.Process.Name
	reminder := time.AfterFunc(patience, func() {
		c.progress.say(name, "is not ready after %s yet: its log is %s", patience, c.files.log(name))
	})
	defer reminder.Stop()
	if err := sup.Wait(ctx, name); err != nil {
		return err
	}
	what := c.describe(u)
	if sup.Adopted(name) {
		what += ", taken over"
	}
	c.progress.took(name, what, time.Since(began))
	return nil
}

// describe says in a few words what a unit is.
func (c *Cluster) describe(u supervisor.Unit) string {
	if n, ok := workerNumber(u.Process.Name); ok {
		return c.shares[n-1].describe(c.opts.DevicesPerWorker)
	}
	if u.Port == 0 {
		return "no port"
	}
	return "port " + strconv.Itoa(u.Port)
}

// stopTimeout bounds the wait for processes that were sent SIGKILL.
const stopTimeout = 20 * time.Second

// Stop ends every process of the cluster at once, jobs included, and returns
// when none is left. The files stay. It is idempotent.
func (c *Cluster) Stop() error {
	sup := c.supervisor()
	if sup != nil {
		sup.Close(supervisor.Abort)
	}
	return endAll(c.files, c.settings.Workers)
}

// StopInOrder ends servers and daemons with SIGTERM, the daemons first. Jobs run
// on under their shims.
func (c *Cluster) StopInOrder() {
	if sup := c.supervisor(); sup != nil {
		sup.Close(supervisor.Stop)
	}
}

// Leave ends the watch over the cluster and lets its processes run on, for the
// next Start.
func (c *Cluster) Leave() {
	if sup := c.supervisor(); sup != nil {
		sup.Close(supervisor.Leave)
	}
}

// endAll ends whatever runs of the cluster with these files.
func endAll(files layout, workers int) error {
	var states []string
	for n := 1; n <= workers; n++ {
		states = append(states, files.state(workerName(n)))
	}
	f := finder{marker: Marker(files.dir), states: states}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return f.killAll(ctx)
}

// Remove stops the cluster in a directory, whoever runs it, and deletes its
// files. Nothing there is no error.
func Remove(dir string) error {
	files, err := newLayout(dir)
	if err != nil {
		return err
	}
	if !exists(dir) {
		return files.remove()
	}
	workers := workersMax
	if s, err := loadSettings(files); err == nil {
		workers = s.Workers
	}
	sup, err := supervisor.New(supervisor.Options{RunDir: files.path("run")})
	if err == nil {
		_, err = sup.EndStrays()
		sup.Close(supervisor.Leave)
	}
	if err := errors.Join(err, endAll(files, workers)); err != nil {
		return err
	}
	return files.remove()
}
