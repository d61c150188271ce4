package watch

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	scaled "gpuqd/test/monitoring"
	"gpuqd/test/services/monitoring"
)

// Rules returns a directory with a site's rules and one file of a test's own, for
// cluster.Monitoring.RulesDir.
func Rules(t *testing.T, own string) string {
	t.Helper()
	theirs, err := monitoring.RulesDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(theirs)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "own.yml"), []byte(own), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// ScaledRules returns a directory with a site's rules in which all times are multiplied
// by a factor, windows down to least: see monitoring.Scale of test/monitoring.
func ScaledRules(t *testing.T, factor float64, least time.Duration) string {
	t.Helper()
	dir := Rules(t, "groups: []\n")
	edit(t, dir, func(text []byte) ([]byte, error) { return scaled.Scale(text, factor, least) })
	return dir
}

// edit changes every file of a directory of rules.
func edit(t *testing.T, dir string, change func([]byte) ([]byte, error)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil {
			text, err = change(text)
		}
		if err == nil {
			err = os.WriteFile(file, text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// waitOf is how long the condition of a rule must last.
var waitOf = regexp.MustCompile(`(?m)^(\s+for:) *\S+$`)

// QuickRules returns a directory with a site's rules, each of which fires once its
// condition has lasted for wait: a test need not wait for minutes. Nothing else is
// changed, so a rule over [10m] still looks back that far.
func QuickRules(t *testing.T, wait time.Duration) string {
	t.Helper()
	dir := Rules(t, "groups: []\n")
	edit(t, dir, func(text []byte) ([]byte, error) {
		return waitOf.ReplaceAll(text, fmt.Appendf(nil, "${1} %dms", wait.Milliseconds())), nil
	})
	return dir
}
