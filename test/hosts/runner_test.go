package hosts

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRunnerSuitePassesForBothStarters runs the tests of daemon/runner where
// systemd is PID 1, with the shim of the package.
func TestRunnerSuitePassesForBothStarters(t *testing.T) {
	s := need(t)
	binary := filepath.Join(t.TempDir(), "runner.test")
	if err := goBuild(t.Context(), "test", "-c", "-o", binary, "gpuqd/daemon/runner"); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		on     func(*testing.T) *host
		suites []string
		env    string
		flags  string
		within time.Duration
	}{
		{
			"OnCgroupsOfThisMachine", func(*testing.T) *host { return s.gpus[2] },
			[]string{"TestProcessStarter", "TestSystemdStarter", "TestSystemdUnit"},
			"", "", 10 * time.Minute,
		},
		// Emulated, at its own pace. It is of no use afterwards but to itself: its
		// D-Bus may be restarted.
		{
			"OnCgroupV2", s.needVM,
			[]string{"TestSystemdStarter", "TestSystemdUnit", "TestSystemdGoesAway"},
			"GPUQD_TEST_PATIENCE=5m GPUQD_TEST_OWN_MACHINE=1", "-test.parallel 2", 25 * time.Minute,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := test.on(t)
			ctx, cancel := context.WithTimeout(t.Context(), test.within)
			defer cancel()
			if err := h.Push(ctx, binary, "/var/tmp/runner.test"); err != nil {
				t.Fatal(err)
			}
			r, err := h.Run(ctx, fmt.Sprintf("cd /var/tmp && %s GPUQD_TEST_SHIM=/usr/lib/gpuqd/gpuqd-shim ./runner.test -test.v -test.timeout %s %s -test.run '^(%s)$' 2>&1",
				test.env, test.within-time.Minute, test.flags, strings.Join(test.suites, "|")))
			if err != nil || r.Code != 0 {
				t.Fatalf("exit code %d, %v:\n%s", r.Code, err, r.Stdout)
			}
			for _, name := range test.suites {
				if !strings.Contains(r.Stdout, "--- PASS: "+name+" ") {
					t.Errorf("%s did not pass:\n%s", name, r.Stdout)
				}
			}
			passed := strings.Count(r.Stdout, "--- PASS: ")
			if skipped := strings.Count(r.Stdout, "--- SKIP: "); skipped > 0 {
				t.Logf("%d passed, %d skipped:\n%s", passed, skipped, r.Stdout)
			}
			t.Logf("%d tests and cases passed on %s", passed, h.role)
		})
	}
}
