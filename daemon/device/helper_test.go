package device

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gpuqd/test/scriptednvml"
	"gpuqd/test/wait"
)

// runManager runs m until the returned function, or the end of the test.
func runManager(t *testing.T, m *Manager) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := m.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	stop = func() {
		cancel()
		within(t, "the manager's end", done)
	}
	t.Cleanup(stop)
	return stop
}

// logBuffer is a log that tests can read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) count(what string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), what)
}

// scripted is a Helper whose gpuqd-device is a shell script, with the Manager
// that it feeds. The script finds itself in a directory of its own; each start
// adds its process ID to the file pids there.
type scripted struct {
	*Manager
	helper *Helper
	dir    string
	log    *logBuffer
}

func newScripted(t *testing.T, script string) *scripted {
	t.Helper()
	s := &scripted{dir: t.TempDir(), log: &logBuffer{}}
	path := filepath.Join(s.dir, "gpuqd-device")
	text := fmt.Sprintf("#!/bin/sh\ncd '%s' || exit 9\necho $$ >> pids\n%s\n", s.dir, script)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	s.helper = &Helper{
		Path:    path,
		Silence: patience, // tests of silence set less
		Restart: 5 * time.Millisecond,
		Logger:  slog.New(slog.NewTextHandler(s.log, nil)),
	}
	s.Manager = New("host-1", s.helper, nil)
	t.Cleanup(func() { s.killLeft(t) })
	return s
}

// killLeft ends the scripts that a failed test left hanging. A process that works
// in the test's own directory is one of them.
func (s *scripted) killLeft(t *testing.T) {
	for _, pid := range s.pids(t) {
		if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && dir == s.dir {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
		}
	}
}

func (s *scripted) pids(t *testing.T) []int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "pids"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var pids []int
	for _, word := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

func (s *scripted) eventuallyState(t *testing.T, uuid string, want State) Status {
	t.Helper()
	wait.Until(t, fmt.Sprintf("%s is %s", uuid, want), func() bool { return s.find(uuid).State == want })
	return s.find(uuid)
}

// Pieces of scripts. untilClosed ends when gpuqd closes standard
// input.
const (
	sayInventory = `echo '{"version":2,"devices":[{"uuid":"GPU-a","index":0,"memory_bytes":100,"memory_used_bytes":7},` +
		`{"uuid":"GPU-b","index":1,"memory_bytes":100}]}'` + "\n"
	sayHeartbeat  = `echo '{"version":2,"heartbeat":true}'` + "\n"
	sayHeartbeats = "while sleep 0.05; do\n" + sayHeartbeat + "done\n"
	untilClosed   = "while read -r word; do :; done\n"
)

func TestHelperDeliversAndEndsWithItsParent(t *testing.T) {
	s := newScripted(t, sayInventory+sayHeartbeat+untilClosed)
	stop := runManager(t, s.Manager)
	within(t, "ready", s.Ready())
	if d := s.eventuallyState(t, "GPU-a", Free); d.MemoryUsedBytes != 7 || d.MemoryBytes != 100 || d.Simulated {
		t.Errorf("got %+v", d)
	}
	pid := s.pids(t)[0]
	stop()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("helper %d is there after the stop (%v)", pid, err)
	}
}

func TestHelperSilence(t *testing.T) {
	t.Run("MakesDevicesSickUntilItSpeaks", func(t *testing.T) {
		s := newScripted(t, sayInventory+"while [ ! -e speak ]; do sleep 0.02; done\n"+sayInventory+sayHeartbeats)
		s.helper.Silence = 2 * time.Second
		runManager(t, s.Manager)
		d := s.eventuallyState(t, "GPU-a", Sick)
		if !strings.Contains(d.Reason, "has said nothing for 2s") || !strings.Contains(d.Reason, strconv.Itoa(s.pids(t)[0])) {
			t.Errorf("reason %q does not say what is silent", d.Reason)
		}
		if err := os.WriteFile(filepath.Join(s.dir, "speak"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		s.eventuallyState(t, "GPU-a", Free)
	})

	t.Run("FromTheStartIsReadyWithTheReason", func(t *testing.T) {
		s := newScripted(t, untilClosed)
		s.helper.Silence = 50 * time.Millisecond
		runManager(t, s.Manager)
		within(t, "ready", s.Ready())
		if p := s.Problem(); !strings.Contains(p, "said nothing") {
			t.Errorf("problem is %q", p)
		}
	})

	// A helper that hangs in the driver does not heed SIGTERM. It must be left
	// alone, and no second one may go into the same driver.
	t.Run("OfOneThatHangsStartsNoSecond", func(t *testing.T) {
		s := newScripted(t, "if [ -e hung ]; then\n"+sayInventory+sayHeartbeats+"fi\n"+
			"trap '' TERM\n"+sayInventory+": > hung\nexec sleep 1000")
		s.helper.Silence = 300 * time.Millisecond
		runManager(t, s.Manager)
		wait.Until(t, "the helper is asked to end", func() bool { return s.log.count("stuck") > 0 })
		time.Sleep(300 * time.Millisecond) // 60 restart pauses in which nothing must happen
		hung := s.pids(t)
		if len(hung) != 1 {
			t.Fatalf("%d helpers were started beside one that hangs", len(hung))
		}
		if err := syscall.Kill(hung[0], 0); err != nil {
			t.Fatalf("the hanging helper is gone (%v): it was sent SIGKILL", err)
		}
		if d := s.find("GPU-a"); d.State != Sick {
			t.Errorf("GPU-a is %s while the helper hangs, want sick", d.State)
		}
		if err := syscall.Kill(hung[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.eventuallyState(t, "GPU-a", Free)
	})
}

func TestHelperThatIgnoresTheStopIsLeftBehind(t *testing.T) {
	s := newScripted(t, sayInventory+"trap '' TERM\nexec sleep 1000")
	s.helper.leaveAfter = 50 * time.Millisecond
	stop := runManager(t, s.Manager)
	s.eventuallyState(t, "GPU-a", Free)
	wait.Until(t, "the script ignores SIGTERM", func() bool {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", s.pids(t)[0]))
		return err == nil && strings.TrimSpace(string(name)) == "sleep"
	})
	stop()
	if s.log.count("left behind") != 1 {
		t.Error("nothing was logged of the helper left behind")
	}
	if err := syscall.Kill(s.pids(t)[0], syscall.SIGKILL); err != nil {
		t.Errorf("the helper was not left alone: %v", err)
	}
}

func TestHelperGarbage(t *testing.T) {
	t.Run("AmongLinesIsSkippedAndLoggedOnce", func(t *testing.T) {
		s := newScripted(t, "echo NVRM: hello\necho '{\"version\":2,'\n"+sayInventory+untilClosed)
		runManager(t, s.Manager)
		s.eventuallyState(t, "GPU-b", Free)
		if n := s.log.count("a line that is none"); n != 1 {
			t.Errorf("logged %d times, want once", n)
		}
	})
	t.Run("AloneIsSilence", func(t *testing.T) {
		s := newScripted(t, sayInventory+"while echo garbage; do sleep 0.02; done")
		s.helper.Silence = 500 * time.Millisecond
		runManager(t, s.Manager)
		s.eventuallyState(t, "GPU-a", Sick)
	})
	t.Run("WithoutEndIsCutOff", func(t *testing.T) {
		s := newScripted(t, "if [ -e once ]; then\n"+sayInventory+untilClosed+"fi\n: > once\nexec cat /dev/zero")
		runManager(t, s.Manager)
		s.eventuallyState(t, "GPU-a", Free)
		if s.log.count("token too long") == 0 {
			t.Error("the log does not say that a line was too long")
		}
	})
	t.Run("OfAnotherVersionSaysSo", func(t *testing.T) {
		s := newScripted(t, `echo '{"version":99,"devices":[]}'`+"\n"+untilClosed)
		runManager(t, s.Manager)
		within(t, "ready", s.Ready())
		if p := s.Problem(); !strings.Contains(p, "same release") {
			t.Errorf("problem is %q", p)
		}
	})
}

func TestHelperThatEnds(t *testing.T) {
	t.Run("IsStartedAgainAndDevicesStayFree", func(t *testing.T) {
		s := newScripted(t, sayInventory+"echo oops >&2\nexit 1")
		runManager(t, s.Manager)
		wait.Until(t, "four starts", func() bool { return len(s.pids(t)) >= 4 })
		if d := s.find("GPU-a"); d.State != Free {
			t.Errorf("GPU-a is %s (%s), want free", d.State, d.Reason)
		}
		if s.log.count("exit status 1; it said: oops") == 0 {
			t.Error("the log does not say how it ended")
		}
	})
	t.Run("WithoutAWordIsSickAndStartedLessAndLess", func(t *testing.T) {
		s := newScripted(t, "echo no such symbol >&2\nexit 127")
		s.helper.Silence = 400 * time.Millisecond
		began := time.Now()
		runManager(t, s.Manager)
		within(t, "ready", s.Ready())
		if p := s.Problem(); !strings.Contains(p, "keeps ending (exit status 127; it said: no such symbol)") {
			t.Errorf("problem is %q", p)
		}
		starts, pause := len(s.pids(t)), s.helper.Restart
		most := 1
		for at := time.Duration(0); at < time.Since(began); most++ {
			at, pause = at+pause, 2*pause
		}
		if starts < 2 || starts > most {
			t.Errorf("%d starts in %s, want 2 to %d", starts, time.Since(began), most)
		}
		if n := s.log.count("device helper ended"); n != 1 {
			t.Errorf("the same end was logged %d times, want once", n)
		}
	})
	t.Run("WithAnErrorKeepsItAsTheReason", func(t *testing.T) {
		s := newScripted(t, `echo '{"version":2,"error":{"kind":"no_driver","message":"install it"}}'`+"\nexit 3")
		s.helper.Silence = 20 * time.Millisecond
		runManager(t, s.Manager)
		wait.Until(t, "three starts", func() bool { return len(s.pids(t)) >= 3 })
		if p := s.Problem(); p != "install it" {
			t.Errorf("problem is %q, want what the helper said", p)
		}
	})
	t.Run("MissingProgramSaysWhatToInstall", func(t *testing.T) {
		s := newScripted(t, "")
		s.helper.Path = filepath.Join(s.dir, "absent")
		runManager(t, s.Manager)
		within(t, "ready", s.Ready())
		if p := s.Problem(); !strings.Contains(p, "absent") || !strings.Contains(p, "install") {
			t.Errorf("problem is %q", p)
		}
	})
}

func TestHelperIncludesOnlyItsShare(t *testing.T) {
	s := newScripted(t, sayInventory+untilClosed)
	s.helper.Include = []string{"GPU-b", "GPU-x"}
	runManager(t, s.Manager)
	s.eventuallyState(t, "GPU-b", Free)
	if d := s.find("GPU-x"); d.State != Sick || !strings.Contains(d.Reason, "does not report it") {
		t.Errorf("the missing one is %+v, want sick", d)
	}
	if n := len(s.Snapshot()); n != 2 {
		t.Errorf("%d devices, want 2", n)
	}
}

// One that was there is lost when the driver does not report it any more, which ends
// what runs on it; one that never was is a mistake of the configuration.
func TestIncludedDeviceThatGoesIsLost(t *testing.T) {
	f := &follower{include: []string{"GPU-a", "GPU-x"}, reported: map[string]bool{}}
	for _, c := range []struct {
		there []Facts
		lost  [2]bool
	}{
		{[]Facts{{Device: Device{UUID: "GPU-a"}}}, [2]bool{false, false}},
		{nil, [2]bool{true, false}},
		{nil, [2]bool{true, false}},
		{[]Facts{{Device: Device{UUID: "GPU-a"}}}, [2]bool{false, false}},
	} {
		got := f.filter(c.there)
		if len(got) != 2 || got[0].Lost != c.lost[0] || got[1].Lost != c.lost[1] || got[1].Sick == "" {
			t.Errorf("of %+v: %+v", c.there, got)
		}
	}
}

// TestRealHelper runs gpuqd-device itself. Where there is no driver it must say
// so; where there is one, both ways to ask must agree.
func TestRealHelper(t *testing.T) {
	path := scriptednvml.BuildHelper(t)
	out, err := exec.Command(path, "--once").Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != ExitNoDriver) {
		t.Fatalf("gpuqd-device --once: %v", err)
	}
	once, parseErr := ParseLine(bytes.TrimSpace(out))
	if parseErr != nil {
		t.Fatal(parseErr)
	}

	log := &logBuffer{}
	h := &Helper{
		Path: path, Interval: 50 * time.Millisecond, Restart: 5 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	}
	m := New("host-1", h, nil)
	runManager(t, m)
	within(t, "ready", m.Ready())
	if once.Error != nil {
		if err == nil || m.Problem() != once.Error.Message || len(m.Snapshot()) != 0 {
			t.Errorf("exit %v, problem %q, devices %v; want the error %q and none", err, m.Problem(), m.Snapshot(), once.Error.Message)
		}
		wait.Until(t, "its end is logged", func() bool { return log.count("exit status 3") > 0 })
		return
	}
	var shown []Device
	for _, s := range m.Snapshot() {
		shown = append(shown, s.Device)
	}
	var said []Device
	for _, f := range once.Devices {
		said = append(said, f.Device)
	}
	if !reflect.DeepEqual(shown, said) {
		a, _ := json.Marshal(shown)
		b, _ := json.Marshal(said)
		t.Errorf("the manager shows %s, --once says %s", a, b)
	}
}
