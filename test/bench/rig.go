package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/ledger/sqlite"
	"gpuqd/test/cluster"
)

const worker = "worker_1"

// rig is the cluster that is measured, with the ways to it.
type rig struct {
	*cluster.Cluster
	o       Options
	dir     string
	address string // of /metrics
	client  *control.Client
	store   *sqlite.Store // another process's eyes on the ledger
}

// newRig starts a cluster below a directory: one daemon, whose only broker node
// leads its queues, as the floor's does. Everything else is at its default.
func newRig(ctx context.Context, o Options, dir string) (r *rig, err error) {
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	r = &rig{o: o, dir: dir}
	lease := config.Default().Lease
	r.Cluster, err = cluster.New(ctx, cluster.Options{
		Dir: filepath.Join(dir, "c"), BinDir: o.BinDir, Ledger: config.LedgerSQLite,
		Workers: 1, DevicesPerWorker: o.Devices, RabbitNodes: o.Nodes,
		LeaseTTL: lease.TTL.Std(), LeaseRenew: lease.Renew.Std(),
		Configure: func(_ string, cfg *config.Config) {
			cfg.Broker.URLs = cfg.Broker.URLs[:1]
			r.address = cfg.Metrics.Listen
			cfg.Control.Operators = []string{me.Username}
		},
	})
	if err != nil {
		return nil, err
	}
	if err := r.Start(ctx); err != nil {
		return nil, errors.Join(err, r.end())
	}
	r.client = control.NewClient(control.SocketWay(r.Socket(worker)))
	if r.store, err = sqlite.Open(ctx, sqlite.Options{Path: r.SQLitePath()}); err != nil {
		return nil, errors.Join(err, r.end())
	}
	if err := r.ready(ctx); err != nil {
		return nil, errors.Join(err, r.end())
	}
	return r, nil
}

// ready waits until the daemon takes part: it answers before that.
func (r *rig) ready(ctx context.Context) error {
	for {
		status, err := r.client.Status(ctx)
		if err == nil && status.Ready {
			return nil
		}
		if stopped := pause(ctx, 50*time.Millisecond); stopped != nil {
			return errors.Join(stopped, err)
		}
	}
}

// end ends every process and deletes the files of the cluster.
func (r *rig) end() error {
	var errs []error
	if r.client != nil {
		r.client.Close()
	}
	if r.store != nil {
		errs = append(errs, r.store.Close())
	}
	return errors.Join(append(errs, r.Stop(), cluster.Remove(r.Cluster.Dir()))...)
}

// pid returns the process of a server or daemon.
func (r *rig) pid(name string) (int, error) {
	for _, s := range r.Status() {
		if s.Name == name && s.Pid > 0 {
			return s.Pid, nil
		}
	}
	return 0, fmt.Errorf("%s does not run", name)
}

func (r *rig) scrape(ctx context.Context) (metrics, error) { return scrape(ctx, r.address) }

// spec is that of a job with one device.
func spec(command ...string) job.Spec {
	s := job.DefaultSpec()
	s.Command = command
	return s
}

// submitFile submits n jobs of a spec with gpuqctl submit -f, and returns them
// with the time that gpuqctl took.
func (r *rig) submitFile(ctx context.Context, n int, s job.Spec) ([]job.ID, time.Duration, error) {
	line, err := json.Marshal(s)
	if err != nil {
		return nil, 0, err
	}
	path := filepath.Join(r.dir, "jobs.jsonl")
	if err := os.WriteFile(path, bytes.Repeat(append(line, '\n'), n), 0o600); err != nil {
		return nil, 0, err
	}
	began := time.Now()
	result, err := r.Gpuqctl(ctx, "submit", "-f", path)
	took := time.Since(began)
	if err == nil && result.Code != 0 {
		err = fmt.Errorf("gpuqctl submit -f: exit code %d: %s", result.Code, result.Stderr)
	}
	if err != nil {
		return nil, 0, err
	}
	var ids []job.ID
	for _, word := range strings.Fields(result.Stdout) {
		ids = append(ids, job.ID(word))
	}
	if len(ids) != n {
		return nil, 0, fmt.Errorf("gpuqctl submit -f confirmed %d of %d jobs", len(ids), n)
	}
	return ids, took, nil
}

// drain keeps the host from taking work, and waits until nothing runs.
func (r *rig) drain(ctx context.Context) error {
	if _, err := r.client.Drain(ctx, control.DrainArgs{Host: worker, Reason: "a benchmark prepares its jobs"}); err != nil {
		return err
	}
	_, err := r.until(ctx, func(m metrics) bool { return m.held() == 0 })
	return err
}

func (r *rig) resume(ctx context.Context) error {
	_, err := r.client.Resume(ctx, control.ResumeArgs{Host: worker})
	return err
}

// look is how often until looks: seldom, since each look costs the daemon some of
// the time that is measured.
const look = 500 * time.Millisecond

// until returns the daemon's metrics once they meet a condition.
func (r *rig) until(ctx context.Context, met func(metrics) bool) (metrics, error) {
	for {
		m, err := r.scrape(ctx)
		if err != nil || met(m) {
			return m, err
		}
		if err := pause(ctx, look); err != nil {
			return nil, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// documents reads jobs from the ledger.
func (r *rig) documents(ctx context.Context, ids []job.ID) ([]*job.Job, error) {
	const atOnce = 500
	var list []*job.Job
	for len(ids) > 0 {
		n := min(atOnce, len(ids))
		names := make([]string, n)
		for i, id := range ids[:n] {
			names[i] = string(id)
		}
		ids = ids[n:]
		docs, err := r.store.Find(ctx, ledger.Jobs, ledger.Query{When: []ledger.Cond{{Field: "id", Op: ledger.In, Value: names}}})
		if err != nil {
			return nil, err
		}
		for _, doc := range docs {
			j := new(job.Job)
			if err := json.Unmarshal(doc, j); err != nil {
				return nil, err
			}
			list = append(list, j)
		}
	}
	return list, nil
}

// span returns how many of the jobs have succeeded, and the seconds from the first
// start to the last commit among them. One that ended otherwise is an error: it
// would be another measurement.
func span(jobs []*job.Job) (n int, seconds float64, err error) {
	var first, last time.Time
	for _, j := range jobs {
		if j.State == job.Queued {
			continue
		}
		if j.State != job.Succeeded {
			return 0, 0, fmt.Errorf("job %s is %s in attempt %d: %s", j.ID, j.State, j.Attempt, j.Reason)
		}
		if at := j.Result.StartedAt.Time; first.IsZero() || at.Before(first) {
			first = at
		}
		if at := j.History[len(j.History)-1].At.Time; at.After(last) {
			last = at
		}
		n++
	}
	return n, last.Sub(first).Seconds(), nil
}
