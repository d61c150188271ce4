package main

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"gpuqd/daemon/config"
)

// Only a service's own process counts: what a person starts in a terminal, or a
// program that is a service itself, is somewhere below one too.
func TestStartedBySystemdMeansThisProcess(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	root := os.Geteuid() == 0
	for _, c := range []struct {
		invocation, pid string
		want            bool
	}{
		{"e8f7", own, root},
		{"e8f7", "1", false},
		{"", own, false},
		{"", "", false},
	} {
		t.Setenv("INVOCATION_ID", c.invocation)
		t.Setenv("SYSTEMD_EXEC_PID", c.pid)
		if got := startedBySystemd(); got != c.want {
			t.Errorf("INVOCATION_ID=%s SYSTEMD_EXEC_PID=%s: %v", c.invocation, c.pid, got)
		}
	}
}

// The settings say afterwards what "auto" came to be.
func TestAutoIsTheProcessStarterElsewhere(t *testing.T) {
	t.Setenv("INVOCATION_ID", "")
	cfg := config.Default()
	cfg.Runner.Shim, cfg.Host.StateDir = "/bin/true", t.TempDir()
	starter, accounts, err := newStarter(t.Context(), &cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer starter.Close()
	if starter.Name() != config.StarterProcess || cfg.Runner.Starter != config.StarterProcess || accounts != nil {
		t.Errorf("got %s, %q, accounts %v", starter.Name(), cfg.Runner.Starter, accounts != nil)
	}
}

func TestSystemdStarterIsRefusedWithoutSystemd(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		t.Skip("systemd runs this machine")
	}
	cfg := config.Default()
	cfg.Runner.Shim, cfg.Host.StateDir, cfg.Runner.Starter = "/bin/true", t.TempDir(), config.StarterSystemd
	if _, _, err := newStarter(t.Context(), &cfg); err == nil || !strings.Contains(err.Error(), "runner.starter") {
		t.Errorf("got %v, want what to set", err)
	}
}
