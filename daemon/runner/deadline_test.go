package runner_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gpuqd/daemon/runner"
)

func TestDeadlineIsLiveForItsOwnSessionBootAndTimeOnly(t *testing.T) {
	d := runner.Deadline{Session: "s", BootID: "b", At: time.Hour, State: runner.SessionLive}
	for _, c := range []struct {
		session, boot string
		now           time.Duration
		state         string
		live          bool
	}{
		{"s", "b", time.Hour - 1, runner.SessionLive, true},
		{"s", "b", time.Hour, runner.SessionLive, false},
		{"t", "b", 0, runner.SessionLive, false},
		{"s", "c", 0, runner.SessionLive, false},
		{"s", "b", 0, runner.SessionExpired, false},
		{"s", "b", 0, "", false},
	} {
		d.State = c.state
		if got := d.Live(c.session, c.boot, c.now); got != c.live {
			t.Errorf("%+v: live is %v", c, got)
		}
	}
	if (runner.Deadline{}).Live("", "", -1) {
		t.Error("no deadline is live")
	}
}

// TestDeadlineReadsWholeWhileWritten: readers beside a writer see one of the
// deadlines that were written, or say that they could not.
func TestDeadlineReadsWholeWhileWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.deadline")
	write := func(i int) {
		d := runner.Deadline{Session: strings.Repeat("s", i%50+1), At: time.Duration(i%50 + 1), State: runner.SessionLive}
		if err := runner.WriteDeadline(path, d); err != nil {
			t.Error(err)
		}
	}
	write(0)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			good := 0
			for {
				select {
				case <-stop:
					if good == 0 {
						t.Error("no read succeeded")
					}
					return
				default:
				}
				d, err := runner.ReadDeadline(path)
				switch {
				case errors.Is(err, runner.ErrDamaged):
				case err != nil:
					t.Error(err)
				case len(d.Session) != int(d.At):
					t.Errorf("a mixture was read: %+v", d)
				default:
					good++
				}
			}
		})
	}
	for i := range 5000 {
		write(i)
	}
	close(stop)
	readers.Wait()
}

func TestDeadlineFileTakesNoSpaceToRenew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.deadline")
	var before os.FileInfo
	for i := range 3 {
		must(t, runner.WriteDeadline(path, runner.Deadline{Session: "s", At: time.Duration(i) << 40}))
		info, err := os.Stat(path)
		must(t, err)
		if before != nil && (!os.SameFile(before, info) || before.Size() != info.Size()) {
			t.Error("a renewal made another file, or changed its size")
		}
		before = info
	}
	if _, err := runner.ReadDeadline(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestBoottimeAdvances(t *testing.T) {
	a := runner.Boottime()
	b := runner.Boottime()
	if a <= 0 || b < a {
		t.Errorf("%v then %v", a, b)
	}
}
