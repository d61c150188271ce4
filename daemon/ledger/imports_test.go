package ledger

import (
	"os/exec"
	"strings"
	"testing"
)

// TestProtocolKnowsNoStore: what the protocol promises must not rest on what one
// kind of store can do, so this package reaches neither's driver.
func TestProtocolKnowsNoStore(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "gpuqd/daemon/ledger").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if len(deps) == 0 {
		t.Fatal("go list names nothing")
	}
	for _, dep := range deps {
		for _, banned := range []string{
			"gpuqd/daemon/ledger/", "go.mongodb.org/", "modernc.org/", "github.com/redis/", "github.com/rabbitmq/", "net/http",
		} {
			if strings.HasPrefix(dep, banned) {
				t.Errorf("the protocol links %s", dep)
			}
		}
		ours := strings.HasPrefix(dep, "gpuqd/")
		if ours && dep != "gpuqd/daemon/ledger" && dep != "gpuqd/daemon/job" && dep != "gpuqd/daemon/health" {
			t.Errorf("the protocol imports %s", dep)
		}
	}
}
