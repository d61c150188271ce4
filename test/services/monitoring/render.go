package monitoring

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// howToInstall ends what is said of a program that is missing.
const howToInstall = "run packaging/install-deps.sh monitoring"

//go:embed render.py
var renderer string

// python is Debian's own, whose jinja2 and yaml are packages.
const python = "/usr/bin/python3"

// checkout returns the root of the checkout: above the working directory, else
// where this file was compiled.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the checkout: %w", err)
	}
	var candidates []string
	for ; filepath.Dir(dir) != dir; dir = filepath.Dir(dir) {
		candidates = append(candidates, dir)
	}
	if _, file, _, ok := runtime.Caller(0); ok {
		candidates = append(candidates, filepath.Join(filepath.Dir(file), "..", "..", ".."))
	}
	for _, c := range candidates {
		if _, err := os.Stat(filepath.Join(c, "ansible", "roles", "prometheus", "templates")); err == nil {
			return c, nil
		}
	}
	return "", errors.New("ansible/roles is not above the working directory: run from the checkout")
}

// RulesDir returns the directory of the rules that a site gets.
func RulesDir() (string, error) {
	root, err := checkout()
	return filepath.Join(root, "ansible", "roles", "prometheus", "files", "rules"), err
}

// render returns what a template of a role says with these variables, laid over
// the role's own. The role may have others before it, whose variables it sees.
func render(ctx context.Context, role, template string, variables map[string]any) (map[string]any, error) {
	root, err := checkout()
	if err != nil {
		return nil, err
	}
	variables["ansible_managed"] = "Written by gpuqd/test/services/monitoring"
	variables["gpuq_tls"] = false
	variables["inventory_hostname"] = Host
	variables["groups"] = map[string]any{}
	in, err := json.Marshal(variables)
	if err != nil {
		return nil, fmt.Errorf("render %s of role %s: %w", template, role, err)
	}
	cmd := exec.CommandContext(ctx, python, "-c", renderer, filepath.Join(root, "ansible", "roles"), role, template)
	cmd.Stdin = bytes.NewReader(in)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(stderr.String())
		if strings.Contains(text, "No module named") {
			return nil, fmt.Errorf("python3-jinja2 or python3-yaml is not installed: %s", howToInstall)
		}
		return nil, fmt.Errorf("render %s of role %s: %w: %s", template, role, err, text)
	}
	var config map[string]any
	if err := json.Unmarshal(stdout.Bytes(), &config); err != nil {
		return nil, fmt.Errorf("render %s of role %s: %w", template, role, err)
	}
	return config, nil
}

// lay lays settings over others, section by section.
func lay(under, over map[string]any) {
	for key, value := range over {
		if section, ok := value.(map[string]any); ok {
			if below, ok := under[key].(map[string]any); ok {
				lay(below, section)
				continue
			}
		}
		under[key] = value
	}
}

// write writes a configuration as JSON, which is YAML, too.
func write(path string, config any) error {
	text, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o600)
}

// installed returns the path of a Debian program.
func installed(path string) (string, error) {
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not installed: %s", filepath.Base(path), howToInstall)
	}
	return path, nil
}
