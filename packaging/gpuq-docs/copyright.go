package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// linked are the programs of each package, as package to build and whether with
// cgo: what they are linked from is what their copyright file answers for.
var linked = map[string][]program{
	"gpuqd":   {{"./daemon", "0"}, {"./daemon/shim", "0"}, {"./daemon/nvml", "1"}},
	"gpuqctl": {{"./ctl", "0"}},
}

type program struct{ pkg, cgo string }

// module is one module of which a package holds code.
type module struct{ path, version, dir string }

// copyright is the package's copyright file in Debian's machine-readable form,
// with the licence of every module that is linked in, word by word as it came.
func copyright(root, name string, programs []program) (string, error) {
	modules, err := modulesOf(root, programs)
	if err != nil {
		return "", err
	}
	var s strings.Builder
	s.WriteString(`Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: gpuqd
Comment: The programs of this package are linked from gpuqd's own source and from
 the Go modules below, each named by its import path and version.

Files: *
Copyright: 2026 the gpuqd authors
License: Apache-2.0
`)
	for _, m := range modules {
		stanza, err := m.stanza()
		if err != nil {
			return "", fmt.Errorf("copyright of %s: %w", name, err)
		}
		s.WriteString("\n" + stanza)
	}
	s.WriteString(`
License: Apache-2.0
 Licensed under the Apache License, Version 2.0; you may not use these files
 except in compliance with the License. Unless required by applicable law or
 agreed to in writing, software distributed under the License is distributed on
 an "AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express
 or implied. On Debian systems the full text of the License is in
 /usr/share/common-licenses/Apache-2.0.
`)
	return s.String(), nil
}

// modulesOf lists the modules, and Go's own library, that programs are linked
// from.
func modulesOf(root string, programs []program) ([]module, error) {
	var all []module
	for _, p := range programs {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}", p.pkg)
		cmd.Dir = root
		cmd.Env = append(cmd.Environ(), "CGO_ENABLED="+p.cgo)
		out, err := output(cmd)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) == 3 {
				all = append(all, module{f[0], f[1], f[2]})
			}
		}
	}
	cmd := exec.Command("go", "env", "GOVERSION", "GOROOT")
	cmd.Dir = root
	out, err := output(cmd)
	if err != nil {
		return nil, err
	}
	f := strings.Fields(out)
	all = append(all, module{"go", strings.TrimPrefix(f[0], "go"), f[1]})
	slices.SortFunc(all, func(a, b module) int { return strings.Compare(a.path, b.path) })
	return slices.Compact(all), nil
}

func output(cmd *exec.Cmd) (string, error) {
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(errs.String()))
	}
	return string(out), nil
}

var (
	licenceName = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice)([-.].*)?$`)
	holder      = regexp.MustCompile(`(?i)^\s*(?:copyright|©)\s*(?:\(c\)|©)?\s*(\d{4}.*)$`)
)

// stanza is the paragraph of a module. A module without a licence, or with one
// that is unknown, is an error: it must not be shipped unread.
func (m module) stanza() (string, error) {
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return "", err
	}
	var text, notice strings.Builder
	for _, e := range entries {
		if !e.Type().IsRegular() || !licenceName.MatchString(e.Name()) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(m.dir, e.Name()))
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(strings.ToUpper(e.Name()), "NOTICE") {
			notice.Write(data)
		} else {
			text.WriteString(strings.TrimSpace(string(data)) + "\n\n")
		}
	}
	name := licences(text.String())
	if name == "" {
		return "", fmt.Errorf("%s %s: its licence in %s is none of those that are known here: read it, and add it to known", m.path, m.version, m.dir)
	}
	var s strings.Builder
	fmt.Fprintf(&s, "Files: %s@%s/*\n", m.path, m.version)
	s.WriteString("Copyright: " + strings.Join(m.holders(text.String()+"\n"+notice.String()), "\n ") + "\n")
	if notice.Len() > 0 {
		s.WriteString("Comment: " + strings.TrimSpace(indented(notice.String())) + "\n")
	}
	s.WriteString("License: " + name + "\n")
	if name != "Apache-2.0" {
		s.WriteString(indented(apacheText.ReplaceAllString(text.String(), "(The full text of the Apache License, Version 2.0: see License: Apache-2.0.)")))
	}
	return s.String(), nil
}

// holders are the copyright lines, each once; the authors, where a licence names
// none.
func (m module) holders(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		if f := holder.FindStringSubmatch(strings.TrimSpace(line)); f != nil && !slices.Contains(all, f[1]) {
			all = append(all, strings.TrimSpace(f[1]))
		}
	}
	if len(all) == 0 {
		all = []string{"the authors of " + m.path}
	}
	return all
}

// known are licences by what only they say.
var known = []struct{ name, says string }{
	{"Apache-2.0", "Apache License Version 2.0"},
	{"Expat", "Permission is hereby granted, free of charge"},
	{"BSD-3-clause", "endorse or promote products"},
	{"BSD-2-clause", "Redistribution and use in source and binary forms"},
	{"public-domain", "dedicated to the public domain"},
}

// apacheText is the whole of that licence, which stands on every Debian system.
var apacheText = regexp.MustCompile(`(?s)Apache License\s+Version 2\.0, January 2004.*?END OF TERMS AND CONDITIONS`)

// licences names the licences in a text, "A and B"; "" where none is known.
func licences(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	var names []string
	for _, l := range known {
		if l.name == "BSD-2-clause" && slices.Contains(names, "BSD-3-clause") {
			continue // it is the other without its last clause
		}
		if strings.Contains(text, l.says) {
			names = append(names, l.name)
		}
	}
	return strings.Join(names, " and ")
}

// indented makes a text the continuation of a field: a space before each line, a
// lone dot for an empty one.
func indented(text string) string {
	var s strings.Builder
	for line := range strings.Lines(strings.TrimSpace(text)) {
		if line = strings.TrimRight(line, " \t\r\n"); line == "" {
			line = "."
		}
		s.WriteString(" " + line + "\n")
	}
	return s.String()
}
