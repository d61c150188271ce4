package monitoring

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	promqlBlock = regexp.MustCompile("(?s)```promql\n(.*?)```")
	codeText    = regexp.MustCompile("(?s)```(?:promql)?\n(.*?)```|`([^`\n]+)`")
)

// Queries of a page are such that promtool takes them, and name what is served.
func TestQueriesOfPagesAreRight(t *testing.T) {
	all := everyMetric(t)
	var rules strings.Builder
	rules.WriteString("groups:\n  - name: pages\n    rules:\n")
	n := 0
	for _, path := range glob(t, runbooks+"/*.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range promqlBlock.FindAllStringSubmatch(string(text), -1) {
			for _, query := range strings.Split(block[1], "\n") {
				if query == "" || strings.HasPrefix(query, "#") {
					continue
				}
				n++
				fmt.Fprintf(&rules, "      - record: page:%s:%d\n        expr: |\n          %s\n",
					strings.TrimSuffix(filepath.Base(path), ".md"), n, query)
				for _, s := range Selectors(query) {
					if _, ok := all.known(s.Metric); !ok {
						t.Errorf("%s asks for %s, which nobody serves", path, s.Metric)
					}
				}
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d queries were found", n)
	}
	file := filepath.Join(t.TempDir(), "pages.yml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}

var (
	verbOfCtl = regexp.MustCompile(`Use:\s+"([a-z]+)`)
	flagOfCtl = regexp.MustCompile(`\.[A-Za-z0-9]*Var[A-Za-z0-9]*\([^"]*"([a-z-]+)"`)
	command   = regexp.MustCompile(`gpuqctl ([a-z]+)([^|;'#` + "`" + `]*)`)
	flagGiven = regexp.MustCompile(`--([a-z-]+)`)
)

// Verbs and flags of gpuqctl that pages name are in its sources.
func TestCommandsOfPagesAreThere(t *testing.T) {
	var verbs, flags []string
	for _, path := range glob(t, root+"/ctl/*.go") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range verbOfCtl.FindAllStringSubmatch(string(text), -1) {
			verbs = append(verbs, m[1])
		}
		for _, m := range flagOfCtl.FindAllStringSubmatch(string(text), -1) {
			flags = append(flags, m[1])
		}
	}
	n := 0
	for _, path := range glob(t, runbooks+"/*.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, code := range codeText.FindAllString(string(text), -1) {
			for _, m := range command.FindAllStringSubmatch(code, -1) {
				n++
				if !slices.Contains(verbs, m[1]) {
					t.Errorf("%s: gpuqctl has no verb %s", path, m[1])
				}
				for _, f := range flagGiven.FindAllStringSubmatch(m[2], -1) {
					if !slices.Contains(flags, f[1]) {
						t.Errorf("%s: no verb of gpuqctl has the flag --%s", path, f[1])
					}
				}
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d commands were found", n)
	}
}

var link = regexp.MustCompile(`\]\(([^)#]+)(?:#[^)]*)?\)`)

func TestLinksOfPagesLeadSomewhere(t *testing.T) {
	for _, path := range glob(t, runbooks+"/*.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}
