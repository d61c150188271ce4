package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigCheck(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, mode os.FileMode, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := write("secret", 0o600, "word\n")
	open := write("open", 0o644, "word\n")
	client := func(password string) string {
		return "[broker]\nurls = [\"amqp://b1:5672/gpuq\"]\nuser = \"ada\"\npassword_file = \"" + password + "\"\n"
	}
	daemon := func(password string) string {
		return strings.Replace(client(password), "ada", "gpuqd", 1) + "[lease]\nttl = \"5m\"\n"
	}
	for name, c := range map[string]struct {
		path     string
		code     int
		out, err string // DIR stands for the directory
	}{
		"ARightClient":            {write("1/gpuqctl.toml", 0o644, client(secret)), 0, "DIR/1/gpuqctl.toml: ok\n", ""},
		"ARightDaemon":            {write("2/gpuqd.toml", 0o644, daemon(secret)), 0, "DIR/2/gpuqd.toml: ok\n", ""},
		"AClientByItsKeys":        {write("3/x.toml", 0o644, "timeout = \"5s\"\n"), 0, "DIR/3/x.toml: ok\n", ""},
		"ADaemonByItsSections":    {write("4/x.toml", 0o644, daemon(secret)), 0, "DIR/4/x.toml: ok\n", ""},
		"AllThatIsWrongAtOnce":    {write("5/gpuqd.toml", 0o644, "[lease]\nttl = \"5\"\nrenw = \"1s\"\n"), 2, "DIR/5/gpuqd.toml:2: lease.ttl: \"5\" is no duration", "gpuqctl: 2 problems in 1 of 1 file\n"},
		"ADaemonsKeyInAClient":    {write("6/gpuqctl.toml", 0o644, "[lease]\nttl = \"5m\"\n"), 2, "DIR/6/gpuqctl.toml:1: lease: there is no such", "problem"},
		"NoTOML":                  {write("7/x.toml", 0o644, "=\n"), 2, "DIR/7/x.toml:1: this is not TOML", "1 problem in 1 of 1 file"},
		"NoFile":                  {filepath.Join(dir, "none/gpuqd.toml"), 2, "DIR/none/gpuqd.toml: no such file or directory: write one", "1 problem"},
		"AnOpenSecret":            {write("8/gpuqctl.toml", 0o644, client(open)), 2, "DIR/8/gpuqctl.toml: broker.password_file: password file DIR/open: its mode 0644 lets others at it: chmod 0600 it", "1 problem"},
		"ASecretThatIsNotThere":   {write("9/gpuqd.toml", 0o644, daemon(filepath.Join(dir, "gone"))), 2, "DIR/9/gpuqd.toml: broker.password_file: read the password: open DIR/gone", "1 problem"},
		"AnEmptySecret":           {write("10/gpuqd.toml", 0o644, daemon(write("empty", 0o600, ""))), 2, "it is empty: write the password into it", "1 problem"},
		"ACredentialIsLeftAside":  {write("11/gpuqd.toml", 0o644, daemon("$CREDENTIALS_DIRECTORY/broker")), 0, "DIR/11/gpuqd.toml: ok\n", "gpuqctl: DIR/11/gpuqd.toml: broker.password_file: not looked at: a systemd credential"},
		"ACertificateThatIsNone":  {write("12/gpuqctl.toml", 0o644, client(secret)+"ca_file = \""+secret+"\"\n"), 2, "broker.ca_file: read the authority's certificate DIR/secret: it holds none that can be read", "1 problem"},
		"SecretsOfAnUnusedBroker": {write("13/gpuqctl.toml", 0o644, "[broker]\npassword_file = \"/nonexistent\"\n"), 0, "ok", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("CREDENTIALS_DIRECTORY", "")
			r := gpuqctl(t, nil, "config", "check", c.path)
			r.want(t, c.code, strings.ReplaceAll(c.out, "DIR", dir), strings.ReplaceAll(c.err, "DIR", dir))
		})
	}
	t.Run("OneOfSeveral", func(t *testing.T) {
		r := gpuqctl(t, nil, "config", "check", filepath.Join(dir, "1/gpuqctl.toml"), filepath.Join(dir, "7/x.toml"))
		r.want(t, exitUsage, "gpuqctl.toml: ok\n", "1 problem in 1 of 2 files")
	})
	t.Run("WithoutArgumentsWhatGpuqctlUses", func(t *testing.T) {
		if _, err := os.Stat(daemonConfigPath); err == nil {
			t.Skipf("this machine has a %s", daemonConfigPath)
		}
		right := filepath.Join(dir, "1/gpuqctl.toml")
		t.Setenv("GPUQCTL_CONFIG", right)
		gpuqctl(t, nil, "config", "check").want(t, 0, right+": ok\n", "there is no "+daemonConfigPath)
		gpuqctl(t, nil, "--config", filepath.Join(dir, "7/x.toml"), "config", "check").want(t, exitUsage, "x.toml:1: ", "1 problem in 1 of 1 file")
		t.Setenv("GPUQCTL_CONFIG", "")
		t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "nowhere"))
		gpuqctl(t, nil, "config", "check").want(t, exitFailure, "", "there is no configuration file to check: name one")
	})
	t.Run("AnotherUsersSecretIsLeftAsideByRoot", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root can give files away")
		}
		theirs := write("theirs", 0o600, "word\n")
		if err := os.Chown(theirs, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		path := write("14/gpuqd.toml", 0o644, daemon(theirs))
		gpuqctl(t, nil, "config", "check", path).want(t, 0, path+": ok\n", "belongs to user 12345, so only a daemon that runs as that user can use it")
		if err := os.Chmod(theirs, 0o640); err != nil {
			t.Fatal(err)
		}
		gpuqctl(t, nil, "config", "check", path).want(t, exitUsage, "its mode 0640 lets others at it", "1 problem")
	})
}
