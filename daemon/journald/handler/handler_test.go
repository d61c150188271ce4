package handler_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/slogtest"
	"time"

	"gpuqd/daemon/journald"
	"gpuqd/daemon/journald/handler"
	"gpuqd/daemon/journald/journaldtest"
)

// logger returns a logger whose entries the receiver gets.
func logger(t *testing.T, level slog.Level) (*slog.Logger, *journaldtest.Receiver) {
	t.Helper()
	r := journaldtest.Listen(t, "")
	s := journald.New(r.Path, journald.Field{Name: "SYSLOG_IDENTIFIER", Value: "gpuqd"})
	t.Cleanup(s.Close)
	return slog.New(handler.New(s, level)), r
}

func TestHandler(t *testing.T) {
	t.Run("RecordIsReadableAndHasItsFields", func(t *testing.T) {
		log, r := logger(t, slog.LevelInfo)
		log.With("job_id", "j-1").Warn("attempt finished", "attempt", 2, "state_from", "running",
			"err", fmt.Errorf("commit: %w", errors.New("two\nlines")), "duration_seconds", 1.5, "reason", "")
		got := r.Next(t)
		want := map[string]string{
			"MESSAGE":           `attempt finished job_id=j-1 attempt=2 state_from=running err="commit: two\nlines" duration_seconds=1.5 reason=""`,
			"PRIORITY":          "4",
			"SYSLOG_IDENTIFIER": "gpuqd",
			"GPUQ_JOB_ID":       "j-1", "GPUQ_ATTEMPT": "2", "GPUQ_STATE_FROM": "running", "GPUQ_REASON": "",
			"GPUQ_ERR": "commit: two\nlines", "GPUQ_DURATION_SECONDS": "1.5",
		}
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s is %q, want %q", name, got[name], value)
			}
		}
		if !strings.HasSuffix(got["CODE_FILE"], "handler_test.go") || got["CODE_LINE"] == "" || !strings.Contains(got["CODE_FUNC"], "TestHandler") {
			t.Errorf("the code is at %s:%s, %s", got["CODE_FILE"], got["CODE_LINE"], got["CODE_FUNC"])
		}
	})
	t.Run("LevelsArePriorities", func(t *testing.T) {
		log, r := logger(t, slog.LevelDebug)
		for level, want := range map[slog.Level]string{
			slog.LevelDebug: "7", slog.LevelInfo: "6", slog.LevelWarn: "4", slog.LevelError: "3", slog.LevelError + 4: "3", slog.LevelDebug - 4: "",
		} {
			log.Log(t.Context(), level, "one")
			if want == "" {
				continue // below the level: nothing comes
			}
			if got := r.Next(t)["PRIORITY"]; got != want {
				t.Errorf("%s has priority %s, want %s", level, got, want)
			}
		}
	})
	t.Run("LongValueIsCutInTheLineOnly", func(t *testing.T) {
		log, r := logger(t, slog.LevelInfo)
		stack := strings.Repeat("goroutine 1\n", 1000)
		log.Error("panic", "stack", stack)
		got := r.Next(t)
		if got["GPUQ_STACK"] != stack || len(got["MESSAGE"]) > 1500 || strings.Contains(got["MESSAGE"], "\n") {
			t.Errorf("the field has %d bytes of %d, the line %d", len(got["GPUQ_STACK"]), len(stack), len(got["MESSAGE"]))
		}
	})
	t.Run("ReservedKeysAreMadeValid", func(t *testing.T) {
		log, r := logger(t, slog.LevelInfo)
		log.Info("odd", slog.Group("Über", "a-b.c", 1), "_x", time.Unix(0, 0))
		got := r.Next(t)
		if got["GPUQ__BER_A_B_C"] != "1" || got["GPUQ__X"] != "1970-01-01T00:00:00Z" {
			t.Errorf("got %v", got)
		}
	})
}

// TestHandlerIsASlogHandler holds it to the rules of log/slog, with the groups
// taken apart again.
func TestHandlerIsASlogHandler(t *testing.T) {
	var r *journaldtest.Receiver
	slogtest.Run(t, func(t *testing.T) slog.Handler {
		r = journaldtest.Listen(t, "")
		s := journald.New(r.Path)
		t.Cleanup(s.Close)
		return handler.New(s, slog.LevelDebug)
	}, func(t *testing.T) map[string]any {
		entry := r.Next(t)
		// What journald itself adds: the time of the entry.
		result := map[string]any{slog.LevelKey: entry["PRIORITY"]}
		if !strings.HasSuffix(t.Name(), "zero-time") {
			result[slog.TimeKey] = true
		}
		words := strings.Fields(entry["MESSAGE"])
		result[slog.MessageKey] = words[0]
		for _, word := range words[1:] {
			key, value, _ := strings.Cut(word, "=")
			group := result
			parts := strings.Split(key, "_")
			for _, name := range parts[:len(parts)-1] {
				if group[name] == nil {
					group[name] = map[string]any{}
				}
				group = group[name].(map[string]any)
			}
			group[parts[len(parts)-1]] = value
			if field := journald.Name("GPUQ_" + key); entry[field] != value {
				t.Errorf("%s is %q, and %q in the line", field, entry[field], value)
			}
		}
		return result
	})
}
