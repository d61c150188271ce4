package cluster

import (
	"context"
	"errors"
	"syscall"

	"gpuqd/test/cluster/supervisor"
)

func (c *Cluster) supervisor() *supervisor.Supervisor {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sup
}

// errNotStarted means that there is nothing to act on.
var errNotStarted = errors.New("the cluster is not started")

// Status returns every server and daemon.
func (c *Cluster) Status() []supervisor.Status {
	if sup := c.supervisor(); sup != nil {
		return sup.Status()
	}
	return nil
}

// StartUnit wants a server or daemon up again and waits until it answers; with a
// worker, all that is on its host.
func (c *Cluster) StartUnit(ctx context.Context, name string) error {
	for _, companion := range c.companions(name) {
		if err := c.with(func(s *supervisor.Supervisor) error { return s.Start(ctx, companion) }); err != nil {
			return err
		}
	}
	return c.with(func(s *supervisor.Supervisor) error { return s.Start(ctx, name) })
}

// KeepDown ends a server or daemon in order and keeps it down. Jobs of a worker
// run on under their shims.
func (c *Cluster) KeepDown(ctx context.Context, name string) error {
	return c.with(func(s *supervisor.Supervisor) error { return s.KeepDown(ctx, name, false) })
}

// KillAndKeepDown is KeepDown with SIGKILL.
func (c *Cluster) KillAndKeepDown(ctx context.Context, name string) error {
	return c.with(func(s *supervisor.Supervisor) error { return s.KeepDown(ctx, name, true) })
}

// Kill ends a server or daemon with SIGKILL; it is started again.
func (c *Cluster) Kill(name string) error {
	return c.with(func(s *supervisor.Supervisor) error { return s.Kill(name) })
}

// Signal sends a signal to the process group of a server or daemon. SIGSTOP and
// SIGCONT freeze and thaw it.
func (c *Cluster) Signal(name string, sig syscall.Signal) error {
	return c.with(func(s *supervisor.Supervisor) error { return s.Signal(name, sig) })
}

// KillHost makes a worker a dead host: its daemon, its shims, everything that its
// jobs started and what watches it are killed, and kept down until StartUnit.
func (c *Cluster) KillHost(ctx context.Context, worker string) error {
	err := c.KillAndKeepDown(ctx, worker)
	if err != nil {
		return err
	}
	f := finder{states: []string{c.files.state(worker)}}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	errs := []error{f.killAll(ctx)}
	for _, companion := range c.companions(worker) {
		errs = append(errs, c.KillAndKeepDown(ctx, companion))
	}
	return errors.Join(errs...)
}

func (c *Cluster) with(do func(*supervisor.Supervisor) error) error {
	sup := c.supervisor()
	if sup == nil {
		return errNotStarted
	}
	return do(sup)
}
