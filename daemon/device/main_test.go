package device

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

// within fails the test when c is not closed or written to in time.
func within(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("waited %s in vain: %s", patience, what)
	}
}

// inventory returns a report of healthy devices with the given UUIDs.
func inventory(uuids ...string) Report {
	r := Report{Version: WireVersion, Devices: []Facts{}}
	for i, uuid := range uuids {
		r.Devices = append(r.Devices, Facts{Device: Device{UUID: uuid, Index: i, Model: "test"}})
	}
	return r
}
