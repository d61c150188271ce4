package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/journald"
	"gpuqd/daemon/journald/journaldtest"
	"gpuqd/daemon/runner"
)

func forwardTo(t testing.TB) (*forwarder, *journaldtest.Receiver) {
	t.Helper()
	r := journaldtest.Listen(t, "")
	f := newForwarder(&runner.Intent{
		JobID: "j-1", Attempt: 2, Fence: 7, Queue: "q", Submitter: "alice", Devices: []string{"GPU-a", "GPU-b"}, JournalSocket: r.Path,
	})
	if f == nil {
		t.Fatal("nothing is forwarded")
	}
	return f, r
}

// messages are those of the entries that are there.
func messages(t testing.TB, r *journaldtest.Receiver) (list []string) {
	t.Helper()
	for _, e := range r.Rest(t) {
		list = append(list, e["MESSAGE"])
	}
	return list
}

func TestForwarder(t *testing.T) {
	t.Run("LineIsAnEntryWithTheAttemptsFields", func(t *testing.T) {
		f, r := forwardTo(t)
		f.take([]byte("one line\n"))
		want := journaldtest.Entry{
			"MESSAGE": "one line", "PRIORITY": "6", "SYSLOG_IDENTIFIER": "gpuqd-job", "GPUQ_JOB_ID": "j-1", "GPUQ_ATTEMPT": "2",
			"GPUQ_FENCE": "7", "GPUQ_QUEUE": "q", "GPUQ_SUBMITTER": "alice", "GPUQ_DEVICE_UUID": "GPU-b",
		}
		if got := r.Next(t); fmt.Sprint(got) != fmt.Sprint(want) || f.end() != 0 {
			t.Errorf("got %v", got)
		}
	})
	t.Run("LinesAreCutWhereTheyEnd", func(t *testing.T) {
		for text, want := range map[string][]string{
			"a\nb\n":                     {"a", "b"},
			"a\n\n\nb":                   {"a", "b"},
			"dos\r\n":                    {"dos"},
			" 10%\r 50%\r100%\nnext\r\n": {"100%", "next"},
			"bad \xff\xfe\x00 bytes\n":   {"bad \xff\xfe\x00 bytes"},
			"":                           nil,
		} {
			for _, step := range []int{1, 3, 1000} { // however it is read
				f, r := forwardTo(t)
				for rest := []byte(text); len(rest) > 0; rest = rest[min(step, len(rest)):] {
					f.take(rest[:min(step, len(rest))])
				}
				if f.end() != 0 {
					t.Errorf("%q: lines were dropped", text)
				}
				if got := messages(t, r); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
					t.Errorf("%q by %d bytes: got %q, want %q", text, step, got, want)
				}
			}
		}
	})
	t.Run("LongLineIsSentInPiecesOfWholeRunes", func(t *testing.T) {
		f, r := forwardTo(t)
		line := "x" + strings.Repeat("ü", lineBytesMax) // every bound is within a rune
		f.take([]byte(line + "\n"))
		got := messages(t, r)
		if strings.Join(got, "") != line || len(got) != 3 || strings.ToValidUTF8(got[0], "") != got[0] {
			t.Errorf("got %d pieces of %d bytes in all, want 3 of %d", len(got), len(strings.Join(got, "")), len(line))
		}
		if f.take(bytes.Repeat([]byte{0xbf}, 2*lineBytesMax)); len(f.pending) > lineBytesMax {
			t.Errorf("%d bytes are kept of a line that is no text", len(f.pending))
		}
	})
	t.Run("FullSocketCountsWhatItDidNotTake", func(t *testing.T) {
		f, r := forwardTo(t)
		began := time.Now()
		const lines = 4000
		for i := range lines {
			f.take(fmt.Appendf(nil, "line %d\n", i))
		}
		took := time.Since(began)
		dropped := f.end()
		arrived := len(messages(t, r))
		if dropped == 0 || int64(arrived)+dropped != lines {
			t.Errorf("%d of %d lines arrived, and %d are counted as dropped", arrived, lines, dropped)
		}
		t.Logf("%d of %d lines were taken, in %s", arrived, lines, took)
	})
	t.Run("BurstIsKeptUntilItIsRead", func(t *testing.T) {
		f, r := forwardTo(t)
		f.hope = time.Hour // however busy the machine is
		var text []byte
		const lines = 200
		for i := range lines {
			text = fmt.Appendf(text, "line %d\n", i)
		}
		f.take(text)
		for i := range lines {
			if got := r.Next(t)["MESSAGE"]; got != fmt.Sprintf("line %d", i) {
				t.Fatalf("line %d is %q", i, got)
			}
		}
		if dropped := f.end(); dropped != 0 {
			t.Errorf("%d lines were dropped", dropped)
		}
	})
	t.Run("BacklogIsBoundedAndTheGapComesAfterIt", func(t *testing.T) {
		f, r := forwardTo(t)
		f.hope = time.Hour
		long := strings.Repeat("x", 10_000)
		const lines = 60 // more than the socket and the backlog hold
		for i := range lines {
			f.take(fmt.Appendf(nil, "%d %s\n", i, long))
		}
		f.mu.Lock()
		kept, skipped := f.kept, f.skipped
		f.mu.Unlock()
		if kept > backlogBytesMax || skipped == 0 {
			t.Fatalf("%d bytes are kept, %d lines were dropped", kept, skipped)
		}
		for i := range lines - int(skipped) {
			if got := r.Next(t)["MESSAGE"]; !strings.HasPrefix(got, fmt.Sprint(i, " x")) {
				t.Fatalf("line %d is %.20q", i, got)
			}
		}
		if dropped := f.end(); dropped != int64(skipped) || r.Next(t)["GPUQ_MISSING"] != fmt.Sprint(skipped) {
			t.Errorf("%d lines were dropped, want %d, told of at their place", dropped, skipped)
		}
	})
	t.Run("FloodIsCountedAndNotOffered", func(t *testing.T) {
		f, r := forwardTo(t)
		f.tokens, f.filled = 2, time.Now().Add(time.Hour) // no refill meanwhile
		f.take([]byte(strings.Repeat("y\n", 10_000) + "the end"))
		f.tokens = 1
		dropped := f.end()
		if got := messages(t, r); dropped != 9998 || fmt.Sprint(got[:2]) != "[y y]" || !strings.HasPrefix(got[2], "9998 entries are missing") || got[3] != "the end" {
			t.Errorf("%d were dropped; got %q", dropped, got)
		}
	})
	t.Run("TokensComeBackWithTime", func(t *testing.T) {
		f, _ := forwardTo(t)
		f.tokens, f.filled = 0, time.Now().Add(-2*time.Second)
		if f.refill(); f.tokens < 2*linesPerSecond {
			t.Errorf("%d after two seconds", f.tokens)
		}
		f.filled = time.Now().Add(-time.Hour)
		if f.refill(); f.tokens != linesAtOnce {
			t.Errorf("%d after an hour, want %d", f.tokens, linesAtOnce)
		}
	})
	t.Run("NoJournaldIsNoForwarder", func(t *testing.T) {
		for _, socket := range []string{"", "/nonexistent/socket", "/etc/passwd"} {
			var f *forwarder
			if f = newForwarder(&runner.Intent{JournalSocket: socket}); f != nil {
				t.Errorf("%q: lines are forwarded", socket)
			}
			if f.take([]byte("a\n")); f.end() != 0 {
				t.Error("lines are counted that nobody wanted")
			}
		}
	})
}

func TestNotesGoToJournald(t *testing.T) {
	r := journaldtest.Listen(t, "")
	notesToJournal(&runner.Intent{JobID: "j-1", Attempt: 1, JournalSocket: r.Path})
	defer journalOfNotes.Store(nil)
	noteToJournal("frozen: %s", "late")
	if got := r.Next(t); got["MESSAGE"] != "frozen: late" || got["SYSLOG_IDENTIFIER"] != "gpuqd-shim" || got["GPUQ_JOB_ID"] != "j-1" {
		t.Errorf("got %v", got)
	}
}

// BenchmarkForward is what forwarding costs for each line, of a socket that takes
// none, and of a flood.
func BenchmarkForward(b *testing.B) {
	line := []byte("epoch 12 step 3400 loss 0.1234 accuracy 0.9876 lr 0.0001\n")
	for name, tokens := range map[string]int{"Full": linesAtOnce, "Flood": 0} {
		b.Run(name, func(b *testing.B) {
			f, _ := forwardTo(b)
			for f.sender.Send(journald.Append(nil, "MESSAGE", line)) {
			}
			chunk := bytes.Repeat(line, 500)
			for b.Loop() {
				f.tokens, f.filled = tokens, time.Now().Add(time.Hour)
				f.take(chunk)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/line")
		})
	}
}
