package journald_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/journald"
	"gpuqd/test/wait"
)

// realJournald returns a sender to the host's own journald, and the ID by which
// its entries are found. These tests stop and start journald, so they run on a host
// that is there for that: build them with go test -c, and run them there with
// GPUQ_TEST_HOST=1.
func realJournald(t *testing.T) (*journald.Sender, string) {
	t.Helper()
	if os.Getenv("GPUQ_TEST_HOST") == "" {
		t.Skip("GPUQ_TEST_HOST is not set: this stops and starts the host's journald")
	}
	if !journald.Present(journald.Socket) {
		t.Skip("this host has no journald")
	}
	id := string(job.NewID())
	s := journald.New(journald.Socket, journald.Field{Name: "SYSLOG_IDENTIFIER", Value: "gpuqd-test"}, journald.Field{Name: "GPUQ_JOB_ID", Value: id})
	t.Cleanup(s.Close)
	return s, id
}

// inJournal returns the entries of an ID, as journalctl shows them.
func inJournal(t *testing.T, id string) (list []map[string]any) {
	t.Helper()
	out, err := exec.Command("journalctl", "--no-pager", "-a", "-o", "json", "GPUQ_JOB_ID="+id).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var entry map[string]any
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
			t.Fatal(err)
		}
		list = append(list, entry)
	}
	return list
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// flood sends until journald takes no more, and returns how long the longest call
// took.
func flood(s *journald.Sender) (longest time.Duration) {
	for range 20_000 {
		began := time.Now()
		s.Send(message("one of many"))
		longest = max(longest, time.Since(began))
	}
	return longest
}

// A call that waited for journald would take for ever here. What remains is a busy
// machine.
const noWait = 5 * time.Second

func TestOnTheHostsJournald(t *testing.T) {
	t.Run("FieldsArrive", func(t *testing.T) {
		s, id := realJournald(t)
		large := strings.Repeat("0123456789abcde\n", 40_000)
		for _, e := range [][]byte{
			journald.Append(journald.Append(message("plain"), "PRIORITY", journald.Warning), "GPUQ_NOTE", "two\nlines"),
			journald.Append(message("large"), "GPUQ_LARGE", large),
			message("bad \xff bytes"),
		} {
			if !s.Send(e) {
				t.Fatal("an entry was not taken")
			}
		}
		wait.Until(t, "they are in the journal", func() bool { return len(inJournal(t, id)) == 3 })
		list := inJournal(t, id)
		if list[0]["MESSAGE"] != "plain" || list[0]["PRIORITY"] != "4" || list[0]["GPUQ_NOTE"] != "two\nlines" || list[0]["SYSLOG_IDENTIFIER"] != "gpuqd-test" {
			t.Errorf("got %v", list[0])
		}
		if list[1]["GPUQ_LARGE"] != large {
			t.Errorf("the large field has another value, of %d bytes", len(fmt.Sprint(list[1]["GPUQ_LARGE"])))
		}
		if fmt.Sprint(list[2]["MESSAGE"]) != fmt.Sprint(bytesOf("bad \xff bytes")) {
			t.Errorf("bytes that are no text are %v", list[2]["MESSAGE"])
		}
	})
	t.Run("OneThatStandsStillHoldsNobodyUp", func(t *testing.T) {
		s, id := realJournald(t)
		run(t, "systemctl", "kill", "-s", "STOP", "systemd-journald")
		running := false
		goOn := func() {
			if !running {
				run(t, "systemctl", "kill", "-s", "CONT", "systemd-journald")
				running = true
			}
		}
		defer goOn()
		longest := flood(s)
		lost := s.Dropped()
		if longest > noWait || lost == 0 {
			t.Errorf("a call took %s, %d entries were dropped", longest, lost)
		}
		t.Logf("the longest of 20000 calls took %s; %d were dropped", longest, lost)
		goOn()
		untilTaken(t, s, "back")
		wait.Until(t, "the gap is told of", func() bool { return gapIn(inJournal(t, id), s) })
	})
	t.Run("OneThatIsStoppedHoldsNobodyUp", func(t *testing.T) {
		s, id := realJournald(t)
		units := []string{"systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-journald-audit.socket", "systemd-journald.service"}
		run(t, "systemctl", append([]string{"stop"}, units...)...)
		started := false
		start := func() {
			if !started {
				run(t, "systemctl", "start", units[0], units[1], units[3])
				started = true
			}
		}
		defer start()
		longest := flood(s)
		if longest > noWait || s.Dropped() == 0 {
			t.Errorf("a call took %s, %d entries were dropped", longest, s.Dropped())
		}
		t.Logf("the longest of 20000 calls took %s; %d were dropped", longest, s.Dropped())
		start()
		untilTaken(t, s, "back")
		wait.Until(t, "the gap is told of", func() bool { return gapIn(inJournal(t, id), s) })
	})
}

// gapIn reports whether the journal has the line that tells of all that was lost.
func gapIn(list []map[string]any, s *journald.Sender) bool {
	for _, e := range list {
		if e["GPUQ_MISSING"] == fmt.Sprint(s.Dropped()) {
			return true
		}
	}
	return false
}

// bytesOf is how journalctl -o json shows a value that is no text.
func bytesOf(text string) (list []any) {
	for _, b := range []byte(text) {
		list = append(list, float64(b))
	}
	return list
}
