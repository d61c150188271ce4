package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
)

// help is what one command says of itself with --help.
type help struct {
	path     []string // of verbs: ["dead", "list"]
	short    string   // from its parent's list; "" for the program itself
	long     string
	usage    []string
	examples []string
	groups   []group // of subcommands
	flags    []flagHelp
	global   []flagHelp // those of every verb
}

// group is a titled list of subcommands, as {name, short}.
type group struct {
	title   string
	members [][2]string
}

// flagHelp is one flag.
type flagHelp struct{ short, long, value, text string }

// sections of a help that are not lists of subcommands.
const (
	titleUsage    = "Usage:"
	titleExamples = "Examples:"
	titleFlags    = "Flags:"
	titleGlobal   = "Global Flags:"
)

var (
	title  = regexp.MustCompile(`^[A-Z][A-Za-z ]+:$`)
	member = regexp.MustCompile(`^  (\S+) +(\S.*)$`)
	flags  = regexp.MustCompile(`^ +(?:(-\w), )?(--[a-z-]+)(?: (\S(?:.*?\S)?))? {3,}(\S.*)$`)
)

// helps returns the help of a program and of all its verbs, parents first.
func helps(program string) ([]help, error) {
	var walk func(path []string, short string) ([]help, error)
	walk = func(path []string, short string) ([]help, error) {
		out, err := exec.Command(program, append(path[:len(path):len(path)], "--help")...).Output()
		if err != nil {
			return nil, fmt.Errorf("%s --help: %w", strings.Join(append([]string{program}, path...), " "), err)
		}
		h, err := parseHelp(string(out))
		if err != nil {
			return nil, fmt.Errorf("the help of %s: %w", strings.Join(append([]string{program}, path...), " "), err)
		}
		h.path, h.short = path, short
		all := []help{h}
		for _, g := range h.groups {
			for _, m := range g.members {
				if m[0] == "help" {
					continue // it is about these
				}
				below, err := walk(append(path[:len(path):len(path)], m[0]), m[1])
				if err != nil {
					return nil, err
				}
				all = append(all, below...)
			}
		}
		return all, nil
	}
	return walk(nil, "")
}

// parseHelp takes a help apart. What it does not understand is an error: it
// would be missing in the page.
func parseHelp(text string) (help, error) {
	long, rest, ok := strings.Cut(text, "\n\n"+titleUsage+"\n")
	if !ok {
		return help{}, fmt.Errorf("it has no %q", titleUsage)
	}
	h := help{long: long}
	section := titleUsage
	for line := range strings.Lines(rest) {
		line = strings.TrimRight(line, "\n")
		switch {
		case title.MatchString(line):
			section = line
			if section != titleExamples && section != titleFlags && section != titleGlobal {
				h.groups = append(h.groups, group{title: strings.TrimSuffix(line, ":")})
			}
			continue
		case strings.HasPrefix(line, `Use "`):
			section = ""
			continue
		case section == titleExamples:
			h.examples = append(h.examples, line)
			continue
		case line == "":
			continue
		}
		if err := h.add(section, line); err != nil {
			return help{}, err
		}
	}
	for len(h.examples) > 0 && h.examples[len(h.examples)-1] == "" {
		h.examples = h.examples[:len(h.examples)-1]
	}
	return h, nil
}

// add takes in one line of a section.
func (h *help) add(section, line string) error {
	switch section {
	case titleUsage:
		h.usage = append(h.usage, strings.TrimSpace(line))
		return nil
	case titleFlags, titleGlobal:
		m := flags.FindStringSubmatch(line)
		if m == nil {
			return fmt.Errorf("%q is no flag", line)
		}
		if section == titleFlags {
			h.flags = append(h.flags, flagHelp{m[1], m[2], m[3], m[4]})
		} else {
			h.global = append(h.global, flagHelp{m[1], m[2], m[3], m[4]})
		}
		return nil
	}
	m := member.FindStringSubmatch(line)
	if m == nil || len(h.groups) == 0 {
		return fmt.Errorf("%q, below %q, is no subcommand", line, section)
	}
	last := &h.groups[len(h.groups)-1]
	last.members = append(last.members, [2]string{m[1], m[2]})
	return nil
}

// daemonFlag is a flag in the help of package flag: two lines.
var daemonFlag = regexp.MustCompile(`(?m)^  -([a-z-]+)(?: (\S+))?\n    \t(.*)$`)

// daemonFlags returns the flags of gpuqd, whose help has nothing else.
func daemonFlags(program string) ([]flagHelp, error) {
	out, err := exec.Command(program, "--help").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s --help: %w", program, err)
	}
	var found []flagHelp
	for _, m := range daemonFlag.FindAllStringSubmatch(string(out), -1) {
		found = append(found, flagHelp{long: "--" + m[1], value: m[2], text: m[3]})
	}
	if n := strings.Count(string(out), "\n  -"); n != len(found) || n == 0 {
		return nil, fmt.Errorf("%s --help: %d of %d flags were understood", program, len(found), n)
	}
	return found, nil
}
