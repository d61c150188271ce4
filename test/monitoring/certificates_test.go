package monitoring

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const certificates = root + "/ansible/roles/node_exporter/files/gpuq-certificates"

// certificate writes a chain of certificates that end at these times.
func certificate(t *testing.T, path string, ends ...time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var chain []byte
	for _, end := range ends {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "gpu1"},
			NotBefore: end.Add(-time.Hour), NotAfter: end, DNSNames: []string{"gpu1"},
		}
		der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if err := os.WriteFile(path, chain, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestEndsOfCertificatesAreTold(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	soon, late := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC), time.Date(2071, 1, 2, 3, 4, 5, 0, time.UTC) // years of two digits, and of four
	certificate(t, file("host.pem"), soon)
	certificate(t, file("ca.pem"), late)
	certificate(t, file("chain.pem"), late, soon)
	line := func(name string, end time.Time) string {
		return fmt.Sprintf("gpuq_certificate_expiry_timestamp_seconds{file=%q} %d\n", file(name), end.Unix())
	}
	run := func(names ...string) (string, error) {
		args := []string{certificates, file("out.prom")}
		for _, name := range names {
			args = append(args, file(name))
		}
		said, err := exec.CommandContext(t.Context(), "python3", args...).CombinedOutput()
		if err != nil {
			t.Logf("it said: %s", said)
		}
		text, readErr := os.ReadFile(file("out.prom"))
		if readErr != nil {
			t.Fatal(readErr)
		}
		return string(text), err
	}
	t.Run("OfEachFileTheFirst", func(t *testing.T) {
		text, err := run("host.pem", "ca.pem", "chain.pem")
		if want := line("host.pem", soon) + line("ca.pem", late) + line("chain.pem", soon); err != nil || !strings.HasSuffix(text, want) {
			t.Errorf("%v, wrote\n%swant\n%s", err, text, want)
		}
		cmd := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool check metrics: %v\n%s", err, out)
		}
	})
	t.Run("FilesThatCannotBeReadAreLeftOut", func(t *testing.T) {
		if err := os.WriteFile(file("empty.pem"), []byte("no certificate"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file("torn.pem"), []byte("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		text, err := run("absent.pem", "empty.pem", "torn.pem", "host.pem")
		if err == nil || strings.Count(text, "{") != 1 || !strings.Contains(text, line("host.pem", soon)) {
			t.Errorf("%v, wrote\n%s", err, text)
		}
	})
}
