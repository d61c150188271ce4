package runner_test

import (
	"context"
	"os"
	"testing"

	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/runnertest"
	"gpuqd/daemon/runner/systemd"
)

// needSystemd skips where systemd does not run the machine, or the test is not
// root's. make e2e runs these tests on such hosts; by hand, any virtual machine does:
//
//	GPUQD_TEST_SHIM=/path/of/gpuqd-shim ./runner.test -test.run Systemd
func needSystemd(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skipf("systemd does not run this machine: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("units of the system are root's to start")
	}
}

func newSystemdStarter(t testing.TB) runner.Starter {
	t.Helper()
	needSystemd(t)
	s, err := systemd.New(context.Background(), shim)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSystemdStarter(t *testing.T) {
	needSystemd(t)
	runnertest.TestStarter(t, newSystemdStarter)
}
