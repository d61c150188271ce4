package hosts

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"gpuqd/daemon/config"
	"gpuqd/daemon/job"
	"gpuqd/test/hosts/witness"
	"gpuqd/test/lab"
)

// Versions of the packages under test, built from this tree; both programs are
// the same but for what they say of themselves.
const (
	versionFirst = "1.0.0"
	versionNext  = "1.1.0"
)

// built is what is installed on hosts.
type built struct {
	debs    map[string][]string // paths of the packages, by version
	payload string
}

// build makes the packages in both versions, and the payload, in dir. GPUQ_HOSTS_DEBS
// names a directory that has them already, in a directory for each version.
func build(ctx context.Context, dir string) (built, error) {
	b := built{debs: map[string][]string{}, payload: filepath.Join(dir, "gpuq-payload")}
	if err := goBuild(ctx, "build", "-o", b.payload, "gpuqd/test/hosts/gpuq-payload"); err != nil {
		return b, err
	}
	debs := os.Getenv("GPUQ_HOSTS_DEBS")
	for _, version := range []string{versionFirst, versionNext} {
		from := filepath.Join(debs, version)
		if debs == "" {
			from = filepath.Join(dir, version)
			make := exec.CommandContext(ctx, "make", "--no-print-directory", "-C", "../..", "packages/build", "VERSION="+version, "OUT="+from)
			if out, err := make.CombinedOutput(); err != nil {
				return b, fmt.Errorf("make packages/build: %w: %s", err, out)
			}
		}
		found, err := filepath.Glob(filepath.Join(from, "*.deb"))
		if err != nil || len(found) != 2 {
			return b, fmt.Errorf("want two packages in %s, found %v (%w)", from, found, err)
		}
		b.debs[version] = found
	}
	return b, nil
}

func goBuild(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// The person who submits, on every host: root's jobs are refused. Her groups
// are what a job must have, too.
const (
	person    = "alice"
	personUID = 4711
	personGID = 4712
	extraGID  = 4713
)

// installHost makes a gpuqd host: people, packages, settings, secrets.
func (s *site) installHost(ctx context.Context, h *host) error {
	step := func(what string, err error) error {
		if err != nil {
			err = fmt.Errorf("install %s: %s: %w", h.role, what, err)
		}
		return err
	}
	if err := h.clean(ctx); err != nil {
		return step("remove an earlier installation", err)
	}
	_, err := h.Output(ctx, fmt.Sprintf(`set -e
getent group %[1]s >/dev/null || groupadd -g %[3]d %[1]s
getent group crew >/dev/null || groupadd -g %[4]d crew
id %[1]s >/dev/null 2>&1 || useradd -m -s /bin/sh -u %[2]d -g %[3]d -G crew %[1]s
install -d -m 1777 %[5]s`, person, personUID, personGID, extraGID, witness.Dir))
	if err != nil {
		return step("make a user", err)
	}
	if h != s.vm {
		if err := h.Write(ctx, "/etc/systemd/system/gpuqd.service.d/lab.conf", []byte(containerUnit), 0o644); err != nil {
			return step("fit the unit to a container", err)
		}
	}
	if err := h.Push(ctx, s.files.payload, payload); err != nil {
		return step("copy the payload", err)
	}
	if err := s.installPackages(ctx, h, versionFirst); err != nil {
		return step("install the packages", err)
	}
	return step("configure it", s.configure(ctx, h))
}

// containerUnit is what the unit needs in a container of systemd-nspawn, which
// gives it a boot ID of its own by a mount over the kernel's: the unit's own /proc,
// which ProtectProc= makes, would show the kernel's, and shims another one than
// their daemon. The machine runs the unit as it is shipped.
const containerUnit = "[Service]\nProtectProc=default\n"

// payload is where it is on each host.
const payload = "/usr/local/bin/gpuq-payload"

// clean removes what an earlier run has left on a host of a lab that is kept.
func (h *host) clean(ctx context.Context) error {
	_, err := h.Output(ctx, `set -e
systemctl stop 'gpuqd-job-*' gpuqd 2>/dev/null || true
dpkg -s gpuqd >/dev/null 2>&1 && DEBIAN_FRONTEND=noninteractive apt-get purge -qq -y gpuqd gpuqctl
rm -rf /var/lib/gpuqd /etc/gpuqd /run/gpuqd /etc/systemd/system/gpuqd.service.d `+witness.Dir+`
systemctl daemon-reload`)
	return err
}

// installPackages copies a version's packages to the host and has apt install
// them, over whatever other version is there.
func (s *site) installPackages(ctx context.Context, h *host, version string) error {
	var files []string
	for _, deb := range s.files.debs[version] {
		to := "/var/tmp/" + filepath.Base(deb)
		if err := h.Push(ctx, deb, to); err != nil {
			return err
		}
		files = append(files, to)
	}
	_, err := h.Output(ctx, "DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends --allow-downgrades "+lab.Quote(files...))
	return err
}

// How many devices a host simulates.
const devices = 2

// The lease of the site: short, so that its loss does not take long to test.
const (
	leaseTTL   = 15 * time.Second
	leaseRenew = 2 * time.Second
	leaseGrace = 5 * time.Second // after it, others take over
)

// settings returns the host's gpuqd.toml.
func (s *site) settings(h *host) config.Config {
	c := config.Default()
	c.Host.Name = h.role
	c.Host.Pools = []string{h.role}
	if h != s.vm {
		c.Host.Pools = append(c.Host.Pools, "default")
	}
	c.Broker.URLs = []string{"amqp://" + s.svc.Name + ":5672/"}
	c.Broker.User = account
	c.Broker.PasswordFile = "$CREDENTIALS_DIRECTORY/broker.password"
	c.Ledger.Kind = config.LedgerMongoDB
	c.Ledger.URI = "mongodb://" + s.svc.Name + ":27017/"
	c.Ledger.Database = "gpuq"
	c.Ledger.SingleNode = true
	c.Redis.Addresses = []string{s.svc.Name + ":6379"}
	c.Redis.PasswordFile = "$CREDENTIALS_DIRECTORY/redis.password"
	c.Lease.TTL, c.Lease.Renew = job.Duration(leaseTTL), job.Duration(leaseRenew)
	c.Device.Kind = config.DeviceSim
	c.Device.SimulatedCount = devices
	c.Device.SimulatedNodes = nodes
	return c
}

// configure writes the host's settings and secrets, and starts gpuqd.
func (s *site) configure(ctx context.Context, h *host) error {
	if err := s.writeSettings(ctx, h, nil); err != nil {
		return err
	}
	for name, secret := range map[string]string{"broker": s.secrets.broker, "redis": s.secrets.redis} {
		if err := h.Write(ctx, "/etc/gpuqd/"+name+".password", []byte(secret+"\n"), 0o600); err != nil {
			return err
		}
	}
	_, err := h.Output(ctx, "systemctl enable --quiet --now gpuqd || { journalctl --no-pager -n 30 -u gpuqd; exit 1; }")
	return err
}

// writeSettings writes the host's gpuqd.toml, with what is to be other than usual.
func (s *site) writeSettings(ctx context.Context, h *host, change func(*config.Config)) error {
	c := s.settings(h)
	if change != nil {
		change(&c)
	}
	if err := c.Validate(); err != nil {
		return err
	}
	var text bytes.Buffer
	if err := toml.NewEncoder(&text).Encode(c); err != nil {
		return err
	}
	return h.Write(ctx, "/etc/gpuqd/gpuqd.toml", text.Bytes(), 0o644)
}
