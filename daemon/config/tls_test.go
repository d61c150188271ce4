package config

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// Goal: a connection succeeds with the authority that signed, and with no other
// that the machine trusts.
func TestTLSTrustsTheFilesAuthorityOnly(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	signed := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	dir := t.TempDir()
	settings, err := TLS(write(t, filepath.Join(dir, "ca.pem"), signed, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: settings}
	t.Cleanup(transport.CloseIdleConnections)
	reply, err := (&http.Client{Transport: transport}).Get(server.URL)
	if err != nil {
		t.Fatalf("with the right authority: %v", err)
	}
	reply.Body.Close()

	if settings, err := TLS(""); settings != nil || err != nil {
		t.Errorf("without a file got %v, %v", settings, err)
	}
	if _, err := TLS(write(t, filepath.Join(dir, "empty.pem"), "no PEM", 0o644)); err == nil || !strings.Contains(err.Error(), "holds none that can be read") {
		t.Errorf("a file without certificates gave %v", err)
	}
	if _, err := TLS(filepath.Join(dir, "absent.pem")); err == nil {
		t.Error("an absent file was accepted")
	}
}
