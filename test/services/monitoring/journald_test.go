package monitoring

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/journald"
	"gpuqd/test/wait"
)

// started starts a journald that ends with the test.
func started(t *testing.T) *Journald {
	t.Helper()
	if _, err := exec.LookPath("journalctl"); err != nil {
		t.Skip("this machine has no systemd")
	}
	dir, err := os.MkdirTemp("", "gpuq-journald-") // a test's own directory may have too long a name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	j, err := NewJournald(filepath.Join(dir, "run"), filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	start(t, j)
	t.Cleanup(func() { j.Stop(10 * time.Second) })
	return j
}

func start(t *testing.T, j *Journald) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := j.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

// expect waits until the journal has just these messages of one job.
func expect(t *testing.T, j *Journald, id, want string) {
	t.Helper()
	wait.Until(t, "the journal of "+id+" has "+want, func() bool {
		out, err := exec.Command("journalctl", "--quiet", "--no-pager", "--output=cat", "--directory="+j.Dir, "GPUQ_JOB_ID="+id).CombinedOutput()
		return err == nil && strings.Join(strings.Fields(string(out)), " ") == want
	})
}

func TestJournaldOfOnesOwn(t *testing.T) {
	j := started(t)
	send := func(id, message string) bool {
		s := journald.New(j.Socket, journald.Field{Name: "GPUQ_JOB_ID", Value: id})
		defer s.Close()
		return s.Send(journald.Append(nil, "MESSAGE", message))
	}
	t.Run("KeepsWhatItIsSent", func(t *testing.T) {
		if !send("one", "first") || !send("two", "other") {
			t.Fatal("an entry was not taken")
		}
		expect(t, j, "one", "first")
	})
	t.Run("GoesOnAfterItWasKilled", func(t *testing.T) {
		j.Kill()
		if send("one", "lost") {
			t.Error("an entry was taken while nobody was there")
		}
		start(t, j)
		if !send("one", "second") {
			t.Error("an entry was not taken by the next one")
		}
		expect(t, j, "one", "first second")
	})
	t.Run("LeavesTheHostsAlone", func(t *testing.T) {
		if j.Socket == journald.Socket || !journald.Present(j.Socket) {
			t.Errorf("it listens at %s", j.Socket)
		}
	})
}
