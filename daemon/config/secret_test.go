package config

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSecretTrimsOneNewline(t *testing.T) {
	for text, want := range map[string]string{
		"pass word":      "pass word",
		"pass word\n":    "pass word",
		" padded ":       " padded ",
		"grüße\n":        "grüße",
		"hash#not\\cut$": "hash#not\\cut$",
	} {
		path := write(t, filepath.Join(t.TempDir(), "p"), text, 0o600)
		if got, err := Secret(path); err != nil || got != want {
			t.Errorf("the file %q gave %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestSecretRefusesContent(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "it is empty: write the password into it",
		"\n":                      "it is empty",
		"hunter2\n\n":             "it has more than one line, or control characters",
		"hunter2\r\n":             "it has more than one line, or control characters",
		"hunter2\x00":             "it has more than one line, or control characters",
		strings.Repeat("x", 4097): "it has more than 4096 bytes",
	} {
		path := write(t, filepath.Join(t.TempDir(), "p"), text, 0o600)
		got, err := Secret(path)
		if err == nil || got != "" || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("the file %q gave %q, %v; want an error with %q", text, got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func TestSecretRefusesModesOpenToOthers(t *testing.T) {
	for mode, ok := range map[os.FileMode]bool{
		0o400: true, 0o600: true, 0o700: true,
		0o640: false, 0o604: false, 0o620: false, 0o602: false, 0o610: false, 0o644: false, 0o440: false,
	} {
		path := write(t, filepath.Join(t.TempDir(), "p"), "x\n", mode)
		_, err := Secret(path)
		if ok && err != nil {
			t.Errorf("mode %04o: %v", mode, err)
		}
		if !ok && (err == nil || !strings.Contains(err.Error(), "chmod 0600 it")) {
			t.Errorf("mode %04o gave %v, want advice to chmod it", mode, err)
		}
	}
}

func TestSecretRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                           "it is no regular file",
		filepath.Join(dir, "absent"):  "no such file",
		"relative":                    "want an absolute path, or \"$CREDENTIALS_DIRECTORY/name\"",
		"":                            "want an absolute path",
		"$CREDENTIALS_DIRECTORY/../p": "want an absolute path",
		"$HOME/p":                     "want an absolute path",
	} {
		if _, err := Secret(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gave %v, want an error with %q", path, err, want)
		}
	}
	// Goal: a FIFO without a writer is refused, and does not block the start.
	done := make(chan error, 1)
	go func() { _, err := Secret(fifo); done <- err }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "it is no regular file") {
			t.Errorf("a FIFO gave %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a FIFO blocks Secret")
	}
}

func TestSecretRefusesAnotherUsersFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	path := write(t, filepath.Join(t.TempDir(), "p"), "x\n", 0o600)
	if err := os.Chown(path, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if _, err := Secret(path); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Errorf("got %v, want a refusal that names the owner", err)
	}
}

func TestSecretReadsSystemdCredentials(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "broker"), "secret\n", 0o400)
	if got, err := Secret("$CREDENTIALS_DIRECTORY/broker"); err != nil || got != "secret" {
		t.Errorf("got %q, %v", got, err)
	}
	// The mask of an ACL shows as the group's bits. Only root's own directory
	// makes that acceptable.
	group := write(t, filepath.Join(dir, "group"), "secret\n", 0o440)
	_, err := Secret("$CREDENTIALS_DIRECTORY/group")
	if isRoot := os.Geteuid() == 0; isRoot != (err == nil) {
		t.Errorf("as root %t: a credential of mode 0440 gave %v", isRoot, err)
	}
	if _, err := Secret(group); err == nil {
		t.Error("by its plain path a file of mode 0440 was accepted")
	}
	write(t, filepath.Join(dir, "world"), "secret\n", 0o444)
	if _, err := Secret("$CREDENTIALS_DIRECTORY/world"); err == nil {
		t.Error("a credential of mode 0444 was accepted")
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Secret("$CREDENTIALS_DIRECTORY/group"); err == nil {
		t.Error("mode 0440 was accepted in a directory that all can write to")
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := Secret("$CREDENTIALS_DIRECTORY/broker"); err == nil || !strings.Contains(err.Error(), "add LoadCredential=broker:<file> to the unit") {
		t.Errorf("without systemd got %v", err)
	}
}

func TestSecretsReportsEveryBadFileAtOnce(t *testing.T) {
	dir := t.TempDir()
	c := mongo()
	c.Broker.PasswordFile = write(t, filepath.Join(dir, "broker"), "b\n", 0o600)
	c.Ledger.User, c.Ledger.PasswordFile = "u", write(t, filepath.Join(dir, "ledger"), "l\n", 0o600)
	c.Redis.PasswordFile = write(t, filepath.Join(dir, "redis"), "r\n", 0o600)
	if got, err := c.Secrets(); err != nil || got != (Secrets{Broker: "b", Ledger: "l", Redis: "r"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	write(t, c.Redis.PasswordFile, "r\n", 0o644)
	c.Ledger.PasswordFile = filepath.Join(dir, "absent")
	got, err := c.Secrets()
	if err == nil || got != (Secrets{}) {
		t.Fatalf("got %+v, %v", got, err)
	}
	for _, want := range []string{"ledger.password_file: read the password: ", "redis.password_file: password file "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
	c = Default() // SQLite: the ledger's file is not read
	c.Broker.PasswordFile, c.Ledger.PasswordFile = filepath.Join(dir, "broker"), filepath.Join(dir, "absent")
	if got, err := c.Secrets(); err != nil || got != (Secrets{Broker: "b"}) {
		t.Errorf("got %+v, %v", got, err)
	}
}
