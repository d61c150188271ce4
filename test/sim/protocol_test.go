package sim

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gpuqd/daemon/agent"
	"gpuqd/test/history"
)

// protocol returns a part of docs/protocol.md: the lines from one that begins with
// the text to the next heading.
func protocol(t *testing.T, from string) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	first := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, from) })
	if first < 0 {
		t.Fatalf("docs/protocol.md has no line that begins with %q", from)
	}
	lines = lines[first:]
	if next := slices.IndexFunc(lines[1:], func(line string) bool { return strings.HasPrefix(line, "#") }); next >= 0 {
		lines = lines[:next+1]
	}
	return lines
}

var quoted = regexp.MustCompile("`([^`]+)`")

// names returns what stands between backticks.
func names(text string) []string {
	var list []string
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	return list
}

// rows returns the first table of the lines, without its head.
func rows(lines []string) [][]string {
	var list [][]string
	for _, line := range lines {
		if !strings.HasPrefix(line, "|") {
			if list != nil {
				break
			}
			continue
		}
		list = append(list, strings.Split(strings.Trim(line, "| "), " | "))
	}
	return list[min(2, len(list)):]
}

// sameNames reports what is on the page and not in the code, or the other way.
func sameNames[T ~string](t *testing.T, what string, onPage []string, inCode []T) {
	t.Helper()
	for _, name := range inCode {
		if !slices.Contains(onPage, string(name)) {
			t.Errorf("%s %q is not in docs/protocol.md", what, name)
		}
	}
	for i, name := range onPage {
		if !slices.Contains(inCode, T(name)) {
			t.Errorf("%s %q is in docs/protocol.md alone", what, name)
		}
		if slices.Contains(onPage[:i], name) {
			t.Errorf("%s %q is in docs/protocol.md twice", what, name)
		}
	}
}

// Each step at which a fault strikes is told, with what a crash before and after
// it leaves.
func TestEveryCrashPointIsTold(t *testing.T) {
	var told []string
	entry := ""
	end := func() {
		if entry == "" {
			return
		}
		steps, rest, _ := strings.Cut(entry, "`. ")
		told = append(told, names(steps+"`")...)
		for _, side := range []string{"*Before", "fter:*"} {
			if !strings.Contains(rest, side) {
				t.Errorf("what %s is not told in %q", side, entry)
			}
		}
		entry = ""
	}
	for _, line := range protocol(t, "### 4.7 ") {
		switch {
		case strings.HasPrefix(line, "- "):
			end()
			entry = line[2:]
		case strings.HasPrefix(line, "  "):
			entry += " " + strings.TrimSpace(line)
		default:
			end()
		}
	}
	end()
	sameNames(t, "step", told, append(slices.Clone(steps), otherSteps...))
}

func TestEveryFaultIsNamed(t *testing.T) {
	lines := protocol(t, "Faults: ")
	end := slices.Index(lines, "")
	sameNames(t, "fault", names(strings.Join(lines[:end], " ")), append(slices.Clone(everyKind), laterKinds...))
}

func TestEveryInvariantIsNamed(t *testing.T) {
	var told []string
	for _, row := range rows(protocol(t, "**Checker**")) {
		told = append(told, names(row[0])...)
	}
	sameNames(t, "invariant", told, history.Invariants)
}

// The bugs that can be planted, and the names under which TestPlantedBugsAreCaught
// wants them caught.
func TestEveryPlantedBugIsNamed(t *testing.T) {
	caught := caughtAs(t)
	var told []string
	for _, row := range rows(protocol(t, "**Planted bugs**")) {
		bug := names(row[0])[0]
		told = append(told, bug)
		sameNames(t, "catch of "+bug+":", names(row[2]), caught[bug])
	}
	sameNames(t, "bug", told, agent.Bugs)
}

// caughtAs reads caughtBy of planted_test.go, which this build may not have.
func caughtAs(t *testing.T) map[string][]string {
	t.Helper()
	values := constants(t, "../../daemon/agent/bug.go", "../history/check.go")
	named := func(e ast.Expr) string {
		selector, ok := e.(*ast.SelectorExpr)
		if !ok || values[selector.Sel.Name] == "" {
			t.Fatalf("caughtBy has an entry that is not a constant: %v", e)
		}
		return values[selector.Sel.Name]
	}
	caught := map[string][]string{}
	ast.Inspect(parse(t, "planted_test.go"), func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Names[0].Name != "caughtBy" {
			return true
		}
		for _, e := range spec.Values[0].(*ast.CompositeLit).Elts {
			pair := e.(*ast.KeyValueExpr)
			for _, invariant := range pair.Value.(*ast.CompositeLit).Elts {
				bug := named(pair.Key)
				caught[bug] = append(caught[bug], named(invariant))
			}
		}
		return false
	})
	if len(caught) == 0 {
		t.Fatal("planted_test.go has no caughtBy")
	}
	return caught
}

// constants returns the text constants of files, by name.
func constants(t *testing.T, files ...string) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, file := range files {
		ast.Inspect(parse(t, file), func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			for i, value := range spec.Values {
				if lit, isText := value.(*ast.BasicLit); isText && lit.Kind == token.STRING {
					values[spec.Names[i].Name], _ = strconv.Unquote(lit.Value)
				}
			}
			return false
		})
	}
	return values
}

func parse(t *testing.T, file string) *ast.File {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}
