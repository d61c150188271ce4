package monitoring

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

// Rule is one rule of a file: an alert, or what is recorded under a name.
type Rule struct {
	File        string `yaml:"-"` // its base name
	Alert       string
	Record      string
	Expr        string
	For         string
	Labels      map[string]string
	Annotations map[string]string
}

// Name is what a rule is called.
func (r Rule) Name() string { return r.Alert + r.Record }

type ruleFile struct {
	Groups []struct {
		Name     string
		Interval string
		Rules    []Rule
	}
}

// Rules reads all files of rules in a directory. Keys that rules do not have are
// promtool's to refuse.
func Rules(dir string) ([]Rule, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yml"))
	if err != nil {
		return nil, err
	}
	var all []Rule
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var f ruleFile
		if err := yaml.Unmarshal(text, &f); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for _, g := range f.Groups {
			for _, r := range g.Rules {
				r.File = filepath.Base(path)
				all = append(all, r)
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.New(dir + " has no rules")
	}
	return all, nil
}
