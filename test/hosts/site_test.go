package hosts

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/test/lab"
	"gpuqd/test/services"
	"gpuqd/test/wait"
)

// host is a host of the site that runs gpuqd. Its name in the ledger, and that
// of its pool, is its role; the lab may call it otherwise.
type host struct {
	*lab.Host
	role string
}

// site is the hosts, and what is installed on them.
type site struct {
	lab  *lab.Lab
	svc  *lab.Host
	gpus []*host
	vm   *host

	secrets secrets
	files   built

	vmOnce sync.Once
	vmErr  error

	mu   sync.Mutex
	jobs map[string][]job.ID // by test; guarded by mu
}

func newSite(l *lab.Lab, names []string) *site {
	s := &site{lab: l, svc: l.Host(names[0]), secrets: newSecrets(), jobs: map[string][]job.ID{}}
	for i, role := range []string{"gpu1", "gpu2", "gpu3"} {
		s.gpus = append(s.gpus, &host{l.Host(names[i+1]), role})
	}
	s.vm = &host{role: "vm"}
	return s
}

// install makes the site: services, and gpuqd on gpu1 to gpu3. What is built for
// that goes into dir.
func (s *site) install(ctx context.Context, dir string) error {
	// First of all, in a lab that is kept: a daemon of an earlier run would put its
	// session into the new ledger.
	for _, h := range s.gpus {
		if err := h.clean(ctx); err != nil {
			return fmt.Errorf("clean %s: %w", h.role, err)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	services := make(chan struct{})
	built := make(chan struct{})
	group.Go(func() error {
		defer close(services)
		return s.installServices(ctx)
	})
	group.Go(func() (err error) {
		defer close(built)
		s.files, err = build(ctx, dir)
		return err
	})
	for _, h := range s.gpus {
		group.Go(func() error {
			<-built
			<-services
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return s.installHost(ctx, h)
		})
	}
	return group.Wait()
}

// needVM boots the machine with a kernel of its own, once, and returns it.
func (s *site) needVM(t *testing.T) *host {
	t.Helper()
	s.vmOnce.Do(func() {
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), setUpTimeout)
		defer cancel()
		name := vmName()
		if s.vmErr = s.lab.Up(ctx, lab.Machine, name); s.vmErr != nil {
			return
		}
		s.vm.Host = s.lab.Host(name)
		s.vmErr = s.installHost(ctx, s.vm)
		t.Logf("the machine with cgroup v2 took %.0f s", time.Since(began).Seconds())
	})
	if s.vmErr != nil {
		t.Fatalf("there is no machine with cgroup v2: %v", s.vmErr)
	}
	s.expectWhole(t, s.vm)
	return s.vm
}

// vmName is the lab's name for it.
func vmName() string {
	if dir := os.Getenv("GPUQ_LAB"); dir != "" {
		text, _ := os.ReadFile(filepath.Join(dir, "hosts")) // openLab has read it
		return strings.Fields(string(text))[4]
	}
	return hostNames[4]
}

// rabbitConf is the broker's, with the settings that gpuqd needs of it; the
// accounts come with the definitions.
const rabbitConf = `listeners.tcp.1 = 0.0.0.0:5672
load_definitions = /etc/rabbitmq/definitions.json
consumer_timeout = 2592000000
max_message_size = 2097152
disk_free_limit.absolute = 64MB
raft.wal_max_size_bytes = 32000000
`

const redisConf = `bind 0.0.0.0
protected-mode yes
requirepass %s
save ""
`

// installServices installs and starts RabbitMQ, Redis and the MongoDB-wire
// stand-in. Where they are, from an earlier run, they get the new passwords.
func (s *site) installServices(ctx context.Context) error {
	wire, err := services.BuildMongowire(ctx)
	if err != nil {
		return err
	}
	definitions, err := s.secrets.definitions()
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return s.svc.Write(ctx, "/etc/rabbitmq/rabbitmq.conf", []byte(rabbitConf), 0o644) },
		func() error { return s.svc.Write(ctx, "/etc/rabbitmq/definitions.json", definitions, 0o644) },
		func() error { return s.svc.Write(ctx, "/etc/rabbitmq/enabled_plugins", []byte("[].\n"), 0o644) },
		func() error {
			return s.svc.Write(ctx, "/etc/redis/gpuq.conf", fmt.Appendf(nil, redisConf, s.secrets.redis), 0o644)
		},
		func() error { return s.svc.Push(ctx, wire, "/usr/local/bin/mongowire") },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	_, err = s.svc.Output(ctx, `set -e
export DEBIAN_FRONTEND=noninteractive
[ -x /usr/sbin/rabbitmqctl ] && [ -x /usr/bin/redis-server ] || {
	apt-get update -qq
	apt-get install -qq -y --no-install-recommends -o Dpkg::Options::=--force-confold rabbitmq-server redis-server
}
systemctl stop rabbitmq-server
rm -rf /var/lib/rabbitmq/mnesia/*
systemctl start rabbitmq-server
grep -qx 'include /etc/redis/gpuq.conf' /etc/redis/redis.conf || echo 'include /etc/redis/gpuq.conf' >>/etc/redis/redis.conf
systemctl restart redis-server
systemctl stop mongowire 2>/dev/null || true
systemctl reset-failed mongowire 2>/dev/null || true
rm -rf /var/lib/mongowire
systemd-run --quiet --unit=mongowire --property=Restart=always \
	/usr/local/bin/mongowire --listen 0.0.0.0:27017 --any-address --dir /var/lib/mongowire
rabbitmqctl --quiet await_startup
`)
	if err != nil {
		return fmt.Errorf("install the services: %w", err)
	}
	return nil
}

// hosts returns what the ledger knows of the hosts, by role, asked of a host
// whose daemon answers.
func (s *site) hosts(t *testing.T) (map[string]control.HostRow, error) {
	t.Helper()
	r, err := s.tryCtl(t, "hosts", "--json")
	if err != nil {
		return nil, err
	}
	var rows []control.HostRow
	if err := json.Unmarshal([]byte(r.Stdout), &rows); err != nil {
		return nil, fmt.Errorf("gpuqctl hosts: exit code %d, %s: %w", r.Code, r.Stderr, err)
	}
	all := map[string]control.HostRow{}
	for _, row := range rows {
		all[row.Name] = row
	}
	return all, nil
}

// wholeTimeout bounds how long a site takes to become whole again: an expired
// session, new boots.
const wholeTimeout = 2 * time.Minute

// expectWhole waits until these hosts are live, idle, and take work.
func (s *site) expectWhole(t *testing.T, hosts ...*host) {
	t.Helper()
	wait.For(t, wholeTimeout, func() error {
		rows, err := s.hosts(t)
		if err != nil {
			return err
		}
		for _, h := range hosts {
			row, known := rows[h.role]
			if !known || !row.Live || row.Running > 0 || row.DevicesFree != devices || row.RenewedAgeSeconds > 8 || row.Drained != nil {
				return fmt.Errorf("host %s is not whole: %+v", h.role, row)
			}
		}
		return nil
	})
}

// settle undoes what a test may have left done to the hosts when it failed.
func (s *site) settle(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), wholeTimeout)
	defer cancel()
	if err := s.lab.Heal(ctx); err != nil {
		t.Errorf("heal the network: %v", err)
	}
	for _, h := range s.gpus {
		if err := h.Start(ctx); err != nil {
			t.Errorf("start %s again: %v", h.role, err)
		}
		if !t.Failed() {
			continue // it has put all back itself
		}
		if _, err := h.Output(ctx, "systemctl start systemd-journald; systemctl kill --kill-whom=main --signal=CONT gpuqd; systemctl start gpuqd"); err != nil {
			t.Errorf("start gpuqd on %s again: %v", h.role, err)
		}
	}
	s.endJobs(t)
	for _, h := range s.all() {
		if _, err := h.Output(ctx, "rm -f "+stopFile(t)); err != nil {
			t.Error(err)
		}
	}
}

// showLogs prints, after a failure, what every host has to say about it.
func (s *site) showLogs(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	for _, h := range s.all() {
		r, err := h.Run(ctx, `systemctl --no-pager status gpuqd | head -n 20
systemctl --no-pager list-units --all 'gpuqd-job-*'
journalctl --no-pager -o short-precise -n 60 -u gpuqd.service
journalctl --no-pager -o short-precise -n 40 -u 'gpuqd-job-*'`)
		t.Logf("%s says (%v):\n%s%s", h.role, err, r.Stdout, r.Stderr)
	}
}

// all returns the hosts of the site that have been made.
func (s *site) all() []*host {
	if s.vm.Host == nil {
		return s.gpus
	}
	return append(append([]*host{}, s.gpus...), s.vm)
}
