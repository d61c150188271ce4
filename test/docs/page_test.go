// Package docs holds docs/protocol.md to the code: every field, name, bound and
// transition that clients and readers of the ledger rely on is on the page as the
// code has it, and every example is what the code reads and writes. The steps and
// invariants of the simulation are held to it by package sim.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// root is the repository, seen from here.
const root = "../.."

// page is docs/protocol.md.
type page struct {
	text  string
	lines []string
}

func readPage(t *testing.T) page {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	return page{string(text), strings.Split(string(text), "\n")}
}

// section returns what follows a heading, up to the next one of its level.
func (p page) section(t *testing.T, heading string) page {
	t.Helper()
	from := slices.Index(p.lines, heading)
	if from < 0 {
		t.Fatalf("the page has no heading %q", heading)
	}
	level, _, _ := strings.Cut(heading, " ")
	to := from + 1
	for to < len(p.lines) {
		if l, _, ok := strings.Cut(p.lines[to], " "); ok && strings.HasPrefix(l, "#") && len(l) <= len(level) {
			break
		}
		to++
	}
	return page{strings.Join(p.lines[from:to], "\n"), p.lines[from:to]}
}

// table returns the rows of the table whose header begins with a cell.
func (p page) table(t *testing.T, first string) [][]string {
	t.Helper()
	for i, line := range p.lines {
		if !strings.HasPrefix(line, "| "+first+" |") {
			continue
		}
		var rows [][]string
		for _, row := range p.lines[i+2:] {
			if !strings.HasPrefix(row, "|") {
				break
			}
			rows = append(rows, cells(row))
		}
		return rows
	}
	t.Fatalf("the page has no table that begins with %q", first)
	return nil
}

func cells(row string) []string {
	list := strings.Split(strings.Trim(row, "| "), "|")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

// items returns the bullets of the page, each on one line.
func (p page) items() []string {
	var list []string
	open := false
	for _, line := range p.lines {
		switch {
		case strings.HasPrefix(line, "- "):
			list, open = append(list, line[2:]), true
		case open && strings.HasPrefix(line, "  "):
			list[len(list)-1] += " " + strings.TrimSpace(line)
		default:
			open = false
		}
	}
	return list
}

// prose returns the text without its fenced pieces.
func (p page) prose() string {
	var b strings.Builder
	in := false
	for _, line := range p.lines {
		if strings.HasPrefix(line, "```") {
			in = !in
		} else if !in {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// block is one fenced piece of the page.
type block struct {
	label, text string
}

func (p page) blocks() []block {
	var list []block
	in := false
	for _, line := range p.lines {
		label, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && !in:
			list, in = append(list, block{label: label}), true
		case fence:
			in = false
		case in:
			list[len(list)-1].text += line + "\n"
		}
	}
	return list
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// code returns what stands between backticks.
func code(text string) []string {
	var list []string
	for _, m := range codeSpan.FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	return list
}

// sameNames reports what is in one list and not in the other.
func sameNames(t *testing.T, what string, onPage, inCode []string) {
	t.Helper()
	for _, name := range inCode {
		if !slices.Contains(onPage, name) {
			t.Errorf("%s: %q is in the code and not on the page", what, name)
		}
	}
	for _, name := range onPage {
		if !slices.Contains(inCode, name) {
			t.Errorf("%s: %q is on the page and not in the code", what, name)
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#]+)`)

func TestLinksLeadToFiles(t *testing.T) {
	p := readPage(t)
	links := link.FindAllStringSubmatch(p.text, -1)
	if len(links) == 0 {
		t.Error("no link was found: this test shows nothing")
	}
	for _, m := range links {
		if _, err := os.Stat(filepath.Join(root, "docs", m[1])); err != nil {
			t.Errorf("a link leads nowhere: %v", err)
		}
	}
}

func TestLinesAreFolded(t *testing.T) {
	for i, line := range readPage(t).lines {
		if n := utf8.RuneCountInString(line); n > 120 {
			t.Errorf("line %d has %d columns, more than 120", i+1, n)
		}
	}
}
