package watch

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/test/wait"
)

// testShimDrops lets a job print more than its shim offers journald: what Loki has
// and what is counted as dropped come to what was printed.
func testShimDrops(t *testing.T, s *Site) {
	const printed = 30000
	dropped := "sum(gpuqd_job_output_lines_dropped_total)"
	before, err := s.value(t, dropped)
	if err != nil {
		t.Fatal(err)
	}
	id := s.Submit(t, fmt.Sprintf("seq %d", printed))
	j := s.WaitEnd(t, id)
	if j.Result == nil || j.Result.JournalDroppedLines == 0 {
		t.Fatalf("the shim dropped nothing, so this shows nothing: %+v", j.Result)
	}
	lost := float64(j.Result.JournalDroppedLines)
	wait.For(t, patience, func() error {
		n, err := s.Loki.Count(t.Context(), countOutput(string(id)))
		if err != nil {
			return err
		}
		counted, err := s.value(t, dropped)
		if err != nil {
			return err
		}
		// The line that tells of the gap is under the same name.
		if n < printed-lost || n > printed-lost+10 || counted-before != lost {
			return fmt.Errorf("of %d lines Loki has %v; the result has %v as dropped, the metric %v more than before",
				printed, n, lost, counted-before)
		}
		return nil
	})
	t.Logf("of %d lines at once journald was not offered %v, and Loki has the others", printed, lost)
}

// floodUnit is the unit that journald takes the flood to be of, by its cgroup.
const floodUnit = "gpuq-watch-flood.service"

// journaldInterval is how long journald counts against a limit.
// Source: journald.conf(5), RateLimitIntervalSec=.
const journaldInterval = 30 * time.Second

// testJournaldDrops lets a unit log more than its RateLimitBurst: what is kept and
// what is counted as dropped come to what was sent. It takes half a minute, since
// journald tells of it after the interval only, and only when the unit logs again.
func testJournaldDrops(t *testing.T, s *Site) {
	const sent = 100000
	s.floodTwice(t, unitCgroup(t), sent)
	for _, unit := range s.Status() {
		if strings.HasPrefix(unit.Name, "journald_") && unit.Restarts > 0 {
			t.Fatalf("%s has ended: %s", unit.Name, unit.Problem)
		}
	}
	kept := fmt.Sprintf(`sum(count_over_time({host="worker_1"} | unit=%q [1h]))`, floodUnit)
	wait.For(t, 2*time.Minute, func() error {
		n, err := s.Loki.Count(t.Context(), kept)
		if err != nil {
			return err
		}
		dropped, err := s.value(t, `gpuq_journald_suppressed_lines_total{host="worker_1"}`)
		if err != nil {
			return err
		}
		if dropped == 0 || n+dropped != sent+1 {
			return fmt.Errorf("of %d lines Loki has %v, and %v are counted as dropped", sent+1, n, dropped)
		}
		t.Logf("of %d lines of one unit journald dropped %v, and Loki has the others", sent+1, dropped)
		return nil
	})
}

// floodTwice floods, and logs a line more when journald tells what it has dropped.
func (s *Site) floodTwice(t *testing.T, cgroup string, lines int) {
	t.Helper()
	s.flood(t, cgroup, lines)
	// Nothing shows that the interval is over, which began with the first line. The one
	// line before that would be dropped, too.
	time.Sleep(journaldInterval + time.Second)
	s.flood(t, cgroup, 1)
}

// unitCgroup makes the cgroup of floodUnit where journald looks for it.
func unitCgroup(t *testing.T) string {
	t.Helper()
	root := ""
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			root = dir
		}
	}
	if root == "" {
		t.Skip("this machine has no cgroup2")
	}
	slice := filepath.Join(root, "system.slice")
	dir := filepath.Join(slice, floodUnit)
	made := errors.Is(statError(slice), os.ErrNotExist)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Skipf("no cgroup can be made, which takes root: %v", err)
	}
	t.Cleanup(func() {
		err := os.Remove(dir)
		if made {
			err = errors.Join(err, os.Remove(slice))
		}
		if err != nil {
			t.Error(err)
		}
	})
	return dir
}

func statError(path string) error {
	_, err := os.Stat(path)
	return err
}

// flooder has the test program flood and do nothing else.
const flooder = "GPUQ_WATCH_FLOOD"

// flood sends lines to worker_1's journald from a process in a cgroup, which stays
// until journald has read the first: of one that is gone it does not learn the unit.
func (s *Site) flood(t *testing.T, cgroup string, lines int) {
	t.Helper()
	dir := s.JournalDir("worker_1")
	cmd := exec.Command(os.Args[0], cgroup, filepath.Join(filepath.Dir(dir), "journald", "socket"), strconv.Itoa(lines))
	cmd.Env = append(os.Environ(), flooder+"=1")
	cmd.Stderr = os.Stderr
	end, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait.For(t, patience, func() error {
		out, err := exec.Command("journalctl", "--quiet", "--no-pager", "--output=cat", "--directory="+dir,
			"_PID="+strconv.Itoa(cmd.Process.Pid), "--lines=1").CombinedOutput()
		if err != nil || len(out) == 0 {
			return fmt.Errorf("journald has no line of the flood: %v: %s", err, out)
		}
		return nil
	})
	if err := errors.Join(end.Close(), cmd.Wait()); err != nil {
		t.Fatalf("flood: %v", err)
	}
}

func TestMain(m *testing.M) {
	if os.Getenv(flooder) == "" {
		os.Exit(m.Run())
	}
	if err := runFlood(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func runFlood(cgroup, socket, lines string) error {
	n, err := strconv.Atoi(lines)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return err
	}
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		return err
	}
	for i := range n {
		// Waits while the socket is full: all of them reach journald.
		if _, err := fmt.Fprintf(conn, "MESSAGE=line %d\nPRIORITY=6\nSYSLOG_IDENTIFIER=flood\n", i); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return conn.Close()
}
