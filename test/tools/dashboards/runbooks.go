package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// runbooks are the pages of docs/runbooks, which Grafana shows in a dashboard of their
// own: whoever looks at an alert at night reads them there, without internet and without
// a checkout.
type runbooks struct {
	names []string // sorted, without the list
	text  map[string]string
}

// The list of all runbooks.
const listOfAll = "README"

const runbooksUID = "gpuq-runbooks"

func readRunbooks(dir string) (runbooks, error) {
	r := runbooks{text: map[string]string{}}
	paths, err := filepath.Glob(filepath.Join(dir, "*.md"))
	if err != nil {
		return r, err
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return r, err
		}
		name := strings.TrimSuffix(filepath.Base(path), ".md")
		r.text[name] = string(text)
		if name != listOfAll {
			r.names = append(r.names, name)
		}
	}
	if len(r.names) == 0 || r.text[listOfAll] == "" {
		return r, fmt.Errorf("there are no runbooks in %s, or no %s.md that lists them", dir, listOfAll)
	}
	return r, nil
}

// url is where Grafana shows a runbook alone.
func (r runbooks) url(name string) (string, error) {
	for i, have := range r.names {
		if have == name {
			return fmt.Sprintf("/d/%s?viewPanel=%d", runbooksUID, i+2), nil
		}
	}
	return "", fmt.Errorf("there is no docs/runbooks/%s.md", name)
}

// The links of a page lead to other files of the documentation, which Grafana does not
// have; to another runbook they lead to its panel.
var markdownLink = regexp.MustCompile(`\[([^\]]+)\]\(([^)#\s]+\.md)(#[^)\s]*)?\)`)

func (r runbooks) markdown(name string) string {
	return markdownLink.ReplaceAllStringFunc(r.text[name], func(found string) string {
		part := markdownLink.FindStringSubmatch(found)
		if url, err := r.url(strings.TrimSuffix(part[2], ".md")); err == nil {
			return "[" + part[1] + "](" + url + ")"
		}
		return part[1] + " (" + filepath.Join("docs/runbooks", part[2]) + ")"
	})
}

// The panels' numbers, which url tells, are their places in the only row; the first is the
// list of all, since nobody wants to turn fifty pages.
func (r runbooks) board() board {
	pages := []panel{page("All runbooks", r.markdown(listOfAll))}
	for _, name := range r.names {
		pages = append(pages, page(name, r.markdown(name)))
	}
	return board{
		uid: runbooksUID, title: "Runbooks", since: "now-6h",
		question: "What does an alert mean, how do I look, what do I do? The pages of docs/runbooks, one for each alert.",
		rows:     []row{{height: 14, panels: pages}},
	}
}
