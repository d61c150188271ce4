// Package imports holds the module to its layout: which package may know which,
// and what may be linked into which program.
package imports

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "gpuqd"

// pkg is what go list tells of one package.
type pkg struct {
	ImportPath   string
	Name         string
	Doc          string
	Standard     bool
	Imports      []string
	Deps         []string
	CgoFiles     []string
	Dir          string
	TestGoFiles  []string
	XTestGoFiles []string
}

// list runs go list once for all tests: every package of the module, with all
// that they pull in. cgo is on, or files that need it would be passed over.
var list = sync.OnceValues(func() (map[string]pkg, error) {
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Name,Doc,Standard,Imports,Deps,CgoFiles,Dir,TestGoFiles,XTestGoFiles", module+"/...")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=1")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = errors.Join(err, errors.New(string(exit.Stderr)))
		}
		return nil, err
	}
	all := map[string]pkg{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all[p.ImportPath] = p
	}
})

func packages(t *testing.T) map[string]pkg {
	t.Helper()
	all, err := list()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// short is a package of the module without the module's name; "" for others.
func short(path string) string {
	rest, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return ""
	}
	return rest
}

// own returns the module's packages among paths, shortened and sorted.
func own(paths []string) []string {
	var list []string
	for _, path := range paths {
		if s := short(path); s != "" {
			list = append(list, s)
		}
	}
	slices.Sort(list)
	return list
}

// within reports whether path is the package named by prefix or below it.
func within(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

// allowed is the layout: each package of the daemon and of gpuqctl, lowest
// first, with the packages of the module that it may import. A package that is
// not here is an error: say where it belongs.
var allowed = map[string][]string{
	"daemon/job":             {},
	"daemon/health":          {},
	"daemon/durable":         {},
	"daemon/fault":           {"daemon/job"},
	"daemon/version":         {},
	"daemon/runner/proctree": {},
	"daemon/journald":        {},
	"daemon/systembus":       {},

	"daemon/config":         {"daemon/fault", "daemon/job"},
	"daemon/broker":         {"daemon/health", "daemon/job"},
	"daemon/dedup":          {"daemon/health", "daemon/job"},
	"daemon/device":         {"daemon/durable", "daemon/fault", "daemon/job"},
	"daemon/ledger":         {"daemon/health", "daemon/job"},
	"daemon/placement":      {"daemon/job"},
	"daemon/ledger/mongodb": {"daemon/health", "daemon/job", "daemon/ledger"},
	"daemon/ledger/sqlite":  {"daemon/health", "daemon/job", "daemon/ledger"},
	"daemon/runner":         {"daemon/job", "daemon/runner/proctree"},
	"daemon/runner/systemd": {"daemon/job", "daemon/runner", "daemon/runner/proctree", "daemon/systembus"},
	"daemon/power":          {"daemon/systembus"},
	"daemon/account":        {"daemon/runner"},
	"daemon/owner":          {"daemon/device", "daemon/job", "daemon/runner", "daemon/runner/proctree"},

	"daemon/control": {"daemon/broker", "daemon/config", "daemon/fault", "daemon/job"},
	"daemon/agent": {
		"daemon/broker", "daemon/config", "daemon/control", "daemon/device", "daemon/durable", "daemon/fault", "daemon/health", "daemon/job",
		"daemon/journald", "daemon/ledger", "daemon/placement", "daemon/runner",
	},

	"daemon/journald/handler": {"daemon/journald"},
	"daemon/nvml":             {"daemon/device"},
	"daemon/shim":             {"daemon/job", "daemon/journald", "daemon/runner", "daemon/runner/proctree"},
	"ctl":                     {"daemon/config", "daemon/control", "daemon/fault", "daemon/job", "daemon/version"},
	"daemon": {
		"daemon/account", "daemon/agent", "daemon/broker", "daemon/config", "daemon/control", "daemon/dedup", "daemon/device",
		"daemon/durable", "daemon/job", "daemon/journald", "daemon/journald/handler", "daemon/ledger", "daemon/ledger/mongodb",
		"daemon/ledger/sqlite", "daemon/owner", "daemon/power", "daemon/runner", "daemon/runner/systemd", "daemon/version",
	},

	// Suites that the tests of several packages share.
	"daemon/journald/journaldtest": {},
	"daemon/ledger/ledgertest":     {"daemon/job", "daemon/ledger"},
	"daemon/runner/runnertest":     {"daemon/job", "daemon/journald/journaldtest", "daemon/runner", "daemon/runner/proctree"},
}

func TestArrowsRunDownwardsOnly(t *testing.T) {
	all := packages(t)
	for path, p := range all {
		name := short(path)
		if !within(name, "daemon") && !within(name, "ctl") {
			continue
		}
		below, ok := allowed[name]
		if !ok {
			t.Errorf("%s is not in the layout: add it, with what it may import", name)
			continue
		}
		for _, imported := range own(p.Imports) {
			if !slices.Contains(below, imported) {
				t.Errorf("%s imports %s, which is not below it", name, imported)
			}
		}
	}
	for name := range allowed {
		if _, ok := all[module+"/"+name]; !ok {
			t.Errorf("%s is in the layout and nowhere else: remove it there", name)
		}
	}
}

// stores are the ways to each store. A package that knew two of them could
// decide by the one what belongs to the other.
var stores = map[string][]string{
	"RabbitMQ": {"github.com/rabbitmq/amqp091-go", "gpuqd/daemon/broker"},
	"MongoDB":  {"go.mongodb.org/mongo-driver", "gpuqd/daemon/ledger/mongodb"},
	"SQLite":   {"modernc.org/sqlite", "database/sql", "gpuqd/daemon/ledger/sqlite"},
	"Redis":    {"github.com/redis/go-redis", "gpuqd/daemon/dedup"},
}

// TestNoPackageKnowsTwoStores: main alone wires them; test servers are not the
// daemon's business.
func TestNoPackageKnowsTwoStores(t *testing.T) {
	known := map[string]int{}
	for path, p := range packages(t) {
		name := short(path)
		if !within(name, "daemon") && !within(name, "ctl") || name == "daemon" {
			continue
		}
		var knows []string
		for store, ways := range stores {
			for _, way := range ways {
				if slices.ContainsFunc(p.Imports, func(i string) bool { return within(i, way) }) && !slices.Contains(knows, store) {
					knows = append(knows, store)
					known[store]++
				}
			}
		}
		if len(knows) > 1 {
			slices.Sort(knows)
			t.Errorf("%s knows %s", name, strings.Join(knows, " and "))
		}
	}
	for store := range stores {
		if known[store] == 0 {
			t.Errorf("no package knows %s: its ways are written wrong here", store)
		}
	}
}

// TestEachClientLibraryHasOneUser: what the far end of a library can do is known
// in one place.
func TestEachClientLibraryHasOneUser(t *testing.T) {
	users := map[string]string{
		"github.com/rabbitmq/amqp091-go":      "daemon/broker",
		"go.mongodb.org/mongo-driver":         "daemon/ledger/mongodb",
		"modernc.org/sqlite":                  "daemon/ledger/sqlite",
		"github.com/redis/go-redis":           "daemon/dedup",
		"github.com/NVIDIA/go-nvml":           "daemon/nvml",
		"github.com/coreos/go-systemd":        "daemon",
		"github.com/spf13/cobra":              "ctl",
		"github.com/prometheus/client_golang": "",
	}
	found := map[string]bool{}
	for path, p := range packages(t) {
		name := short(path)
		if !within(name, "daemon") && !within(name, "ctl") {
			continue
		}
		for _, imported := range p.Imports {
			for library, user := range users {
				if !within(imported, library) {
					continue
				}
				found[library] = true
				if user != "" && name != user {
					t.Errorf("%s imports %s, which is for %s", name, imported, user)
				}
				if user == "" && name != "daemon" && name != "daemon/agent" {
					t.Errorf("%s imports %s: metrics are built by the agent", name, imported)
				}
			}
		}
	}
	for library := range users {
		if !found[library] {
			t.Errorf("nobody imports %s: remove it here", library)
		}
	}
}

// programs are what is shipped. The reasons say what a forbidden import would
// cost.
var programs = []struct {
	name      string
	forbidden map[string]string
}{
	{"daemon", map[string]string{
		"gpuqd/daemon/nvml": "a driver that hangs must hang its helper alone",
		"gpuqd/ctl":         "gpuqctl is a client",
	}},
	{"ctl", map[string]string{
		"gpuqd/daemon/agent":          "gpuqctl asks a daemon; it does not do its work",
		"gpuqd/daemon/ledger":         "only daemons hold ledger credentials",
		"gpuqd/daemon/dedup":          "only daemons hold Redis credentials",
		"gpuqd/daemon/device":         "gpuqctl runs where there is no GPU",
		"gpuqd/daemon/runner":         "gpuqctl runs no jobs",
		"go.mongodb.org/mongo-driver": "only daemons hold ledger credentials",
		"modernc.org/sqlite":          "only daemons hold ledger credentials",
		"github.com/redis/go-redis":   "only daemons hold Redis credentials",
	}},
	{"daemon/shim", map[string]string{
		"net/http":             "a shim per running job: it is kept small",
		"gpuqd/daemon/broker":  "a shim knows its attempt's directory and nothing else",
		"gpuqd/daemon/ledger":  "a shim knows its attempt's directory and nothing else",
		"gpuqd/daemon/agent":   "a shim outlives the daemon",
		"gpuqd/daemon/config":  "a restart with another configuration must not change a running job",
		"gpuqd/daemon/control": "a shim answers nobody",

		"gpuqd/daemon/runner/systemd": "a shim per running job: it is kept small",
		"github.com/godbus/dbus":      "a shim per running job: it is kept small",
	}},
	{"daemon/nvml", map[string]string{
		"net/http":            "it may hang in a driver for a long time: it is kept small",
		"gpuqd/daemon/runner": "it only looks",
		"gpuqd/daemon/agent":  "it only looks",
	}},
}

// testLibraries must not be part of what is shipped.
var testLibraries = []string{
	"testing", "net/http/httptest", "pgregory.net/rapid", "go.uber.org/goleak",
	"gpuqd/test", "gpuqd/daemon/ledger/ledgertest", "gpuqd/daemon/runner/runnertest", "gpuqd/examples",
}

func TestProgramsLinkNothingForbidden(t *testing.T) {
	all := packages(t)
	for _, program := range programs {
		p, ok := all[module+"/"+program.name]
		if !ok || p.Name != "main" {
			t.Errorf("%s is no program", program.name)
			continue
		}
		for _, dep := range p.Deps {
			for banned, reason := range program.forbidden {
				if within(dep, banned) {
					t.Errorf("%s links %s: %s", program.name, dep, reason)
				}
			}
			for _, library := range testLibraries {
				if within(dep, library) {
					t.Errorf("%s links %s, which is for tests", program.name, dep)
				}
			}
		}
	}
}

// TestOnlyTheDeviceHelperLinksC: the other programs are static and run on any
// Linux. net, os/user and the like have a pure form, which the build chooses.
func TestOnlyTheDeviceHelperLinksC(t *testing.T) {
	all := packages(t)
	usesC := func(name string) []string {
		var list []string
		for _, dep := range append(slices.Clone(all[module+"/"+name].Deps), module+"/"+name) {
			if p := all[dep]; !p.Standard && len(p.CgoFiles) > 0 {
				list = append(list, dep)
			}
		}
		return list
	}
	for _, program := range programs {
		list := usesC(program.name)
		if helper := program.name == "daemon/nvml"; helper != (len(list) > 0) {
			t.Errorf("%s: packages with cgo: %q", program.name, list)
		}
	}
	for path, p := range all {
		if short(path) != "" && (len(p.CgoFiles) > 0 || slices.Contains(p.Imports, "C")) {
			t.Errorf("%s uses cgo itself", path)
		}
	}
}

// TestGpuqctlKnowsTheClientSideOnly: what gpuqctl reaches of the module, through
// any number of steps.
func TestGpuqctlKnowsTheClientSideOnly(t *testing.T) {
	want := []string{"daemon/broker", "daemon/config", "daemon/control", "daemon/fault", "daemon/health", "daemon/job", "daemon/version"}
	if got := own(packages(t)["gpuqd/ctl"].Deps); !slices.Equal(got, want) {
		t.Errorf("gpuqctl is made of %q, want %q", got, want)
	}
}

// TestPurePackagesDoNoIO: no clock of their own, no files, no network; their
// direct imports show it.
func TestPurePackagesDoNoIO(t *testing.T) {
	for _, name := range []string{"daemon/job", "daemon/placement"} {
		for _, imported := range packages(t)[module+"/"+name].Imports {
			for _, banned := range []string{"os", "net", "syscall", "math/rand", "context", "log", "golang.org/x/sys"} {
				if within(imported, banned) {
					t.Errorf("%s imports %s, and is to be pure", name, imported)
				}
			}
		}
	}
}

// TestEveryPackageHasAComment: where a package is tests alone, one of them says
// what is tested.
func TestEveryPackageHasAComment(t *testing.T) {
	for path, p := range packages(t) {
		if short(path) == "" || p.Doc != "" {
			continue
		}
		commented := false
		for _, name := range append(slices.Clone(p.TestGoFiles), p.XTestGoFiles...) {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			commented = commented || file.Doc != nil
		}
		if !commented {
			t.Errorf("%s has no package comment: say what it is for", path)
		}
	}
}
