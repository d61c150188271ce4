package runnertest

import (
	"testing"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/runner"
)

// TestStarter runs the suite. newStarter is called once per test; the suite
// closes what it returns.
func TestStarter(t *testing.T, newStarter func(testing.TB) runner.Starter) {
	t.Setenv("SECRET_OF_THE_DAEMON", "1") // see EnvironmentIsTheJobsOwn
	leak, err := unix.Dup(2)              // not close-on-exec: see CommandStartsClean
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(leak) })
	for _, group := range []struct {
		name  string
		tests map[string]func(*Bench)
	}{
		{"Ending", endingTests},
		{"Tree", treeTests},
		{"Once", onceTests},
		{"Lease", leaseTests},
		{"Output", outputTests},
		{"NUMA", numaTests},
	} {
		for name, test := range group.tests {
			t.Run(group.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				test(NewBench(t, newStarter))
			})
		}
	}
}
