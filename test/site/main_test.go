package site

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"gpuqd/test/lab"
)

// root is the repository, seen from here.
var root = func() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}()

func TestMain(m *testing.M) { lab.Main(m, takeDown) }

// current is what takeDown ends.
var current struct {
	mu   sync.Mutex
	lab  *lab.Lab
	dir  string
	keep bool // a part has failed, and GPUQ_SITE_KEEP is set
}

func takeDown() error {
	current.mu.Lock()
	defer current.mu.Unlock()
	if current.lab == nil {
		return nil
	}
	if current.keep {
		fmt.Fprintf(os.Stderr, "the site is kept: inventory in %s, ssh -F %s root@site-gpu1\n", current.dir, current.lab.Config())
		return nil
	}
	defer func() { current.lab = nil }()
	return errors.Join(current.lab.Close(), os.RemoveAll(current.dir))
}

// site is bare hosts, an inventory that makes a site of them, and what is installed.
type site struct {
	lab       *lab.Lab
	dir       string // of all that is made for it on this machine
	inventory string // the inventory's directory
	debs      string // gpuqd's packages, in a directory for each version
	// thirdParty has the packages of what Debian lacks, without a version in the pattern.
	thirdParty string
}

// The hosts, by what they are for. The last GPU host joins later.
var (
	brokers  = []string{"site-mq1", "site-mq2", "site-mq3"}
	gpus     = []string{"site-gpu1", "site-gpu2"}
	watchers = []string{"site-mon1"}
)

const joining = "site-gpu3"

// setUpTimeout bounds the boot of the hosts, base systems included, and the builds:
// the first time Loki and Promtail take a quarter of an hour.
const setUpTimeout = 45 * time.Minute

// need boots the hosts and builds what is installed on them.
func need(t *testing.T) *site {
	t.Helper()
	if os.Getenv("GPUQ_SITE") == "" {
		t.Skip("skipped: it boots Debian hosts, which needs root and minutes; `make e2e/site` runs it")
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), setUpTimeout)
	defer cancel()
	l, err := lab.New("python3", "python3-apt", "sudo")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "gpuq-site-")
	if err != nil {
		t.Fatal(errors.Join(err, l.Close()))
	}
	current.mu.Lock()
	current.lab, current.dir = l, dir
	current.mu.Unlock()
	t.Cleanup(func() {
		current.mu.Lock()
		defer current.mu.Unlock()
		current.keep = t.Failed() && os.Getenv("GPUQ_SITE_KEEP") != ""
	})
	s := &site{lab: l, dir: dir, inventory: filepath.Join(dir, "inventory")}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.Up(ctx, lab.Container, s.all()...) })
	group.Go(func() error { return s.build(ctx) })
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	s.writeInventory(t, s.debs+"/"+versionFirst, false)
	t.Logf("hosts and packages took %.0f s", time.Since(began).Seconds())
	return s
}

func (s *site) all() []string {
	return append(slices.Concat(brokers, gpus, watchers), joining)
}

// writeInventory writes the inventory, with the host that joins or without it.
func (s *site) writeInventory(t *testing.T, debs string, joined bool) {
	t.Helper()
	workers := gpus
	if joined {
		workers = append(slices.Clone(gpus), joining)
	}
	group := func(name string, hosts []string) string {
		text := name + ":\n  hosts:\n"
		for _, host := range hosts {
			address, err := s.lab.Host(host).Address()
			if err != nil {
				t.Fatal(err)
			}
			text += fmt.Sprintf("    %s: {gpuq_address: %s}\n", host, address)
		}
		return text
	}
	s.write(t, "hosts.yml", strings.Join([]string{
		group("gpuq_rabbitmq", brokers), group("gpuq_ledger", brokers), group("gpuq_redis", brokers),
		group("gpuq_gpu", workers), group("gpuq_monitoring", watchers),
	}, ""))
	s.write(t, "group_vars/all.yml", fmt.Sprintf(settings, s.lab.Config(), s.thirdParty, debs))
}

// settings are the site's. The containers have this machine's clock, and one
// adaption of the unit to them, as test/hosts explains. Grafana is not to be had.
const settings = `ansible_user: root
ansible_ssh_common_args: -F %[1]s
gpuq_preflight_small: true
gpuq_preflight_memory_mib: 512
gpuq_preflight_disk_mib: 1024
gpuq_common_time: none
gpuq_ledger_flavour: wire
gpuq_mongodb_wire_files: ["%[2]s/gpuq-mongowire_*.deb"]
gpuq_rabbitmq_users:
  - name: alice
gpuq_rabbitmq_disk_free_limit: 64MB
gpuq_rabbitmq_wal_bytes_max: 32000000
gpuq_redis_memory_max: 32mb
gpuq_gpuqd_files: ["%[3]s/gpuqctl_*.deb", "%[3]s/gpuqd_*.deb"]
gpuq_gpuqd_device_kind: simulated
gpuq_gpuqd_account_default: gpuq
gpuq_gpuqd_lease_ttl: 30s
gpuq_gpuqd_lease_renew: 5s
gpuq_gpuqd_unit: |
  [Service]
  ProtectProc=default
gpuq_verify_hold: 5
gpuq_loki_packages: files
gpuq_loki_files: ["%[2]s/loki_*.deb"]
gpuq_promtail_packages: files
gpuq_promtail_files: ["%[2]s/promtail_*.deb"]
gpuq_grafana_packages: none
`

// write writes a file of the inventory.
func (s *site) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(s.inventory, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// on runs a command line on a host, which has to succeed.
func (s *site) on(t *testing.T, host, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := s.lab.Host(host).Output(ctx, command)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}
