package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"gpuqd/daemon/config"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"
)

// daemonConfigPath is the file that gpuqd reads unless it is told another.
const daemonConfigPath = "/etc/gpuqd/gpuqd.toml"

func newConfig(a *app) *cobra.Command {
	return family(&cobra.Command{
		Use:   "config",
		Short: "Check configuration files",
		Long: `Config looks at configuration files, those of gpuqctl and of gpuqd. It asks no
daemon.`,
		Example: `  gpuqctl config check`,
	}, newConfigCheck(a))
}

type configCheckCmd struct{ *app }

func newConfigCheck(a *app) *cobra.Command {
	c := &configCheckCmd{app: a}
	return &cobra.Command{
		Use:   "check [FILE...]",
		Short: "Find all that is wrong with a gpuqd.toml or gpuqctl.toml",
		Long: `Check reads configuration files as gpuqd and gpuqctl do, and prints each with "ok",
or all that is wrong with it, a line each, on stdout. It asks no daemon. Without
arguments it reads the file that gpuqctl would use, and ` + daemonConfigPath + `.

Password and certificate files that are named must be there and safe. What only
the daemon's user, or its unit, can look at is said on stderr and left aside.

Exit codes: 0 if all files are right, 2 if one is not, 1 if none was found.`,
		Example: `  gpuqctl config check
  gpuqctl config check ./gpuqd.toml && scp gpuqd.toml gpu7:/etc/gpuqd/
  sudo gpuqctl config check /etc/gpuqd/gpuqd.toml`,
		RunE: func(_ *cobra.Command, args []string) error { return c.run(args) },
	}
}

func (c *configCheckCmd) run(paths []string) error {
	if len(paths) == 0 {
		var err error
		if paths, err = c.usual(); err != nil {
			return err
		}
	}
	wrong, problems := 0, 0
	for _, path := range paths {
		found := c.check(path)
		if len(found) == 0 {
			found = []string{path + ": " + c.paint(good, "ok")}
		} else {
			wrong++
			problems += len(found)
		}
		if err := c.printf("%s\n", strings.Join(found, "\n")); err != nil {
			return err
		}
	}
	if wrong == 0 {
		return nil
	}
	return usagef("%s in %d of %s", count(problems, "problem"), wrong, count(len(paths), "file"))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// usual returns the files that gpuqctl, and the daemon of this machine, would use.
func (c *configCheckCmd) usual() ([]string, error) {
	own, err := config.ClientPath(c.configPath)
	if err != nil {
		return nil, err
	}
	var paths []string
	if own != "" {
		paths = append(paths, own)
	} else {
		c.say("there is no gpuqctl.toml: gpuqctl uses its defaults")
	}
	switch _, err := os.Stat(daemonConfigPath); {
	case errors.Is(err, fs.ErrNotExist):
		c.say("there is no %s: name the file that gpuqd --config gets, if one runs here", daemonConfigPath)
	default:
		paths = append(paths, daemonConfigPath)
	}
	if len(paths) == 0 {
		return nil, errors.New("there is no configuration file to check: name one")
	}
	return paths, nil
}

// check returns all that is wrong with one file, as lines for people.
func (c *configCheckCmd) check(path string) []string {
	if isClientConfig(path) {
		cfg, err := config.LoadClient(path)
		if err != nil {
			return problemLines(path, err)
		}
		if len(cfg.Broker.URLs) == 0 {
			return nil
		}
		return c.checkFiles(path, []fileKey{
			{"broker.password_file", cfg.Broker.PasswordFile, true}, {"broker.ca_file", cfg.Broker.CAFile, false},
		})
	}
	cfg, err := config.Load(path)
	if err != nil {
		return problemLines(path, err)
	}
	keys := []fileKey{{"broker.password_file", cfg.Broker.PasswordFile, true}, {"broker.ca_file", cfg.Broker.CAFile, false}}
	if cfg.Ledger.Kind == config.LedgerMongoDB {
		keys = append(keys, fileKey{"ledger.password_file", cfg.Ledger.PasswordFile, true}, fileKey{"ledger.ca_file", cfg.Ledger.CAFile, false})
	}
	keys = append(keys, fileKey{"redis.password_file", cfg.Redis.PasswordFile, true})
	return c.checkFiles(path, keys)
}

// problemLines splits an error that is one problem per line; each names its file.
func problemLines(path string, err error) []string {
	var lines []string
	for line := range strings.Lines(err.Error()) {
		line = clean(strings.TrimSuffix(line, "\n"))
		if !strings.Contains(line, path) {
			line = path + ": " + line
		}
		lines = append(lines, line)
	}
	return lines
}

// isClientConfig reports whether a file is a gpuqctl.toml: by its name, else by
// the keys that only such a file has.
func isClientConfig(path string) bool {
	switch base := filepath.Base(path); {
	case strings.Contains(base, "gpuqctl"):
		return true
	case strings.Contains(base, "gpuqd"):
		return false
	}
	var top map[string]any
	if _, err := toml.DecodeFile(path, &top); err != nil {
		return false
	}
	own := false
	for key := range top {
		switch key {
		case "sockets", "timeout":
			own = true
		case "broker":
		default:
			return false
		}
	}
	return own
}

// fileKey is a key whose value is the path of another file.
type fileKey struct {
	key, path string
	secret    bool // else certificates
}

// checkFiles returns what is wrong with the files that a configuration names.
func (c *configCheckCmd) checkFiles(path string, keys []fileKey) []string {
	var found []string
	for _, k := range keys {
		if k.path == "" {
			continue
		}
		err := checkNamed(k)
		var aside *setAside
		switch {
		case errors.As(err, &aside):
			c.say("%s: %s: %v", path, k.key, aside)
		case err != nil:
			found = append(found, problemLines(path, fmt.Errorf("%s: %s: %w", path, k.key, err))...)
		}
	}
	return found
}

// setAside says why something could not be judged from here.
type setAside struct{ why string }

// Error implements error.
func (s *setAside) Error() string { return "not looked at: " + s.why }

func checkNamed(k fileKey) error {
	var err error
	switch {
	case !k.secret:
		_, err = config.TLS(k.path)
	case strings.HasPrefix(k.path, "$CREDENTIALS_DIRECTORY/") && os.Getenv("CREDENTIALS_DIRECTORY") == "":
		return &setAside{"a systemd credential is there only inside of the unit"}
	default:
		if foreign := othersSecret(k.path); foreign != nil {
			return foreign
		}
		_, err = config.Secret(k.path)
	}
	if errors.Is(err, fs.ErrPermission) {
		return &setAside{fmt.Sprintf("%v: check it as root, or as the daemon's user", err)}
	}
	return err
}

// othersSecret judges, for root, a password file of another user: it is right if
// the daemon runs as that user, and its mode is wrong for everybody.
func othersSecret(path string) error {
	info, err := os.Stat(path)
	if err != nil || os.Geteuid() != 0 || !info.Mode().IsRegular() {
		return nil
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("password file %s: its mode %04o lets others at it: chmod 0600 it, and change the password if others were there", path, mode)
	}
	return &setAside{fmt.Sprintf("%s belongs to user %d, so only a daemon that runs as that user can use it", path, owner.Uid)}
}
