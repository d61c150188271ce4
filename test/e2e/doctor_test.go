package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"gpuqd/daemon/control"
	"gpuqd/test/wait"
)

// testDoctor: a cluster that works has nothing that fails, every host has looked
// at itself, and rabbitmqctl has answered what AMQP does not tell.
func testDoctor(t *testing.T, e *env) {
	wait.For(t, jobTimeout, func() error {
		r := e.ctl(t, "doctor", "--json")
		var findings []control.Finding
		if err := json.Unmarshal([]byte(r.Stdout), &findings); err != nil {
			return fmt.Errorf("gpuqctl doctor: exit code %d, %q: %w", r.Code, r.Stderr, err)
		}
		found := map[string]control.FindingState{}
		for _, f := range findings {
			if f.State == control.FindingFail {
				return fmt.Errorf("%+v", f)
			}
			found[f.Part+" "+f.Check], found[f.Host] = f.State, control.FindingOK
		}
		if r.Code != 0 {
			return fmt.Errorf("nothing fails, and the exit code is %d: %s", r.Code, r.Stderr)
		}
		for _, want := range append([]string{
			"broker nodes", "broker queues", "broker queue leaders", "broker publishing", "broker members", "broker alarms", "broker consumer_timeout",
			"broker quorum", "redis eviction", "redis memory", "ledger identity", "ledger one ledger", "ledger compare-and-set", "clock offset",
			"host session", "host version", "host shim", "device devices",
		}, e.Workers()...) {
			if found[want] != control.FindingOK {
				return fmt.Errorf("%s is %q", want, found[want])
			}
		}
		return nil
	})
	r := e.ctl(t, "doctor")
	if r.Code != 0 || !strings.Contains(r.Stdout, "broker") || !strings.HasPrefix(r.Stdout, "PART") {
		t.Errorf("gpuqctl doctor: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}
