package docs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Every check that gpuqctl doctor can name has its section in docs/doctor.md, and
// every section is of a check.
func TestEveryCheckHasItsSection(t *testing.T) {
	var files []string
	for _, pattern := range []string{
		"daemon/agent/doctor*.go", "daemon/broker/inspect*.go", "daemon/dedup/inspect.go", "daemon/ledger/health.go",
		"daemon/ledger/*/inspect.go", "ctl/doctor*.go",
	} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v, %v", pattern, found, err)
		}
		for _, path := range found {
			if !strings.HasSuffix(path, "_test.go") {
				files = append(files, strings.TrimPrefix(path, root+"/"))
			}
		}
	}
	var checks []string
	for _, c := range readSource(t, files...).constants {
		if strings.HasPrefix(strings.ToLower(c.name), "check") && !slices.Contains(checks, c.value) {
			checks = append(checks, c.value)
		}
	}
	if len(checks) < 40 {
		t.Errorf("only %d checks were found: this test shows nothing", len(checks))
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "doctor.md"))
	if err != nil {
		t.Fatal(err)
	}
	var sections []string
	for line := range strings.Lines(string(text)) {
		heading, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "### ")
		if ok && !slices.Contains(sections, heading) {
			sections = append(sections, heading)
		}
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 125 {
			t.Errorf("a line has %d columns: %s", n, line)
		}
	}
	sameNames(t, "checks", sections, checks)
}
