package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"

	"gpuqd/daemon/health"
	"gpuqd/daemon/runner"
)

// machine describes the machine, and what runs on it.
func (r *rig) machine(ctx context.Context) (m Machine, err error) {
	m = Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), Ledger: "SQLite, " + sqliteVersion(ctx, r), Cgroups: runner.TryCgroup() == nil}
	if m.CPU, err = inFile("/proc/cpuinfo", `model name\s*: (.*)`); err != nil {
		m.CPU = runtime.GOARCH // other architectures name none
	}
	kib, err := inFile("/proc/meminfo", `MemTotal:\s*(\d+) kB`)
	if err != nil {
		return m, err
	}
	if _, err := fmt.Sscan(kib, &m.Memory); err != nil {
		return m, err
	}
	m.Memory /= 1 << 20
	// What a vendor appends to it says nothing to a reader.
	if m.Kernel, err = inFile("/proc/sys/kernel/osrelease", `^([^-\s]+)`); err != nil {
		return m, err
	}
	loads, err := inFile("/proc/loadavg", `^(\S+ \S+ \S+)`)
	if err != nil {
		return m, err
	}
	m.Load = make([]float64, 3)
	if _, err := fmt.Sscan(loads, &m.Load[0], &m.Load[1], &m.Load[2]); err != nil {
		return m, err
	}
	disk, err := health.DiskOf(r.dir)
	if err != nil {
		return m, err
	}
	m.FileSystem = disk.Kind
	version, err := r.Rabbit().Eval(ctx, r.Rabbit().Nodes[0], "rabbit_misc:version().")
	if err != nil {
		return m, err
	}
	m.RabbitMQ = strings.Trim(version, `"`)
	out, err := exec.CommandContext(ctx, "redis-server", "--version").Output()
	if err != nil {
		return m, err
	}
	m.Redis = match(`v=(\S+)`, string(out))
	m.Commit, err = r.commit(ctx)
	return m, err
}

// commit asks gpuqd what it was built from, or git, where the build did not say.
func (r *rig) commit(ctx context.Context) (string, error) {
	v, err := r.client.Version(ctx)
	if err != nil {
		return "", err
	}
	if commit, dirty := strings.CutSuffix(v.Commit, "-dirty"); commit != "" {
		commit = commit[:min(len(commit), 12)]
		if dirty {
			commit += ", changed"
		}
		return commit, nil
	}
	out, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "not known", nil // a copy without a history
	}
	commit := strings.TrimSpace(string(out))
	if out, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--untracked-files=no").Output(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		commit += ", changed"
	}
	return commit, nil
}

// sqliteVersion asks the library that gpuqd is linked with.
func sqliteVersion(ctx context.Context, r *rig) string {
	p, err := r.newPreload(ctx)
	if err != nil {
		return "version not known"
	}
	defer p.close()
	var version string
	if err := p.db.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&version); err != nil {
		return "version not known"
	}
	return version
}

// inFile returns the first group of a pattern's first match in a file.
func inFile(path, pattern string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if found := match("(?m)"+pattern, string(text)); found != "" {
		return strings.TrimSpace(found), nil
	}
	return "", fmt.Errorf("%s has no match of %s", path, pattern)
}

func match(pattern, text string) string {
	found := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if found == nil {
		return ""
	}
	return found[1]
}
