package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const root = "../.."

var testBuild = build{version: "1.2.3", maintainer: "gpuqd maintainers <maintainers@gpuqd.example>", date: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)}

// pages builds the programs and makes all pages of them.
func pages(t *testing.T) map[string]string {
	t.Helper()
	programs := t.TempDir()
	for name, pkg := range map[string]string{"gpuqd": "./daemon", "gpuqctl": "./ctl"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(programs, name), pkg)
		cmd.Dir = root
		cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	files, err := manual(testBuild, root, programs)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Goal: what a person can read with --help or in the shipped files stands in a
// page too. The helps are looked up in the golden files of package ctl, not by
// the code that makes the pages.
func TestPagesHaveAllThatHelpHas(t *testing.T) {
	files := pages(t)
	golden, err := filepath.Glob(filepath.Join(root, "ctl/testdata/help/*.txt"))
	if err != nil || len(golden) < 20 {
		t.Fatalf("%d golden helps, %v", len(golden), err)
	}
	for _, path := range golden {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(path), ".txt")
		if name != "gpuqctl" {
			name = "gpuqctl-" + name
		}
		page, ok := files["gpuqctl/"+name+".1"]
		if !ok {
			t.Errorf("there is no page %s(1)", name)
			continue
		}
		checkFlags(t, name, page, string(data))
		if name != "gpuqctl" && !strings.Contains(name[len("gpuqctl-"):], "-") {
			verb := strings.TrimPrefix(name, "gpuqctl-")
			if !strings.Contains(files["gpuqctl/gpuqctl.1"], `\fBgpuqctl\-`+verb+`\fR(1)`) {
				t.Errorf("gpuqctl(1) does not name %s", verb)
			}
		}
	}
	if daemon := files["gpuqd/gpuqd.8"]; !strings.Contains(daemon, `\fB\-\-config\fR`) || !strings.Contains(daemon, `\fB\-\-version\fR`) {
		t.Errorf("gpuqd(8) lacks a flag:\n%s", daemon)
	}
}

// checkFlags looks for each flag of a golden help, and its text, in a page.
func checkFlags(t *testing.T, name, page, help string) {
	t.Helper()
	plain := unroff(page)
	found := 0
	for _, m := range regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[a-z-]+).*?   +(.*)$`).FindAllStringSubmatch(help, -1) {
		found++
		if !strings.Contains(plain, m[1]) {
			t.Errorf("%s(1) lacks %s", name, m[1])
		}
		if text := strings.ReplaceAll(m[2][1:], "…", "..."); !strings.Contains(plain, text) {
			t.Errorf("%s(1) lacks what %s is for: %s", name, m[1], text)
		}
	}
	if found < 5 {
		t.Errorf("the help of %s has %d flags", name, found)
	}
	for _, paragraph := range strings.Split(strings.SplitN(help, "\n\nUsage:", 2)[0], "\n\n") {
		if words := strings.Join(strings.Fields(paragraph), " "); !strings.HasPrefix(words, "Exit codes:") && !strings.Contains(plain, words) {
			t.Errorf("%s(1) lacks %q", name, words)
		}
	}
}

// unroff gives the text of a page, in one line.
func unroff(page string) string {
	page = regexp.MustCompile(`(?m)^\.(SH|SS|TH|TP|PP|RS|RE|EX|EE|nf|fi).*\n`).ReplaceAllString(page, "")
	page = strings.NewReplacer(`\fB`, "", `\fR`, "", `\fI`, "", `\-`, "-", `\(ga`, "`", `\(ha`, "^", `\(ti`, "~", `\(dq`, `"`, `\(aq`, "'", `\&`, "", `\e`, `\`).Replace(page)
	return strings.Join(strings.Fields(page), " ")
}

// Goal: a key that the shipped files have, with its default and all of its
// comment, is in the page.
func TestPagesHaveEveryKey(t *testing.T) {
	for _, name := range []string{"gpuqd.toml", "gpuqctl.toml"} {
		data, err := os.ReadFile(filepath.Join(root, "etc", name))
		if err != nil {
			t.Fatal(err)
		}
		page, err := configPage(testBuild, name, "x", "gpuqd(8)", string(data))
		if err != nil {
			t.Fatal(err)
		}
		plain := unroff(page)
		text := ""
		found := 0
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			switch {
			case strings.HasPrefix(line, "# "):
				text += line[1:]
			case strings.HasPrefix(line, "#") && strings.Contains(line, " = "):
				found++
				if want := strings.ReplaceAll(line[1:]+text, "…", "..."); !strings.Contains(plain, want) {
					t.Errorf("%s(5) lacks %q", name, want)
				}
				text = ""
			case strings.HasPrefix(line, "["):
				if !strings.Contains(page, `.SS "`+line+`"`) {
					t.Errorf("%s(5) has no section %s", name, line)
				}
			case line == "":
				text = ""
			}
		}
		if found < 6 {
			t.Errorf("%s has %d keys", name, found)
		}
	}
}

func TestHelpThatIsNotUnderstoodIsAnError(t *testing.T) {
	for name, text := range map[string]string{
		"NoUsage":      "Does something.\n",
		"NoFlag":       "Does something.\n\nUsage:\n  gpuqctl x\n\nFlags:\n      what is this\n",
		"NoSubcommand": "Does something.\n\nUsage:\n  gpuqctl x\n\nOther things:\nwhat is this\n",
	} {
		t.Run(name, func(t *testing.T) {
			if h, err := parseHelp(text); err == nil {
				t.Errorf("it was read as %+v", h)
			}
		})
	}
}

func TestTextStaysWhatItIs(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"a path\\n and `code` ~ ^", `a path\en and \(gacode\(ga \(ti \(ha`},
		{"compare-and-set --wait -f GPU-5a… ä", `compare-and-set \-\-wait \-f GPU\-5a... \[u00E4]`},
	} {
		if got := escape(c.text); got != c.want {
			t.Errorf("%q became %q, want %q", c.text, got, c.want)
		}
	}
	p := &page{}
	p.text(".gitignore 'tis")
	if got := p.String(); got != "\\&.gitignore 'tis\n" {
		t.Errorf("a line that begins with a dot became %q", got)
	}
}
