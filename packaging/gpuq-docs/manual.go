package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

//go:embed gpuqd.8.txt
var daemonText string

// manual returns all manual pages, by file: gpuqctl/gpuqctl-submit.1.
func manual(b build, root, programs string) (map[string]string, error) {
	files := map[string]string{}
	all, err := helps(filepath.Join(programs, "gpuqctl"))
	if err != nil {
		return nil, err
	}
	for _, h := range all {
		files["gpuqctl/"+pageName(h.path)+".1"] = verbPage(b, h, all)
	}
	options, err := daemonFlags(filepath.Join(programs, "gpuqd"))
	if err != nil {
		return nil, err
	}
	files["gpuqd/gpuqd.8"] = daemonPage(b, options)
	for _, c := range []struct{ name, summary, program string }{
		{"gpuqd.toml", "settings of the daemon gpuqd", "gpuqd(8)"},
		{"gpuqctl.toml", "where gpuqctl finds a daemon", "gpuqctl(1)"},
	} {
		data, err := os.ReadFile(filepath.Join(root, "etc", c.name))
		if err != nil {
			return nil, err
		}
		text, err := configPage(b, c.name, c.summary, c.program, string(data))
		if err != nil {
			return nil, fmt.Errorf("etc/%s: %w", c.name, err)
		}
		files[strings.TrimSuffix(c.name, ".toml")+"/"+c.name+".5"] = text
	}
	return files, nil
}

func pageName(path []string) string { return strings.Join(append([]string{"gpuqctl"}, path...), "-") }

// verbPage is the page of gpuqctl or of one verb.
func verbPage(b build, h help, all []help) string {
	name := pageName(h.path)
	p := newPage(name, "1", b)
	summary := h.short
	if len(h.path) == 0 {
		summary = "submit GPU jobs, and see and steer what becomes of them"
	}
	p.name(name, summary)
	p.macro("SH", "SYNOPSIS")
	p.macro("nf")
	for _, line := range h.usage {
		p.b.WriteString(synopsis.ReplaceAllStringFunc(escape(line), func(verb string) string { return `\fB` + verb + `\fR` }) + "\n")
	}
	p.macro("fi")
	p.macro("SH", "DESCRIPTION")
	description, status, _ := strings.Cut(h.long, "\n\nExit codes")
	p.prose(description)
	p.verbs(h)
	p.options("OPTIONS", h.flags)
	p.options("OPTIONS OF EVERY VERB", h.global)
	if status != "" {
		p.prose("Exit codes" + status)
	}
	if len(h.examples) > 0 {
		p.macro("SH", "EXAMPLES")
		p.verbatim(h.examples)
	}
	p.seeAlso(related(h, all)...)
	return p.String()
}

// synopsis finds the verbs that a line of usage begins with.
var synopsis = regexp.MustCompile(`^gpuqctl(?: [a-z]+\b)*`)

func (p *page) verbs(h help) {
	if len(h.groups) == 0 {
		return
	}
	p.macro("SH", "VERBS")
	for _, g := range h.groups {
		if len(h.groups) > 1 {
			p.macro("SS", g.title)
		}
		for _, m := range g.members {
			tag := `\fB` + escape(m[0]) + `\fR`
			if m[0] != "help" {
				tag = `\fB` + strings.ReplaceAll(pageName(append(h.path[:len(h.path):len(h.path)], m[0])), "-", `\-`) + `\fR(1)`
			}
			p.item(tag, m[1]+".")
		}
	}
}

func (p *page) options(section string, list []flagHelp) {
	if len(list) == 0 {
		return
	}
	p.macro("SH", section)
	for _, o := range list {
		tag := `\fB` + strings.ReplaceAll(o.long, "-", `\-`) + `\fR`
		if o.short != "" {
			tag = `\fB` + strings.ReplaceAll(o.short, "-", `\-`) + `\fR, ` + tag
		}
		if o.value != "" {
			tag += ` \fI` + escape(o.value) + `\fR`
		}
		p.item(tag, upperFirst(o.text)+".")
	}
}

// related are the pages of the same family, the program's, and the files'.
func related(h help, all []help) []string {
	var refs []string
	for _, other := range all {
		n := len(other.path)
		kin := n == 0 || n <= len(h.path)+1 && len(h.path) > 0 && other.path[0] == h.path[0] || len(h.path) == 0 && n == 1
		if kin && !slices.Equal(other.path, h.path) {
			refs = append(refs, pageName(other.path)+"(1)")
		}
	}
	return append(refs, "gpuqctl.toml(5)", "gpuqd(8)")
}

// daemonPage is gpuqd.8.txt with the flags that gpuqd has.
func daemonPage(b build, options []flagHelp) string {
	p := newPage("gpuqd", "8", b)
	p.name("gpuqd", "daemon of a host that runs GPU jobs")
	before, after, _ := strings.Cut(daemonText, "@options@\n")
	p.prose(before)
	p.options("OPTIONS", options)
	p.prose(after)
	p.seeAlso("gpuqctl(1)", "gpuqd.toml(5)", "systemctl(1)", "journalctl(1)")
	return p.String()
}

var (
	configKey     = regexp.MustCompile(`^#([a-z_]+) = (.+)$`)
	configSection = regexp.MustCompile(`^\[([a-z_]+)\]$`)
)

// configPage makes a page of a shipped file, which is the manual: its head, then
// per section each key with its default and its comment.
func configPage(b build, name, summary, program, data string) (string, error) {
	p := newPage(name, "5", b)
	p.name(name, summary)
	p.macro("SH", "SYNOPSIS")
	p.lines(escape("/etc/gpuqd/" + name))
	p.macro("SH", "DESCRIPTION")
	head, body, ok := strings.Cut(data, "\n\n")
	if !ok {
		return "", fmt.Errorf("it has no head")
	}
	for i, text := range strings.Split(head, "\n#\n") {
		if i == 0 {
			continue // the title
		}
		if i > 1 {
			p.macro("PP")
		}
		p.text(comment(text))
	}
	p.macro("SH", "SETTINGS")
	prose := ""
	for line := range strings.Lines(body) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "":
		case configSection.MatchString(line):
			p.macro("SS", line)
		case configKey.MatchString(line):
			m := configKey.FindStringSubmatch(line)
			p.item(`\fB`+escape(m[1])+`\fR = `+escape(m[2]), strings.TrimSpace(prose))
			prose = ""
		case strings.HasPrefix(line, "# "):
			prose += " " + comment(line)
		default:
			return "", fmt.Errorf("%q is no comment, key or section", line)
		}
	}
	p.seeAlso(program)
	return p.String(), nil
}

// comment is the text of lines that begin with #, in one line.
func comment(lines string) string {
	var words []string
	for line := range strings.Lines(lines) {
		words = append(words, strings.TrimSpace(strings.TrimPrefix(line, "#")))
	}
	return strings.Join(words, " ")
}
