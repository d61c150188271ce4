package watch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestQuickRulesAreASitesOwn(t *testing.T) {
	dir := QuickRules(t, 2*time.Second)
	text, err := os.ReadFile(filepath.Join(dir, "targets.yml"))
	if err != nil {
		t.Fatal(err)
	}
	waits := strings.Count(string(text), " for: 2000ms\n")
	if all := strings.Count(string(text), " for: "); waits == 0 || waits != all {
		t.Errorf("%d of %d rules wait for 2 s:\n%s", waits, all, text)
	}
	if !strings.Contains(string(text), "alert: HostDown") {
		t.Errorf("HostDown is missing in\n%s", text)
	}
}
