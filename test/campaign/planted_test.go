package campaign

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gpuqd/daemon/agent"
	"gpuqd/test/cluster"
	"gpuqd/test/history"
)

// TestCampaignCatchesPlantedBugs runs real daemons that make one mistake. What a
// campaign cannot tell from a good one would not be worth its hour.
func TestCampaignCatchesPlantedBugs(t *testing.T) {
	if testing.Short() {
		t.Skip("a campaign takes a minute")
	}
	for _, c := range []struct {
		bug   agent.Bug
		class Class
		want  history.Invariant
	}{
		{agent.AckBeforeCommit, RedisKilled, history.UnjustifiedAck},
		{agent.TrustVanishedUnit, ShimKilled, history.ResultDiffers},
	} {
		t.Run(string(c.bug), func(t *testing.T) {
			r, err := campaignOf(t, buggy(t, c.bug), "--gap", "2s", "--jobs", "12", "--faults", "3", "--classes", string(c.class))
			if err == nil || r.Good() {
				t.Fatalf("exit %v, good %t: the bug was not caught", err, r.Good())
			}
			for _, problem := range r.Problems {
				if strings.HasPrefix(problem, string(c.want)+" ") {
					return
				}
			}
			t.Errorf("caught, but not as %s: %q", c.want, r.Problems)
		})
	}
}

// buggy builds a daemon that makes a mistake, and returns its directory.
func buggy(t *testing.T, bug agent.Bug) string {
	t.Helper()
	dir := t.TempDir()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	// The build takes one more file into the package, which plants the bug.
	source := filepath.Join(dir, "plant.go")
	text := "package agent\n\nfunc init() { Planted = \"" + string(bug) + "\" }\n"
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, "daemon", "agent", "plant.go"): source}})
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{source: text, filepath.Join(dir, "overlay.json"): string(overlay)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-tags", "planted",
		"-overlay", filepath.Join(dir, "overlay.json"), "-o", filepath.Join(dir, "gpuqd"), "gpuqd/daemon")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build gpuqd with the bug %s: %v\n%s", bug, err, out)
	}
	if err := cluster.Build(t.Context(), dir, "gpuqctl", "gpuqd-shim"); err != nil {
		t.Fatal(err)
	}
	return dir
}
