package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gpuqd/daemon/config"
)

// running is a daemon that is told of reloads.
type running struct {
	ready bool
	cfg   config.Config
	note  string
}

func (r *running) Reload(c config.Config)   { r.cfg = c }
func (r *running) SettingsNote(text string) { r.note = text }
func (r *running) Ready() bool              { return r.ready }

// rig is a reloader on a file.
type rig struct {
	*reloader
	path   string
	daemon *running
	told   []string // what the service manager hears
	loads  int      // reloads that succeeded
	lines  strings.Builder
}

func newRig(t *testing.T, file string) *rig {
	t.Helper()
	r := &rig{path: filepath.Join(t.TempDir(), "gpuqd.toml"), daemon: &running{ready: true}}
	r.write(t, file)
	load := func() (config.Config, error) { return config.Load(r.path) }
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	r.daemon.cfg = cfg
	r.reloader = &reloader{
		load: load, cfg: cfg, level: new(slog.LevelVar), daemon: r.daemon, applied: func() { r.loads++ },
		service: service{notify: func(state string) { r.told = append(r.told, state) }},
		log:     slog.New(slog.NewTextHandler(&r.lines, nil)),
	}
	return r
}

func (r *rig) write(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(r.path, []byte("[host]\nname = \"gpu1\"\n"+file), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReloadAppliesWhatItCan(t *testing.T) {
	r := newRig(t, "")
	r.write(t, "[control]\noperators = [\"olga\"]\n[log]\nlevel = \"debug\"\n[lease]\nttl = \"2m\"\nfreeze_max = \"1h\"\n")
	r.reload()
	got := r.daemon.cfg
	if !slices.Equal(got.Control.Operators, []string{"olga"}) || r.level.Level() != slog.LevelDebug || got.Lease.FreezeMax.Std() != time.Hour {
		t.Errorf("the daemon goes on with %+v, level %s", got, r.level.Level())
	}
	if got.Lease.TTL != config.Default().Lease.TTL {
		t.Errorf("the lease of a daemon that runs is now %s", got.Lease.TTL)
	}
	if want := "restart gpuqd to apply lease.ttl"; r.daemon.note != want || !strings.Contains(r.lines.String(), want) {
		t.Errorf("it says %q and logs\n%s", r.daemon.note, r.lines.String())
	}
	if !strings.Contains(r.lines.String(), `what="lease.freeze_max, control.operators, log.level"`) || r.loads != 1 {
		t.Errorf("%d loads; it logs\n%s", r.loads, r.lines.String())
	}
	// What needs a restart does so until it has had it, or is taken back.
	r.reload()
	if r.daemon.note == "" {
		t.Error("the second reload of the same file hides that it needs a restart")
	}
	r.write(t, "")
	r.reload()
	if r.daemon.note != "" || len(r.daemon.cfg.Control.Operators) > 0 || r.level.Level() != slog.LevelInfo {
		t.Errorf("taken back: %q, %+v", r.daemon.note, r.daemon.cfg.Control)
	}
}

func TestReloadOfABadFileChangesNothing(t *testing.T) {
	r := newRig(t, "[control]\noperators = [\"olga\"]\n")
	for name, file := range map[string]string{
		"Unknown":  "[control]\noperator = [\"eve\"]\n",
		"NoTOML":   "[control\n",
		"Bounds":   "[control]\noperators = [\"eve\"]\n[lease]\nrenew = \"1ms\"\n[take]\ntick = \"0s\"\n",
		"Relation": "[control]\noperators = [\"eve\"]\n[runner]\nkeep_logs_bytes = 65536\n",
	} {
		r.write(t, file)
		r.reload()
		if !slices.Equal(r.daemon.cfg.Control.Operators, []string{"olga"}) || r.loads > 0 {
			t.Errorf("%s: operators are %q", name, r.daemon.cfg.Control.Operators)
		}
		if !strings.HasPrefix(r.daemon.note, "the configuration on disk is refused: "+r.path) || !strings.Contains(r.lines.String(), "ERROR") {
			t.Errorf("%s: it says %q", name, r.daemon.note)
		}
	}
	if err := os.Remove(r.path); err != nil {
		t.Fatal(err)
	}
	if r.reload(); r.daemon.note == "" {
		t.Error("without a file nothing is said")
	}
	r.write(t, "[control]\noperators = [\"olga\"]\n")
	if r.reload(); r.daemon.note != "" || r.loads != 1 {
		t.Errorf("mended: it says %q", r.daemon.note)
	}
}

func TestReloadTellsTheServiceManager(t *testing.T) {
	r := newRig(t, "")
	r.daemon.ready = false
	r.reload()
	if len(r.told) > 0 {
		t.Errorf("during start-up it is told %q: READY=1 would end the start", r.told)
	}
	r.daemon.ready = true
	r.reload()
	if len(r.told) != 2 || !strings.HasPrefix(r.told[0], "RELOADING=1\nMONOTONIC_USEC=") || r.told[1] != "READY=1" {
		t.Errorf("told %q", r.told)
	}
}

func TestReloadsAnswerSignalsUntilTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		ctx, end := context.WithCancel(t.Context())
		signals, done := make(chan os.Signal), make(chan error)
		go func() { done <- r.run(ctx, signals) }()
		for range 2 {
			signals <- syscall.SIGHUP
		}
		end()
		if err := <-done; err != nil || r.loads != 2 {
			t.Errorf("%d reloads, %v", r.loads, err)
		}
	})
}

func TestExitCode(t *testing.T) {
	if got := exitCode(errSettings{errors.New("x")}); got != 78 {
		t.Errorf("settings: %d", got)
	}
	if got := exitCode(errors.New("x")); got != 1 {
		t.Errorf("anything else: %d", got)
	}
	err := run(t.Context(), filepath.Join(t.TempDir(), "gpuqd.toml"), nil)
	if got := exitCode(err); got != 78 {
		t.Errorf("no file: %d, %v", got, err)
	}
}
