package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file under testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; look at it and run with -update if it is right. Got:\n%s", path, got)
	}
}

func TestLoadReportsEveryProblemAtOnce(t *testing.T) {
	cfg, err := Load("testdata/bad.toml")
	if err == nil {
		t.Fatal("bad.toml was accepted")
	}
	golden(t, "bad.golden", err.Error()+"\n")
	if cfg.Broker.User != "" {
		t.Error("a refused file left settings that could be used")
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Error("the error shows a password")
	}
	var p *Problem
	if !errors.As(err, &p) || p.Key != "ttl" || p.Line != 2 {
		t.Errorf("the first problem is %+v, want that of key ttl in line 2", p)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"broken TOML":           {"[lease\nttl = 3", "f.toml:2: this is not TOML: expected '.' or ']'"},
		"key twice":             {"[lease]\nttl = \"3m\"\nttl = \"4m\"", "f.toml:3: this is not TOML: Key 'lease.ttl' has already been defined"},
		"capitals":              {"[Lease]\nttl = \"4m\"", "f.toml:1: Lease: there is no such section; the nearest is [lease]"},
		"scalar for a section":  {"lease = 3", "f.toml:1: lease: want a section: write [lease]"},
		"section for a scalar":  {"[lease.ttl]\na = 1", "f.toml:1: lease.ttl: want a number with its unit"},
		"number for a duration": {"[lease]\nttl = 300", "f.toml:2: lease.ttl: want a number with its unit, in quotes"},
		"text for a bool":       {"[ledger]\nsingle_node = \"yes\"", "f.toml:2: ledger.single_node: want true or false"},
		"text for a list":       {"[host]\npools = \"a\"", `f.toml:2: host.pools: want a list of texts in quotes, such as ["a", "b"]`},
		"list of numbers":       {"[host]\npools = [1]", "f.toml:2: host.pools: want a list of texts"},
		"fraction for a number": {"[take]\nshapes_max = 1.5", "f.toml:2: take.shapes_max: want a whole number"},
		"key without section":   {"state_dir = \"/x\"", "f.toml:1: state_dir: there is no such key; the nearest is host.state_dir"},
		"key of another":        {"[take]\nrenew = \"9s\"", "f.toml:2: take.renew: there is no such key; the nearest is lease.renew"},
		"key like no other":     {"[log]\nqqqqqqq = 1", "f.toml:2: log.qqqqqqq: there is no such key here; there are level, format"},
		"key at the top":        {"qqqqqqq = 1", "f.toml:1: qqqqqqq: there is no such key; the sections are [host], [broker]"},
		"section like no other": {"[qqqqqqq]", "f.toml:1: qqqqqqq: there is no such section; there are [host], [broker]"},
		"dotted key":            {"lease.rennew = \"9s\"", "f.toml:1: lease.rennew: there is no such key; the nearest is lease.renew"},
		"quoted key":            {"[log]\n\"le vel\" = 1", `f.toml:2: log."le vel": there is no such key; the nearest is log.level`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse("f.toml", []byte(c.text), "gpu7")
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("parse gave %v\nwant an error that starts with %s", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("one mistake was reported more than once:\n%v", err)
			}
		})
	}
}

// A relation is not judged on a default that stands in for an unreadable value.
func TestUnreadableValueCausesNoSecondProblem(t *testing.T) {
	_, err := parse("f.toml", []byte("[lease]\nttl = \"soon\"\nrenew = \"1h\""), "gpu7")
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), `"soon" is no duration`) {
		t.Errorf("got %v, want the one problem of lease.ttl", err)
	}
}

func TestParseKeepsDefaultsOfKeysLeftOut(t *testing.T) {
	cfg, err := parse("f.toml", []byte("[lease]\nttl = \"15s\"\nrenew = \"2s\"\n[host]\npools = []\n"), "gpu7")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Lease.TTL.Std() != 15*time.Second || cfg.Lease.Renew.Std() != 2*time.Second {
		t.Errorf("the lease is %+v", cfg.Lease)
	}
	if len(cfg.Host.Pools) != 0 {
		t.Errorf("an empty list gave the pools %q", cfg.Host.Pools)
	}
	if cfg.Lease.OnLoss != OnLossFreeze || cfg.Ledger != Default().Ledger {
		t.Error("a key that was left out lost its default")
	}
}

func TestHostNameComesFromTheKernelUnlessSet(t *testing.T) {
	for _, c := range []struct{ text, kernel, want string }{
		{"", "gpu7", "gpu7"},
		{"", "GPU7.rack1.example.org", "gpu7"},
		{"[host]\nname = \"worker_1\"", "gpu7", "worker_1"},
		{"[host]\nname = \"worker_1\"", "a b", "worker_1"},
	} {
		cfg, err := parse("f.toml", []byte(c.text), c.kernel)
		if err != nil || cfg.Host.Name != c.want {
			t.Errorf("%q on kernel host %q gave %q, %v; want %q", c.text, c.kernel, cfg.Host.Name, err, c.want)
		}
	}
	_, err := parse("f.toml", nil, "-")
	if err == nil || !strings.Contains(err.Error(), `host.name: the kernel's host name "-" cannot be used: set one of`) {
		t.Errorf("an unusable kernel host name gave %v", err)
	}
}

func TestLoadFile(t *testing.T) {
	dir := t.TempDir()
	good := write(t, filepath.Join(dir, "good.toml"), "[host]\nname = \"worker_1\"\n", 0o644)
	if cfg, err := Load(good); err != nil || cfg.Host.Name != "worker_1" {
		t.Errorf("Load gave the host %q, %v", cfg.Host.Name, err)
	}
	_, err := Load(filepath.Join(dir, "absent.toml"))
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "write one, or give the path of another") {
		t.Errorf("an absent file gave %v", err)
	}
	big := write(t, filepath.Join(dir, "big.toml"), strings.Repeat("#\n", fileBytesMax), 0o644)
	if _, err = Load(big); err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("a huge file gave %v", err)
	}
}

// write makes a file with exactly that mode and returns its path.
func write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // past the umask
		t.Fatal(err)
	}
	return path
}
