package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// credentialsPrefix starts the path of a systemd credential, as written in the
// configuration: the service manager chooses the directory at each start.
const credentialsPrefix = "$CREDENTIALS_DIRECTORY/"

// secretBytesMax bounds a password file.
const secretBytesMax = 4096

// Secrets are the passwords of one daemon; "" where none is configured.
type Secrets struct {
	Broker string
	Ledger string
	Redis  string
}

// Secrets reads every password file that is configured, and reports all that
// cannot be used at once, by key.
func (c Config) Secrets() (Secrets, error) {
	var s Secrets
	var errs []error
	read := func(key, path string, into *string) {
		if path == "" {
			return
		}
		text, err := Secret(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
		*into = text
	}
	read("broker.password_file", c.Broker.PasswordFile, &s.Broker)
	read("ledger.password_file", c.Ledger.passwordFile(), &s.Ledger)
	read("redis.password_file", c.Redis.PasswordFile, &s.Redis)
	if err := errors.Join(errs...); err != nil {
		return Secrets{}, err
	}
	return s, nil
}

// passwordFile returns the file of the password; "" where none is needed.
func (l Ledger) passwordFile() string {
	if l.Kind != LedgerMongoDB {
		return ""
	}
	return l.PasswordFile
}

// Secret reads the ledger's password alone; "" where none is configured.
func (l Ledger) Secret() (string, error) {
	path := l.passwordFile()
	if path == "" {
		return "", nil
	}
	text, err := Secret(path)
	if err != nil {
		return "", fmt.Errorf("ledger.password_file: %w", err)
	}
	return text, nil
}

// Secret returns the password in the file at path, less one newline at its end.
// A path of the form "$CREDENTIALS_DIRECTORY/name" is a systemd credential.
//
// The file must be a regular one of root or of the calling user, closed to group
// and others. A credential may be open to its group: systemd grants the service's
// user access through an ACL, whose mask reads as the group's bits; the directory
// is root's and guards it.
//
// Source: systemd.exec(5), LoadCredential=.
func Secret(path string) (string, error) {
	path, credential, err := expandSecret(path)
	if err != nil {
		return "", err
	}
	// Not blocking: a FIFO in the file's place must not hold the daemon up.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	defer f.Close()
	// The open file is looked at, not the path: nothing can be swapped between.
	if err := checkSecretFile(f, credential); err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(f, secretBytesMax+1))
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	if credential && strings.TrimSpace(string(text)) == "" {
		return "", fmt.Errorf("credential %s: it is empty: write the password into the file that the unit loads it from (gpuqd.service: /etc/gpuqd/%[1]s), and restart", filepath.Base(path))
	}
	return cleanSecret(path, string(text))
}

// expandSecret returns the real path of a password file, and whether it is a
// systemd credential.
func expandSecret(path string) (real string, credential bool, err error) {
	name, found := strings.CutPrefix(path, credentialsPrefix)
	if !found {
		if !filepath.IsAbs(path) {
			return "", false, fmt.Errorf("password file %q: %s", path, secretPathForm)
		}
		return path, false, nil
	}
	if !isCredentialName(name) {
		return "", false, fmt.Errorf("password file %q: %s", path, secretPathForm)
	}
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if !filepath.IsAbs(dir) {
		return "", false, fmt.Errorf("password file %s: CREDENTIALS_DIRECTORY is not set: add LoadCredential=%s:<file> to the unit, or give the file's absolute path", path, name)
	}
	return filepath.Join(dir, name), isRootsAlone(dir), nil
}

const secretPathForm = `want an absolute path, or "$CREDENTIALS_DIRECTORY/name" for a systemd credential`

// isCredentialName reports whether name is a plain file name: credentials have
// no directories.
func isCredentialName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// isRootsAlone reports whether only root can put files into dir.
func isRootsAlone(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() {
		return false
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && owner.Uid == 0 && info.Mode().Perm()&0o022 == 0
}

func checkSecretFile(f *os.File, credential bool) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read the password: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("password file %s: it is no regular file: give the path of one", f.Name())
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if ok && owner.Uid != 0 && int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("password file %s: it belongs to user %d, who could change it: chown it to root or to user %d", f.Name(), owner.Uid, os.Geteuid())
	}
	forbidden := os.FileMode(0o077)
	if credential {
		forbidden = 0o037
	}
	if info.Mode().Perm()&forbidden != 0 {
		return fmt.Errorf("password file %s: its mode %04o lets others at it: chmod 0600 it, and change the password if others were there", f.Name(), info.Mode().Perm())
	}
	return nil
}

// cleanSecret returns the password in a file's text. The text never gets into an
// error.
func cleanSecret(path, text string) (string, error) {
	if len(text) > secretBytesMax {
		return "", fmt.Errorf("password file %s: it has more than %d bytes: this is no password", path, secretBytesMax)
	}
	text = strings.TrimSuffix(text, "\n")
	if text == "" {
		return "", fmt.Errorf("password file %s: it is empty: write the password into it", path)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("password file %s: it has more than one line, or control characters: write the password alone, with one newline at most", path)
	}
	return text, nil
}
