package broker

import (
	"log/slog"
	"testing"
)

// testLogger writes to the test's log until the test ends.
func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}
