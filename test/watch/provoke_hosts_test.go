package watch

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpuqd/test/wait"
)

var targetFaults = []provocation{
	{
		fault:  "an exporter is killed and kept down",
		strike: goesDown("redis_exporter"),
		alerts: []wanted{{alert: "TargetDown", labels: map[string]string{"job": "redis"}}},
	},
	{
		fault:  "Redis is killed and kept down, while jobs run",
		strike: redisDown,
		alerts: []wanted{{alert: "RedisDown"}, {alert: "DoneCacheUnused"}},
	},
}

// redisDown has jobs besides: a daemon that asks Redis nothing does not miss it.
func redisDown(t *testing.T, s *Site) func() {
	up := s.down(t, "redis")
	for range 12 {
		s.WaitEnd(t, s.Submit(t, "true"))
	}
	return func() {
		up()
		s.WaitEnd(t, s.Submit(t, "true"))
	}
}

var hostFaults = []provocation{
	{
		fault:  "a GPU host dies: gpuqd, its job, exporter, Promtail and journald are killed and kept down",
		strike: hostDies,
		alerts: []wanted{
			{alert: "HostDown", labels: of("worker_2")},
			{alert: "HostLost"},
		},
	},
	{
		fault:  "a file system fills up to 97 % (ext4 on a loop device, in a mount namespace)",
		strike: diskFills,
		alerts: []wanted{
			{alert: "DiskAlmostFull", labels: onSmallDisk},
			{alert: "DiskFilling", labels: onSmallDisk},
		},
	},
	{
		fault:  "a certificate that ends in 2 days (gpuq-certificates looks at it)",
		strike: certificateEnds,
		alerts: []wanted{
			{alert: "CertificateExpiring", labels: of("worker_1")},
			{alert: "CertificateExpired", labels: of("worker_1")},
		},
	},
	{
		fault:  "the file of gpuq-certificates is cut off in the midst of a line",
		strike: certificatesCutOff,
		alerts: []wanted{{alert: "CertificatesUnknown", labels: of("worker_1")}},
	},
}

func hostDies(t *testing.T, s *Site) func() {
	if err := s.KillHost(t.Context(), "worker_2"); err != nil {
		t.Fatal(err)
	}
	return func() { s.up(t, "worker_2") }
}

// onSmallDisk are labels of the disk that fills up: the machine's own may do so, too.
var onSmallDisk = map[string]string{"host": "worker_3", "mountpoint": smallDiskAt}

// smallDiskAt is where the disk is mounted; nobody else sees that. Debian's exporter
// passes over /mnt and /media.
const smallDiskAt = "/srv"

// smallDisk mounts a file system at $2 and serves the metrics of the namespace, of which
// it is process 1, as the exporter reads them. Then it writes as many bytes as each line
// asks for; none makes room again. All of it ends with its input.
const smallDisk = `set -e
mount --make-rprivate /
mount -o loop "$1" "$2"
/usr/bin/prometheus-node-exporter --web.listen-address="127.0.0.1:$3" --no-collector.systemd \
	--collector.textfile.directory="$4" --log.level=warn &
echo ready
while read -r bytes; do
	rm -f "$2/full"
	head -c "$bytes" /dev/zero > "$2/full"
	sync
	echo done
done
`

// diskFills gives worker_3 a small disk, which only its exporter sees.
func diskFills(t *testing.T, s *Site) func() {
	const size = 64 << 20
	if os.Getuid() != 0 {
		t.Skip("a mount takes root")
	}
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-m0", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	up := s.down(t, "node_3")
	cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child",
		"sh", "-c", smallDisk, "sh", image, smallDiskAt, fmt.Sprint(s.port(t, "node_3")), filepath.Join(s.Dir(), "worker_3"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // by the end of its input, or by its signal
	})
	answers := bufio.NewScanner(out)
	say := func(bytes int, want string) {
		if bytes >= 0 {
			_, _ = fmt.Fprintln(in, bytes) // its end shows below
		}
		if !answers.Scan() || answers.Text() != want {
			t.Fatalf("the small disk said %q, want %q: %v", answers.Text(), want, answers.Err())
		}
	}
	say(-1, "ready")
	var free float64
	wait.For(t, patience, func() (err error) {
		free, err = s.value(t, fmt.Sprintf("node_filesystem_avail_bytes{host=%q,mountpoint=%q,device=~%q}", "worker_3", smallDiskAt, "/dev/loop.*"))
		if err == nil && free < size/2 {
			err = fmt.Errorf("%v bytes are free on %s", free, smallDiskAt)
		}
		return err
	})
	say(int(free-0.03*size), "done")
	return func() {
		say(0, "done")
		for _, alert := range []string{"DiskAlmostFull", "DiskFilling"} {
			s.waitAbsent(t, wanted{alert: alert, labels: onSmallDisk})
		}
		_ = in.Close()
		_ = cmd.Wait()
		up()
	}
}

func (s *Site) port(t *testing.T, unit string) int {
	t.Helper()
	for _, u := range s.Status() {
		if u.Name == unit {
			return u.Port
		}
	}
	t.Fatalf("there is no %s", unit)
	return 0
}

// certificates is what a site's timer runs.
const certificates = "../../ansible/roles/node_exporter/files/gpuq-certificates"

// lookAtCertificate makes a certificate that ends after a time, and has it looked at.
func lookAtCertificate(t *testing.T, s *Site, ends time.Duration) (out string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(ends)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.Dir(), "worker_1", "host.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	out = filepath.Join(s.Dir(), "worker_1", "gpuq-certificates.prom")
	if said, err := exec.Command("python3", certificates, out, path).CombinedOutput(); err != nil {
		t.Fatalf("gpuq-certificates: %v: %s", err, said)
	}
	return out
}

const day = 24 * time.Hour

func certificateEnds(t *testing.T, s *Site) func() {
	lookAtCertificate(t, s, 2*day)
	return func() { lookAtCertificate(t, s, 365*day) }
}

func certificatesCutOff(t *testing.T, s *Site) func() {
	out := lookAtCertificate(t, s, 365*day)
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	cut := text[:strings.LastIndex(string(text), "}")]
	if err := os.WriteFile(out, cut, 0o644); err != nil {
		t.Fatal(err)
	}
	return func() { lookAtCertificate(t, s, 365*day) }
}
