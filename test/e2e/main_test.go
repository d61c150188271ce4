package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/job"
	"gpuqd/test/cluster"
)

// binDir holds the programs under test, built from this tree.
var binDir string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gpuq-e2e-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	for program, pkg := range map[string]string{
		"gpuqd": "gpuqd/daemon", "gpuqctl": "gpuqd/ctl", "gpuqd-shim": "gpuqd/daemon/shim",
	} {
		build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, program), pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", program, err, out)
			return 1
		}
	}
	binDir = dir
	return m.Run()
}

// TestOnSQLite and TestOnMongoDB run the same suite on a cluster of their own.
func TestOnSQLite(t *testing.T)  { suite(t, config.LedgerSQLite) }
func TestOnMongoDB(t *testing.T) { suite(t, config.LedgerMongoDB) }

// suite runs every test on one cluster, one after the other; each leaves the
// cluster whole for the next.
func suite(t *testing.T, kind string) {
	e, ran := startCluster(t, kind), 0
	for _, test := range []struct {
		claim string
		run   func(*testing.T, *env)
	}{
		{"HealthyClusterHasNothingThatFails", testDoctor},
		{"FailedAttemptIsRetriedOnTheJobsBudget", testRetry},
		{"MissingProgramFailsWithItsReason", testMissingProgram},
		{"TimeLimitLeavesNoProcessOfTheTree", testTimeLimit},
		{"WaitingJobIsKilled", testKillWaiting},
		{"RunningJobIsKilledWithItsTree", testKillRunning},
		{"HigherPriorityStartsFirst", testPriority},
		{"DeviceIsHeldByOneAttemptAtATime", testExclusiveDevices},
		{"JobRunsWhereItsConstraintsAreMet", testConstraints},
		{"DeviceIsSharedByWhatFitsIntoIt", testSharing},
		{"OverUserOfASharedDeviceIsEndedAlone", testOverUse},
		{"ExpiredJobNeverStarts", testExpires},
		{"UnusableMessagesAreRecordedAsDeadLetters", testDeadLetters},
		{"SameKeyAtOnceIsOneJobAndOneRun", testSameKey},
		{"FinishedJobPublishedAgainIsAckedAndCounted", testDuplicate},
		{"LogsFollowARunningJob", testFollowLogs},
		{"FileOfSpecsIsSubmittedInOrder", testSubmitFile},
		{"HeldJobWaitsUntilItIsReleased", testHold},
		{"DrainedHostKeepsThatAndGivesItsJobsAway", testDrainHost},
		{"DrainedDeviceAloneIsCleared", testDrainDevice},
		{"SickDeviceIsShownByNameAndTakesNoWork", testDeviceSick},
		{"ProcessOnADeviceIsShownWhileItLives", testDeviceProcess},
		{"LostDeviceIsSickUntilItIsBack", testDeviceLost},
		{"SilentDriverEndsNoJob", testDriverSilent},
		{"DriverThatIsGoneEndsNoJob", testDriverGone},
		{"FaultsAreRefusedWithAWayOut", testDeviceFaultRefused},
		{"XIDTakesOneDeviceOutAndItsJobElsewhere", testDeviceXID},
		{"XIDOfTheHostTakesAllItsDevicesOut", testHostXID},
		{"XIDOfAProgramIsInTheReasonOfItsFailure", testProgramXID},
		{"XIDThatIsANoticeIsCountedAlone", testNoticeXID},
		{"DeviceThatFailsEndsWhatRunsOnItOrDoesNot", testDeviceFails},
		{"ExitZeroOverMemoryErrorsIsNoSuccess", testQuietErrors},
		{"ProcessLeftOnADeviceIsEndedBeforeTheNextJob", testLeftOnDevice},
		{"DirtyDeviceIsOutUntilItIsClean", testDeviceDirty},
		{"ForeignProcessIsNamedAndRespected", testForeignProcess},
		{"OverUserOfASharedDeviceIsEndedAndTold", testOverUser},
		{"SetAsideIsShownBegunAnewAndForgotten", testDead},
		{"SocketsDrainAndKillWithoutBrokers", testDrainWithoutBrokers},
		{"StoppedDaemonLeavesItsJobsRunning", testGracefulStop},
		{"KilledDaemonAdoptsItsJob", testDaemonKilled},
		{"KilledShimCostsTheAttemptNotTheJob", testShimKilled},
		{"DeadHostsJobResumesOnAnother", testDeadHost},
		{"BrokerNodeKilledUnder200Jobs", testBrokerNodeKilled},
		{"RedisLostUnder200Jobs", testRedisLost},
		{"LedgerOutOfReachUnder200Jobs", testLedgerLost},
		{"RestoredLedgerRunsWhatItHoldsAgain", testRestored},
		{"RehearsedFaultsEndInAGoodVerdict", testSimulate},
		{"FeedGoesOnWhileABrokerNodeIsDown", testFeed},
		{"InterruptedFeedSaysWhereToGoOn", testFeedInterrupted},
		{"AnyAMQPClientSubmits", testAMQP},
		{"MetricsAreWhatTheirPageSays", testMetrics}, // last: it looks at what the others have moved
	} {
		chosen, whole := false, false // -run may leave a test out
		ok := t.Run(test.claim, func(t *testing.T) {
			chosen = true
			e.expectWhole(t)
			whole = true
			test.run(t, e)
		})
		if !ok {
			e.logTails(t)
		}
		if chosen {
			ran++
		}
		e.noteMetrics(test.claim, ok && chosen)
		if chosen && !whole {
			t.Fatal("the cluster does not become whole again: the tests that are left would only wait for it")
		}
	}
	if ran > 0 && !t.Failed() {
		e.expectWhole(t)
		e.expectNoCgroups(t)
	}
}

// env is a running cluster and what the tests ask of it.
type env struct {
	*cluster.Cluster
	kind    string
	metrics map[string]string // address by worker
	scraped *scraped          // what they have shown
}

// startTimeout bounds the start of a cluster on two busy cores.
const startTimeout = 4 * time.Minute

func startCluster(t *testing.T, kind string) *env {
	t.Helper()
	return startClusterWith(t, kind, func(*cluster.Options) {})
}

// startClusterWith starts one whose options change has the last word on.
func startClusterWith(t *testing.T, kind string, change func(*cluster.Options)) *env {
	t.Helper()
	e := &env{kind: kind, metrics: map[string]string{}, scraped: newScraped()}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	// A short path: Unix sockets allow 107 bytes.
	dir, err := os.MkdirTemp("", "gpuq-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Remove(dir); err != nil {
			t.Errorf("the cluster left something behind: %v", err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		expectNoProcessOf(t, dir)
	})
	opts := cluster.Options{
		Dir: dir, BinDir: binDir, Ledger: kind, Simulate: true,
		Configure: func(worker string, cfg *config.Config) {
			// Tests fail jobs by the dozen, which is what breakers are for.
			cfg.Device.BreakerFast = 0
			cfg.Simulate.Allowed = worker != rehearsalsRefusedAt
			cfg.Device.Silence = job.Duration(deviceSilence)
			configureLarge(worker, cfg)
			e.metrics[worker] = cfg.Metrics.Listen
		},
	}
	change(&opts)
	e.Cluster, err = cluster.New(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Stop(); err != nil {
			t.Errorf("stop the cluster: %v", err)
		}
	})
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return e
}
