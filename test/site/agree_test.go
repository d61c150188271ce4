package site

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/config"
)

// These hold what the roles repeat of the daemon to the daemon, and each role's
// variables to their documentation. They need no hosts.

// read returns the text of a file of ansible/.
func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{root, "ansible"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// keys lists all keys of gpuqd.toml, as "section.key".
func keys() []string {
	var all []string
	of := reflect.TypeFor[config.Config]()
	for i := range of.NumField() {
		section := of.Field(i)
		for k := range section.Type.NumField() {
			all = append(all, section.Tag.Get("toml")+"."+section.Type.Field(k).Tag.Get("toml"))
		}
	}
	return all
}

func TestKeysThatAReloadAppliesAreTheDaemons(t *testing.T) {
	_, block, found := strings.Cut(read(t, "roles", "gpuqd", "defaults", "main.yml"), "\ngpuq_gpuqd_reloaded:\n")
	if !found {
		t.Fatal("the role has no list of them")
	}
	var got []string
	for line := range strings.Lines(block) {
		key, isItem := strings.CutPrefix(strings.TrimSpace(line), "- ")
		if !isItem {
			break
		}
		got = append(got, key)
	}
	var want []string
	for _, key := range keys() {
		if config.IsLive(key) {
			want = append(want, key)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the role reloads gpuqd for %v, gpuqd applies %v", got, want)
	}
}

func TestSectionsAreTheDaemons(t *testing.T) {
	match := regexp.MustCompile(`(?m)^preflight_toml_sections: \[(.*)\]$`).FindStringSubmatch(read(t, "roles", "preflight", "vars", "main.yml"))
	if match == nil {
		t.Fatal("preflight has no list of them")
	}
	got := strings.Split(match[1], ", ")
	var want []string
	for _, key := range keys() {
		section, _, _ := strings.Cut(key, ".")
		want = append(want, section)
	}
	want = slices.Compact(want)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("preflight knows the sections %v, gpuqd.toml has %v", got, want)
	}
}

func TestPermissionsAreTheBrokers(t *testing.T) {
	defaults := read(t, "roles", "rabbitmq", "defaults", "main.yml")
	for role, may := range map[string]broker.Permissions{"host": broker.HostPermissions(), "user": broker.UserPermissions()} {
		want := "  " + role + ": ['" + strings.Join([]string{may.Configure, may.Write, may.Read}, "', '") + "']\n"
		if !strings.Contains(defaults, want) {
			t.Errorf("the role has not the line %q", want)
		}
	}
}

// made matches a variable whose default is made up and kept, and computed one that
// is not to be set: neither belongs in an argument specification.
var (
	variable = regexp.MustCompile(`(?m)^(gpuq_[a-z0-9_]+):.*(?:\n  .*)*`)
	made     = regexp.MustCompile(`ansible\.builtin\.password`)
	computed = regexp.MustCompile(`^gpuq_(site_|gpuqd_(broker_urls|ledger_uri|cache_addresses|reloaded|toml)$)`)
)

func TestEveryVariableIsExplainedAndChecked(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "ansible", "roles", "*", "defaults", "main.yml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no roles: %v", err)
	}
	for _, file := range files {
		role := filepath.Base(filepath.Dir(filepath.Dir(file)))
		defaults, specs := read(t, "roles", role, "defaults", "main.yml"), read(t, "roles", role, "meta", "argument_specs.yml")
		if !strings.HasPrefix(defaults, "#") {
			t.Errorf("role %s explains no variable", role)
		}
		for _, found := range variable.FindAllStringSubmatch(defaults, -1) {
			name := found[1]
			switch {
			case made.MatchString(found[0]) || computed.MatchString(name):
			case !strings.Contains(specs, "      "+name+":\n"):
				t.Errorf("role %s has the variable %s, and no specification of it", role, name)
			}
		}
		for _, found := range regexp.MustCompile(`(?m)^      (gpuq_[a-z0-9_]+):`).FindAllStringSubmatch(specs, -1) {
			if !strings.Contains(defaults, "\n"+found[1]+":") {
				t.Errorf("role %s specifies %s, which has no default", role, found[1])
			}
		}
	}
}
