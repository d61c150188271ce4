package gpucheck

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gpuqd/daemon/runner/runnertest"
)

// programs is the directory of what TestMain builds: the shim, the payload as it is
// shipped, and the CUDA library of the made-up driver.
var programs string

func TestMain(m *testing.M) {
	switch driver := fakeDriver(filepath.Dir(os.Args[0])); filepath.Base(os.Args[0]) {
	case "gpuqd-device":
		driver.helper()
		return
	case "nvidia-smi":
		driver.smi(os.Args[1:])
		return
	}
	code := withPrograms(m.Run)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func withPrograms(run func() int) int {
	dir, err := os.MkdirTemp("", "gpu-check-programs-")
	if err == nil {
		defer os.RemoveAll(dir)
		programs = dir
		_, err = runnertest.BuildShim(dir)
	}
	for _, args := range [][]string{
		{"-O2", "-Wall", "-Wextra", "-Werror", "-o", filepath.Join(dir, payloadName), "payload/payload.c", "-ldl"},
		{"-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", filepath.Join(dir, "libcuda.so.1"), "testdata/libcuda.c", "-ldl"},
	} {
		if err == nil {
			var out []byte
			if out, err = exec.Command("cc", args...).CombinedOutput(); err != nil {
				err = fmt.Errorf("cc %v: %w\n%s", args, err, out)
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
}

// fakeUUIDs are the made-up driver's GPUs.
var fakeUUIDs = []string{"GPU-00112233-4455-6677-8899-aabbccddeeff", "GPU-ffeeddcc-bbaa-9988-7766-554433221100"}

// newDriver makes a driver with two GPUs up, and lies where it is told to.
func newDriver(t *testing.T, faults ...string) fakeDriver {
	t.Helper()
	f := fakeDriver(t.TempDir())
	self, err := os.Executable()
	must(t, err)
	must(t, os.Mkdir(f.path("use"), 0o755))
	must(t, os.WriteFile(f.path("devices"), []byte(strings.Join(fakeUUIDs, "\n")+"\n"), 0o600))
	for _, fault := range faults {
		must(t, os.WriteFile(f.path("fault-"+fault), nil, 0o600))
	}
	for _, name := range []string{"gpuqd-device", "nvidia-smi"} {
		must(t, os.Symlink(self, f.path(name)))
	}
	for _, name := range []string{"gpuqd-shim", payloadName, "libcuda.so.1"} {
		must(t, os.Symlink(filepath.Join(programs, name), f.path(name)))
	}
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// options are for checks on a made-up driver.
func (f fakeDriver) options(t *testing.T) Options {
	return Options{
		Dir: string(f), SMI: f.path("nvidia-smi"), Patience: time.Minute, Log: slog.New(slog.DiscardHandler),
		evidence: func() []string { return nil }, libraries: string(f), temporary: t.TempDir(),
	}
}

// run makes the checks, and sees that nothing is left of them.
func run(t *testing.T, f fakeDriver, o Options) (passed bool, verdicts string) {
	t.Helper()
	var out bytes.Buffer
	o.Out = &out
	passed, err := Run(t.Context(), o)
	if err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(o.temporary); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary directory: %v, %v", left, err)
	}
	for _, uuid := range fakeUUIDs {
		if use := f.use(uuid); len(use) > 0 {
			t.Errorf("processes %v are left", use)
		}
	}
	return passed, out.String()
}

func TestAllPassesOnDevicesThatAreWell(t *testing.T) {
	t.Parallel()
	f := newDriver(t)
	passed, verdicts := run(t, f, f.options(t))
	if !passed || strings.Contains(verdicts, "FAIL") || !strings.Contains(verdicts, "8 passed, 0 failed\n") {
		t.Errorf("passed is %v:\n%s", passed, verdicts)
	}
	t.Log("\n" + verdicts)
}

// TestEveryLieIsFound: each check can fail, and says what it saw. What never comes is
// waited for to the end of a patience that is long enough for all the rest.
func TestEveryLieIsFound(t *testing.T) {
	t.Parallel()
	for fault, want := range map[string]struct{ claim, facts string }{
		"smi-memory":        {"inventory is nvidia-smi's", "the memory in MiB is 8192, nvidia-smi says 4096"},
		"sees-all":          {"job sees its device alone", "CUDA shows it devices 2; device 00112233-"},
		"wrong-pid":         {"process left behind by a lost job is found", "is not among those on device"},
		"no-memory":         {"job's process and memory are seen", "is said to use 0"},
		"keeps-memory":      {"process left behind ends with the job", "still has"},
		"foreign-is-harmed": {"foreign process is respected and named", "was not left alone"},
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			f := newDriver(t, fault)
			o := f.options(t)
			o.only, o.Patience = want.claim, 10*time.Second
			passed, verdicts := run(t, f, o)
			found := false
			for line := range strings.Lines(verdicts) {
				found = found || strings.HasPrefix(line, "FAIL  "+want.claim+": ") && strings.Contains(line, want.facts)
			}
			if passed || !found {
				t.Errorf("passed is %v, and no line is FAIL %s with %q:\n%s", passed, want.claim, want.facts, verdicts)
			}
		})
	}
}

// A job without devices that sees some is a failure by itself, also on a host with
// one GPU.
func TestJobWithoutDevicesThatSeesOneIsFound(t *testing.T) {
	t.Parallel()
	f := newDriver(t, "sees-all")
	o := f.options(t)
	o.only = "job without devices sees none"
	must(t, os.WriteFile(f.path("devices"), []byte(fakeUUIDs[0]+"\n"), 0o600))
	if passed, verdicts := run(t, f, o); passed || !strings.Contains(verdicts, "FAIL  job without devices sees none: CUDA shows it devices 1") {
		t.Errorf("passed is %v:\n%s", passed, verdicts)
	}
}

// What cannot be started keeps no device from the checks that follow.
func TestShimThatStartsNothingFailsEachCheckByItself(t *testing.T) {
	t.Parallel()
	f := newDriver(t)
	must(t, os.Remove(f.path("gpuqd-shim")))
	must(t, os.Symlink("/bin/false", f.path("gpuqd-shim")))
	passed, verdicts := run(t, f, f.options(t))
	if passed || strings.Count(verdicts, "FAIL") != 6 || strings.Contains(verdicts, "is busy") {
		t.Errorf("passed is %v:\n%s", passed, verdicts)
	}
}

func TestHostWithoutGPUSaysSoAndPasses(t *testing.T) {
	t.Parallel()
	f := newDriver(t)
	must(t, os.WriteFile(f.path("devices"), nil, 0o600))
	passed, verdicts := run(t, f, f.options(t))
	if !passed || !strings.HasPrefix(verdicts, "There is no NVIDIA GPU here") || strings.Contains(verdicts, "PASS") {
		t.Errorf("passed is %v:\n%s", passed, verdicts)
	}
}

// A GPU that no driver tells of is no reason to call all well.
func TestGPUWithoutDriverFails(t *testing.T) {
	t.Parallel()
	f := newDriver(t)
	must(t, os.WriteFile(f.path("devices"), nil, 0o600))
	o := f.options(t)
	o.SMI, o.evidence = f.path("no-nvidia-smi"), func() []string { return []string{"0000:a0:00.0"} }
	passed, verdicts := run(t, f, o)
	if passed || !strings.Contains(verdicts, "FAIL  there is a free device: gpuqd-device finds no device") ||
		!strings.Contains(verdicts, "found: 0000:a0:00.0\n") {
		t.Errorf("passed is %v:\n%s", passed, verdicts)
	}
}

func TestPayloadSaysWhatKeepsItFromADevice(t *testing.T) {
	cmd := exec.Command(filepath.Join(programs, payloadName), "see")
	cmd.Env = []string{"LD_LIBRARY_PATH=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	if err == nil { // this machine has a driver
		return
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 && exit.ExitCode() != 1 || len(out) == 0 {
		t.Errorf("%v: %s", err, out)
	}
	for _, args := range [][]string{{}, {"hold"}, {"hold", "0", "/f"}, {"hold", "1x", "/f"}, {"see", "1"}, {"sea"}} {
		err := exec.Command(filepath.Join(programs, payloadName), args...).Run()
		if !errors.As(err, &exit) || exit.ExitCode() != 2 {
			t.Errorf("%q: %v, want exit code 2", args, err)
		}
	}
}
