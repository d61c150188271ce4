package site

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// These hold the bundle to the roles that install from it. They need no hosts.

// python is Debian's, which has Debian's Ansible; another on the PATH may have none.
const python = "/usr/bin/python3"

var (
	asked     = regexp.MustCompile(`(?m)^ *gpuq_packages_product: ([a-z0-9_]+)\n *gpuq_packages_names: (.+)$`)
	ofDebian  = regexp.MustCompile(`(?m)^\t\[([a-z_]+)\]="(.*)"$`)
	byDefault = regexp.MustCompile(`\$\{PRODUCTS:-([a-z_ ]+)\}`)
)

// rolesProducts lists the products that roles ask for, each with its packages' names,
// or with what a variable gives as they.
func rolesProducts(t *testing.T) map[string][]string {
	t.Helper()
	tasks, err := filepath.Glob(filepath.Join(root, "ansible", "roles", "*", "tasks", "*.yml"))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("there are no roles: %v", err)
	}
	all := map[string][]string{}
	for _, file := range tasks {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range asked.FindAllStringSubmatch(string(text), -1) {
			product, names := found[1], strings.Split(strings.Trim(found[2], "[]"), ", ")
			if had, ok := all[product]; ok && !slices.Equal(had, names) {
				t.Errorf("%s asks for %v of %s, elsewhere it is %v", file, names, product, had)
			}
			all[product] = names
		}
	}
	return all
}

// listed returns the names of packages that a role has as the default of a variable.
func listed(t *testing.T, variable string, file ...string) []string {
	t.Helper()
	match := regexp.MustCompile(`(?m)^` + variable + `: \[(.*)\]$`).FindStringSubmatch(read(t, file...))
	if match == nil {
		t.Fatalf("%v has no list %s", file, variable)
	}
	return strings.Split(match[1], ", ")
}

func TestBundleHasWhatTheRolesAskFor(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "packaging", "bundle.sh"))
	if err != nil {
		t.Fatal(err)
	}
	script := string(text)
	debian := map[string][]string{}
	for _, found := range ofDebian.FindAllStringSubmatch(script, -1) {
		debian[found[1]] = strings.Fields(strings.ReplaceAll(found[2], "${COMMON:-}", ""))
	}
	match := byDefault.FindStringSubmatch(script)
	if match == nil || len(debian) == 0 {
		t.Fatal("bundle.sh is not as this test reads it")
	}
	bundled := strings.Fields(match[1])

	roles := rolesProducts(t)
	roles["prometheus"] = listed(t, "prometheus_packages", "roles", "prometheus", "vars", "main.yml")
	roles["common"] = append(listed(t, "gpuq_common_names", "roles", "common", "defaults", "main.yml"), "chrony")

	// The controller's own is for people; what no source of the script has is in EXTRA.
	extra := regexp.MustCompile(`(?m)^#   EXTRA=DIR .*\n(?:#   {10,}.*\n)*`).FindString(script)
	for product, names := range roles {
		switch {
		case product == "mongodb_wire": // for tests; never in a bundle
		case !slices.Contains(bundled, product):
			if !strings.Contains(strings.ToLower(extra), product) {
				t.Errorf("roles ask for %s, which bundle.sh neither collects nor names as one for EXTRA", product)
			}
		case debian[product] != nil && !slices.Equal(debian[product], names):
			t.Errorf("bundle.sh collects %v of %s, the roles ask for %v", debian[product], product, names)
		}
	}
	for _, product := range bundled {
		if _, ok := roles[product]; !ok && product != "controller" {
			t.Errorf("bundle.sh collects %s, which no role asks for", product)
		}
	}
}

// problems has the filter of the role packages judge a bundle.
func problems(t *testing.T, bundle, product string, names, patterns []string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), python, "-c", `
import json, sys
sys.path.insert(0, "plugins/filter")
import gpuq_packages
print("\n".join(gpuq_packages.problems(**json.load(sys.stdin))))`)
	cmd.Dir = filepath.Join(root, "ansible")
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	input, err := json.Marshal(map[string]any{"bundle": bundle, "product": product, "names": names, "patterns": patterns})
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = strings.NewReader(string(input))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestBundleThatIsNotWholeIsRefused(t *testing.T) {
	if exec.Command(python, "-c", "import ansible").Run() != nil {
		t.Skip("skipped: there is no Ansible here: make deps/lint")
	}
	bundle := t.TempDir()
	put := func(name, text string) {
		path := filepath.Join(bundle, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(product string, names, patterns []string, words ...string) {
		t.Helper()
		got := problems(t, bundle, product, names, patterns)
		if len(words) == 0 && got != "" {
			t.Errorf("a whole bundle is refused: %s", got)
		}
		for _, word := range words {
			if !strings.Contains(got, word) {
				t.Errorf("it does not speak of %q: %q", word, got)
			}
		}
	}
	redis := []string{"redis-server", "redis-sentinel"}
	expect("redis", redis, nil, "gpuq_redis_files", "manifest.sha256")

	put("redis/redis-server_7_amd64.deb", "server")
	put("redis/redis-sentinel_7_amd64.deb", "sentinel")
	put("manifest.sha256", fmt.Sprintf("%x  redis/redis-server_7_amd64.deb\n%x  redis/redis-sentinel_7_amd64.deb\n",
		sha256.Sum256([]byte("server")), sha256.Sum256([]byte("sentinel"))))
	expect("redis", redis, nil)
	expect("redis", []string{"redis-server=7"}, nil)
	expect("redis", []string{"redis"}, nil, "no package redis of redis")
	expect("rabbitmq", []string{"rabbitmq-server"}, nil, "no package rabbitmq-server", "gpuq_rabbitmq_files")

	put("redis/redis-server_7_amd64.deb", "another")
	expect("redis", redis, nil, "redis-server_7_amd64.deb is not what manifest.sha256 says")
	if err := os.Remove(filepath.Join(bundle, "redis", "redis-sentinel_7_amd64.deb")); err != nil {
		t.Fatal(err)
	}
	expect("redis", redis, nil, "redis-sentinel_7_amd64.deb is missing")

	// Files that are named go before the bundle, and each pattern is one.
	expect("redis", redis, []string{filepath.Join(bundle, "redis", "redis-server_*.deb")})
	expect("redis", redis, []string{"/nowhere/redis_*.deb"}, "/nowhere/redis_*.deb is 0 files", "gpuq_redis_files")
}
