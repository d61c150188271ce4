package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"gpuqd/daemon/config"
)

// reloader reads the settings again when it is told to, and applies what can be
// applied to a daemon that runs. A file with a mistake in it changes nothing.
type reloader struct {
	load    func() (config.Config, error)
	cfg     config.Config // that the daemon runs by
	level   *slog.LevelVar
	daemon  reloadable
	service service
	applied func() // after each reload that succeeded
	log     *slog.Logger
}

// reloadable is what a reload needs of the agent.
type reloadable interface {
	Reload(config.Config)
	SettingsNote(text string)
	Ready() bool
}

// run answers signals until ctx ends.
func (r *reloader) run(ctx context.Context, signals <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-signals:
			r.reload()
		}
	}
}

// reload is one of them. The service manager is told of its begin and end where
// the daemon is ready; before, READY=1 would be a lie.
func (r *reloader) reload() {
	ready := r.daemon.Ready()
	if ready {
		r.service.reloading()
	}
	note := r.apply()
	r.daemon.SettingsNote(note)
	if ready {
		r.service.ready()
	}
}

// apply returns what the status line is to say from now on.
func (r *reloader) apply() (note string) {
	next, err := r.load()
	if err != nil {
		r.log.Error("configuration is refused; the daemon goes on with the one it has", "err", err)
		return "the configuration on disk is refused: " + firstOf(err)
	}
	merged, changed, restart := r.cfg.Reloaded(next)
	r.cfg = merged
	setLevel(r.level, merged.Log.Level)
	r.daemon.Reload(merged)
	r.applied()
	r.log.Info("configuration reloaded", "what", strings.Join(changed, ", "))
	if len(restart) == 0 {
		return ""
	}
	note = "restart gpuqd to apply " + strings.Join(restart, ", ")
	r.log.Warn("part of the configuration needs a restart, which leaves running jobs running", "reason", note)
	return note
}

// firstOf returns the first of joined errors, and how many more there are.
func firstOf(err error) string {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) || len(joined.Unwrap()) < 2 {
		return err.Error()
	}
	list := joined.Unwrap()
	return fmt.Sprintf("%v (and %d more)", list[0], len(list)-1)
}
