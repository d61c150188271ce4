package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

// release is one section of CHANGELOG.md.
type release struct {
	version string
	date    time.Time
	groups  []changes
}

// changes are the items below one heading, such as Added.
type changes struct {
	title string
	items []string // each in one line
	open  bool     // the last item goes on at the next line
}

var (
	releaseHead = regexp.MustCompile(`^## \[([^]]+)\](?: - (\d{4}-\d{2}-\d{2}))?$`)
	markdown    = regexp.MustCompile(`\[([^]]+)\]\([^)]+\)`)
)

// readChangelog returns the releases, the newest first. What is not released yet
// belongs to the version that is being built, of which the first entry is in any
// case: dpkg and rpm take a package's version from there.
func readChangelog(path string, b build) ([]release, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	log, err := parseChangelog(string(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(log) > 0 && log[0].version == "Unreleased" {
		log[0].version, log[0].date = b.version, b.date
		if len(log[0].groups) == 0 && len(log) > 1 && log[1].version == b.version {
			log = log[1:]
		}
	}
	if len(log) == 0 || log[0].version != b.version {
		log = append([]release{{version: b.version, date: b.date}}, log...)
	}
	if len(log[0].groups) == 0 {
		log[0].groups = []changes{{title: "Changed", items: []string{"Nothing that operators notice."}}}
	}
	return log, nil
}

func parseChangelog(text string) ([]release, error) {
	var log []release
	for number, line := range strings.Split(text, "\n") {
		if m := releaseHead.FindStringSubmatch(line); m != nil {
			r := release{version: m[1]}
			if m[1] != "Unreleased" {
				var err error
				if r.date, err = time.Parse(time.DateOnly, m[2]); err != nil {
					return nil, fmt.Errorf("line %d: %q has no date such as 2026-11-28", number+1, line)
				}
			}
			log = append(log, r)
			continue
		}
		if len(log) == 0 {
			continue // what stands above the releases is about the file
		}
		if err := log[len(log)-1].add(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", number+1, err)
		}
	}
	return log, nil
}

// add takes in one line: a heading, a list's item, or a paragraph, which becomes
// an item too.
func (r *release) add(line string) error {
	if title, ok := strings.CutPrefix(line, "### "); ok {
		r.groups = append(r.groups, changes{title: title})
		return nil
	}
	if len(r.groups) == 0 {
		if line == "" {
			return nil
		}
		return fmt.Errorf("%q stands below no heading such as ### Added", line)
	}
	g := &r.groups[len(r.groups)-1]
	line = strings.ReplaceAll(markdown.ReplaceAllString(line, "$1"), "`", "")
	item, listed := strings.CutPrefix(line, "- ")
	switch {
	case line == "":
		g.open = false
	case !listed && g.open:
		g.items[len(g.items)-1] += " " + strings.TrimSpace(line)
	case strings.HasPrefix(item, " "):
		return fmt.Errorf("%q belongs to no item", line)
	default:
		g.items = append(g.items, item)
		g.open = true
	}
	return nil
}

// debianChangelog is the form of deb-changelog(5).
func debianChangelog(log []release, name string, b build) string {
	var s strings.Builder
	for i, r := range log {
		if i > 0 {
			s.WriteByte('\n')
		}
		fmt.Fprintf(&s, "%s (%s-1) unstable; urgency=medium\n", name, r.version)
		for _, g := range r.groups {
			fmt.Fprintf(&s, "\n  [ %s ]\n", g.title)
			for _, item := range g.items {
				s.WriteString("  * " + strings.Join(wrap(item, 74), "\n    ") + "\n")
			}
		}
		fmt.Fprintf(&s, "\n -- %s  %s\n", b.maintainer, r.date.Format(time.RFC1123Z))
	}
	return s.String()
}

// rpmChangelog is the form in which nfpm reads one: YAML, of which JSON's texts
// are a part.
func rpmChangelog(log []release, b build) string {
	var s strings.Builder
	for _, r := range log {
		fmt.Fprintf(&s, "- semver: %q\n  date: %s\n  packager: %q\n  changes:\n", r.version+"-1", r.date.Format(time.RFC3339), b.maintainer)
		for _, g := range r.groups {
			for _, item := range g.items {
				fmt.Fprintf(&s, "    - note: %q\n", g.title+": "+strings.Join(wrap(item, 74), "\n  "))
			}
		}
	}
	return s.String()
}
