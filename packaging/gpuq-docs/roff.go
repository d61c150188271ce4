package main

import (
	"fmt"
	"regexp"
	"strings"
)

// page is one manual page in the making, in the macros of man(7).
type page struct{ b strings.Builder }

// newPage begins the page name(section), such as gpuqd(8).
func newPage(name, section string, b build) *page {
	p := &page{}
	fmt.Fprintf(&p.b, ".TH %q %q %q %q %q\n", strings.ToUpper(name), section, b.date.Format("2006-01-02"), "gpuqd "+b.version, "gpuqd")
	return p
}

func (p *page) macro(name string, args ...string) {
	p.b.WriteString("." + name)
	for _, arg := range args {
		p.b.WriteString(` "` + escape(arg) + `"`)
	}
	p.b.WriteByte('\n')
}

// name is the line by which man -k finds the page.
func (p *page) name(name, summary string) {
	p.macro("SH", "NAME")
	p.b.WriteString(escape(name) + ` \- ` + escape(lowerFirst(summary)) + "\n")
}

// text fills prose into lines; what was broken in the source is not here.
func (p *page) text(prose string) { p.lines(emphasize(escape(prose))) }

// lines breaks escaped text so that no source line is long, and none begins with
// what roff takes for a request.
func (p *page) lines(escaped string) {
	for _, line := range wrap(escaped, 76) {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			line = `\&` + line
		}
		p.b.WriteString(line + "\n")
	}
}

// verbatim keeps lines as they are, less the indentation that all share.
func (p *page) verbatim(lines []string) {
	indent := len(lines[0])
	for _, line := range lines {
		if line != "" {
			indent = min(indent, len(line)-len(strings.TrimLeft(line, " ")))
		}
	}
	p.macro("RS", "4")
	p.macro("EX")
	for _, line := range lines {
		line = strings.ReplaceAll(escape(line[min(indent, len(line)):]), "'", `\(aq`)
		if strings.HasPrefix(line, ".") || line == "" {
			line = `\&` + line
		}
		p.b.WriteString(line + "\n")
	}
	p.macro("EE")
	p.macro("RE")
}

// item is a tagged paragraph; the tag is escaped already.
func (p *page) item(tag, prose string) {
	p.macro("TP")
	p.b.WriteString(tag + "\n")
	p.text(prose)
}

// seeAlso refers to other pages, each as name(section).
func (p *page) seeAlso(pages ...string) {
	p.macro("SH", "SEE ALSO")
	for i, ref := range pages {
		name, section, _ := strings.Cut(ref, "(")
		comma := ","
		if i == len(pages)-1 {
			comma = ""
		}
		fmt.Fprintf(&p.b, ".BR %s (%s%s\n", strings.ReplaceAll(name, "-", `\-`), section, comma)
	}
}

func (p *page) String() string { return p.b.String() }

// row is a line of a table of two columns.
var row = regexp.MustCompile(`^ +(\S+)  +(\S.*)$`)

// prose writes a text as the helps and gpuqd.8.txt have it: paragraphs of lines
// without indentation; tables of a word and its meaning; and, for all else that
// is indented, examples. A line in capitals, and the paragraph that begins with
// "Exit codes", open a section.
func (p *page) prose(text string) {
	for i, paragraph := range paragraphs(text) {
		if first := paragraph[0]; i > 0 && !heading.MatchString(first) && !strings.HasPrefix(first, "Exit codes") && first[0] != ' ' {
			p.macro("PP") // the others begin with a macro of their own
		}
		p.paragraph(paragraph)
	}
}

var heading = regexp.MustCompile(`^[A-Z][A-Z ]+$`)

func (p *page) paragraph(lines []string) {
	switch {
	case heading.MatchString(lines[0]):
		p.macro("SH", lines[0])
		lines = lines[1:]
	case strings.HasPrefix(lines[0], "Exit codes"):
		p.macro("SH", "EXIT STATUS")
		if lines[0] == "Exit codes:" {
			lines = lines[1:]
		}
	}
	for len(lines) > 0 {
		n := 0
		for n < len(lines) && strings.HasPrefix(lines[n], " ") == strings.HasPrefix(lines[0], " ") {
			n++
		}
		switch block := lines[:n]; {
		case !strings.HasPrefix(block[0], " "):
			p.text(strings.Join(block, " "))
		case isTable(block):
			for _, line := range block {
				cells := row.FindStringSubmatch(line)
				p.item(`\fB`+escape(cells[1])+`\fR`, cells[2])
			}
		default:
			p.verbatim(block)
		}
		lines = lines[n:]
	}
}

func isTable(lines []string) bool {
	for _, line := range lines {
		if !row.MatchString(line) {
			return false
		}
	}
	return true
}

// paragraphs splits a text at its empty lines; one between two indented lines
// belongs to an example.
func paragraphs(text string) [][]string {
	var all [][]string
	var current []string
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	for i, line := range lines {
		inside := i > 0 && i+1 < len(lines) && strings.HasPrefix(lines[i-1], " ") && strings.HasPrefix(lines[i+1], " ")
		if line != "" || inside {
			current = append(current, line)
			continue
		}
		all = append(all, current)
		current = nil
	}
	return append(all, current)
}

// special are the characters that roff or a terminal's font would change.
var special = strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, `"`, `\(dq`, "…", "...")

// escape makes text literal to roff. A hyphen between letters stays one: it is
// no option.
func escape(text string) string {
	var b strings.Builder
	for _, r := range special.Replace(text) {
		if r > '~' {
			fmt.Fprintf(&b, `\[u%04X]`, r)
		} else {
			b.WriteRune(r)
		}
	}
	// Twice: a word of one hyphen's match cannot begin the next.
	return hyphen.ReplaceAllString(hyphen.ReplaceAllString(b.String(), "$1-$2"), "$1-$2")
}

var hyphen = regexp.MustCompile(`\b([a-z]+)\\-([a-z]+)\b`)

// emphasize sets options in bold.
func emphasize(escaped string) string {
	return option.ReplaceAllString(escaped, `$1\fB$2\fR$3`)
}

var option = regexp.MustCompile(`(^|[ (])(\\-(?:\\-[a-z]+(?:-[a-z]+)*|[a-z]))($|[ .,;:)])`)

// wrap breaks a text at spaces.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

func lowerFirst(s string) string {
	if len(s) > 1 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'a' && s[1] <= 'z' {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
