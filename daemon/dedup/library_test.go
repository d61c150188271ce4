package dedup

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestWhatTheClientSaysIsDebugInTheLog(t *testing.T) {
	var text bytes.Buffer
	for level, want := range map[slog.Level]string{slog.LevelInfo: "", slog.LevelDebug: `reason="sentinel: no answer from s1"`} {
		text.Reset()
		library{slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: level}))}.Printf(t.Context(), "sentinel: no answer from %s", "s1")
		if got := text.String(); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("at %s the log has %q", level, got)
		}
	}
}
