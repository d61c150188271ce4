package journald_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"gpuqd/daemon/journald"
	"gpuqd/daemon/journald/journaldtest"
)

func message(text string) []byte { return journald.Append(nil, "MESSAGE", text) }

// untilTaken sends until an entry is taken: how long a sender pauses is its own.
func untilTaken(t *testing.T, s *journald.Sender, text string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !s.Send(message(text)); {
		if time.Now().After(deadline) {
			t.Fatalf("%q was not taken", text)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestSender(t *testing.T) {
	t.Run("EntryArrivesWithTheFixedFields", func(t *testing.T) {
		r := journaldtest.Listen(t, "")
		s := journald.New(r.Path, journald.Field{Name: "SYSLOG_IDENTIFIER", Value: "gpuqd"}, journald.Field{Name: "GPUQ_NOTE", Value: "a\nb"})
		defer s.Close()
		binary := "\xff\x00 =\n\n"
		if !s.Send(journald.Append(message("one"), "GPUQ_DATA", binary)) {
			t.Fatal("it was not taken")
		}
		got := r.Next(t)
		want := journaldtest.Entry{"SYSLOG_IDENTIFIER": "gpuqd", "GPUQ_NOTE": "a\nb", "MESSAGE": "one", "GPUQ_DATA": binary}
		if fmt.Sprint(got) != fmt.Sprint(want) || s.Dropped() != 0 {
			t.Errorf("got %q, %d dropped", got, s.Dropped())
		}
	})
	t.Run("LargeEntryArrivesAsASealedFile", func(t *testing.T) {
		r := journaldtest.Listen(t, "")
		s := journald.New(r.Path, journald.Field{Name: "SYSLOG_IDENTIFIER", Value: "gpuqd"})
		defer s.Close()
		large := strings.Repeat("0123456789\n", 500_000)
		if !s.Send(message(large)) {
			t.Fatal("it was not taken")
		}
		got := r.Next(t)
		if got["MESSAGE"] != large || got["SYSLOG_IDENTIFIER"] != "gpuqd" {
			t.Errorf("got %d bytes of %d, from %q", len(got["MESSAGE"]), len(large), got["SYSLOG_IDENTIFIER"])
		}
	})
	t.Run("FullSocketBlocksNobodyAndTheGapIsTold", func(t *testing.T) {
		r := journaldtest.Listen(t, "")
		s := journald.New(r.Path)
		defer s.Close()
		sent := 0
		for s.Send(message("before")) {
			sent++
		}
		s.Drop(41)
		if got := s.Dropped(); got != 42 {
			t.Fatalf("%d dropped, want 42", got)
		}
		// A second flood of large ones: a file in memory must not wait either.
		for range 100 {
			s.Send(message(strings.Repeat("x", 1<<20)))
		}
		if got := s.Dropped(); got != 142 {
			t.Fatalf("%d dropped, want 142", got)
		}
		if got := len(r.Rest(t)); got != sent {
			t.Errorf("%d arrived of %d that were taken", got, sent)
		}
		untilTaken(t, s, "after")
		list := r.Rest(t)
		lost := fmt.Sprint(s.Dropped())
		if len(list) != 2 || list[0]["GPUQ_MISSING"] != lost || !strings.HasPrefix(list[0]["MESSAGE"], lost+" entries are missing") ||
			list[0]["PRIORITY"] != "4" || list[1]["MESSAGE"] != "after" {
			t.Errorf("after %s were dropped came %q", lost, list)
		}
		if !s.Send(message("next")) || r.Next(t)["MESSAGE"] != "next" {
			t.Error("the gap was told twice")
		}
	})
	t.Run("SocketThatGoesAndReturnsIsUsedAgain", func(t *testing.T) {
		r := journaldtest.Listen(t, "")
		s := journald.New(r.Path)
		defer s.Close()
		for name, leave := range map[string]func(testing.TB){"vanish": r.Vanish, "refuse": r.Refuse} {
			if untilTaken(t, s, "here"); len(r.Rest(t)) == 0 {
				t.Fatal("nothing came")
			}
			leave(t)
			before := s.Dropped()
			for range 2 {
				if s.Send(message("lost")) {
					t.Fatalf("%s: an entry was taken by nobody", name)
				}
			}
			if s.Dropped() != before+2 {
				t.Fatalf("%s: %d are counted as dropped, want 2", name, s.Dropped()-before)
			}
			r.Return(t)
			untilTaken(t, s, "back")
			list := r.Rest(t)
			if len(list) != 2 || list[0]["GPUQ_MISSING"] != fmt.Sprint(s.Dropped()-before) || list[1]["MESSAGE"] != "back" {
				t.Errorf("%s: after %d were dropped came %q", name, s.Dropped()-before, list)
			}
		}
	})
	t.Run("CloseTellsOfTheLastGap", func(t *testing.T) {
		r := journaldtest.Listen(t, "")
		s := journald.New(r.Path)
		s.Drop(3)
		s.Close()
		if got := r.Next(t)["GPUQ_MISSING"]; got != "3" {
			t.Errorf("%q are missing, want 3", got)
		}
		if s.Close(); s.Send(message("late")) || s.Dropped() != 4 {
			t.Errorf("a closed sender sends")
		}
	})
	t.Run("ManyGoroutinesShareOne", func(t *testing.T) {
		r := journaldtest.Listen(t, "")
		s := journald.New(r.Path)
		defer s.Close()
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for range 200 {
					s.Send(message("one"))
				}
			})
		}
		group.Wait()
		told := uint64(0)
		for _, e := range r.Rest(t) {
			if e["MESSAGE"] == "one" {
				told++
			}
		}
		if told+s.Dropped() != 8*200 {
			t.Errorf("%d arrived, %d were dropped, of %d", told, s.Dropped(), 8*200)
		}
	})
}

func TestName(t *testing.T) {
	for text, want := range map[string]string{
		"GPUQ_job_id": "GPUQ_JOB_ID", "_HOSTNAME": "HOSTNAME", "9lives": "LIVES", "a-b.c d": "A_B_C_D", "ä": "X", "": "X",
		strings.Repeat("a", 80): strings.Repeat("A", 64),
	} {
		if got := journald.Name(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestPresent(t *testing.T) {
	r := journaldtest.Listen(t, "")
	if !journald.Present(r.Path) || journald.Present(r.Path+"x") || journald.Present("/etc/passwd") {
		t.Error("it does not tell a socket from nothing, or from a file")
	}
}

func BenchmarkSend(b *testing.B) {
	r := journaldtest.Listen(b, "")
	s := journald.New(r.Path, journald.Field{Name: "SYSLOG_IDENTIFIER", Value: "gpuqd"})
	entry := journald.Append(message("a line of a job's output, of some length"), "PRIORITY", journald.Info)
	b.Run("Taken", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if s.Send(entry); i%8 == 7 {
				b.StopTimer()
				r.Rest(b)
				b.StartTimer()
			}
		}
	})
	b.Run("Full", func(b *testing.B) {
		for s.Send(entry) {
		}
		for b.Loop() {
			s.Send(entry)
		}
	})
}
