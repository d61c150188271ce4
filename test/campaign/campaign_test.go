package campaign

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// briefTimeout bounds a brief campaign on two busy cores.
const briefTimeout = 12 * time.Minute

// brief are the classes that are over soon: one fault of each.
var brief = []Class{
	DaemonKilled, ShimKilled, TreeKilled, HostKilled, BrokerKilled, BrokerFrozen, RedisKilled, LedgerLost, DiskAlarm, DiskFull,
}

// campaignOf runs gpuq-campaign with a seed of the moment and returns its result
// with what it said. The error is how it exited.
func campaignOf(t *testing.T, bin string, args ...string) (*Result, error) {
	t.Helper()
	program, dir := program(t), t.TempDir()
	result := filepath.Join(dir, "result.json")
	seed := strconv.FormatInt(time.Now().UnixNano(), 10)
	ctx, cancel := context.WithTimeout(t.Context(), briefTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{
		"run", "--brief", "--seed", seed, "--bin", bin, "--result", result, "--evidence", filepath.Join(dir, "evidence"),
	}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // so that it can clean up
	cmd.WaitDelay = time.Minute
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	t.Logf("seed %s\n%s", seed, out.String())
	if stories, readErr := os.ReadFile(filepath.Join(dir, "evidence", "violations.txt")); readErr == nil {
		t.Logf("%s", stories)
	}
	expectNothingLeft(t)
	r, loadErr := Load(result)
	if loadErr != nil {
		t.Fatal(errors.Join(err, loadErr))
	}
	return r, err
}

// TestBriefCampaignKeepsEveryPromise breaks a cluster in ten ways, another seed
// each time, under forty jobs. The full one is `make campaign`.
func TestBriefCampaignKeepsEveryPromise(t *testing.T) {
	if testing.Short() {
		t.Skip("a campaign takes minutes")
	}
	var classes []string
	for _, class := range brief {
		if class != DiskFull || os.Getuid() == 0 { // a disk is mounted for it
			classes = append(classes, string(class))
		}
	}
	program(t)
	r, err := campaignOf(t, binDir, "--gap", "6s", "--jobs", "40",
		"--faults", strconv.Itoa(len(classes)), "--classes", strings.Join(classes, ","))
	if err != nil || !r.Good() || r.Done() != len(classes) || r.Jobs.Confirmed != 40 || r.Jobs.Executions < 40-r.Jobs.States["killed"] {
		t.Errorf("%v: %d faults done, %d jobs confirmed, %d executions, problems %q", err, r.Done(), r.Jobs.Confirmed, r.Jobs.Executions, r.Problems)
	}
}

// expectNothingLeft checks that no campaign of this test runs on.
func expectNothingLeft(t *testing.T) {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		args, err := os.ReadFile(path)
		if err == nil && bytes.Contains(args, []byte(binDir)) {
			t.Errorf("left behind: %s", bytes.ReplaceAll(args, []byte{0}, []byte{' '}))
		}
	}
}

func TestKilledHolderOfTheLedgerLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	held, err := holdFor(t.Context(), program(t), path, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if time.Since(held) < 200*time.Millisecond {
		t.Error("it was not held for as long as it was to be")
	}
	left, err := leftOfHold(t.Context(), path)
	if err != nil || left != "" {
		t.Errorf("it left %q, %v", left, err)
	}
}
