package systembus

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// silent is the address of a bus that hangs: its socket takes connections, and
// nobody says a word.
func silent(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bus")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return "unix:path=" + path
}

// await returns what f returns, unless that takes too long.
func await(t *testing.T, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("it waits still")
		return nil
	}
}

func TestSilentBusIsNotWaitedForWithoutEnd(t *testing.T) {
	conn, err := dbus.Dial(silent(t))
	if err != nil {
		t.Fatal(err)
	}
	err = await(t, func() error { return greet(t.Context(), conn, true, 20*time.Millisecond) })
	if err == nil || !strings.Contains(err.Error(), "no greeting") {
		t.Errorf("got %v", err)
	}
	if conn.Connected() {
		t.Error("the connection was left open")
	}
}

func TestEndOfTheContextEndsTheGreeting(t *testing.T) {
	address := silent(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := await(t, func() error {
		_, err := BusAt(ctx, address)
		return err
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
