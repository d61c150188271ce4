package config

import (
	"os"
	"os/user"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// homes gives the test a home of its own, with no configuration in it.
func homes(t *testing.T) (home, xdg string) {
	t.Helper()
	home, xdg = t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", xdg)
	t.Setenv("GPUQCTL_CONFIG", "")
	return home, xdg
}

// sockets is a file whose settings tell it from the others.
func socketsFile(t *testing.T, path, socket string) string {
	t.Helper()
	return write(t, path, "sockets = [\""+socket+"\"]\n", 0o644)
}

func TestLoadClientPrecedence(t *testing.T) {
	home, xdg := homes(t)
	dir := t.TempDir()
	expect := func(path, socket string) {
		t.Helper()
		c, err := LoadClient(path)
		if err != nil || !slices.Equal(c.Sockets, []string{socket}) {
			t.Errorf("got the sockets %q, %v; want %s", c.Sockets, err, socket)
		}
	}
	// From the last place to the first: each new file hides the ones before it.
	if _, err := os.Stat(ClientPathSystem); os.IsNotExist(err) {
		expect("", "/run/gpuqd/gpuqd.sock")
	}
	t.Setenv("XDG_CONFIG_HOME", "")
	socketsFile(t, filepath.Join(home, ".config", "gpuqctl.toml"), "/home.sock")
	expect("", "/home.sock")
	t.Setenv("XDG_CONFIG_HOME", "relative") // to be ignored
	expect("", "/home.sock")
	t.Setenv("XDG_CONFIG_HOME", xdg)
	socketsFile(t, filepath.Join(xdg, "gpuqctl.toml"), "/xdg.sock")
	expect("", "/xdg.sock")
	t.Setenv("GPUQCTL_CONFIG", socketsFile(t, filepath.Join(dir, "env.toml"), "/env.sock"))
	expect("", "/env.sock")
	expect(socketsFile(t, filepath.Join(dir, "flag.toml"), "/flag.sock"), "/flag.sock")
}

func TestFirstThatExists(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if got, err := firstThatExists("", a, b); got != "" || err != nil {
		t.Errorf("with no file got %q, %v", got, err)
	}
	write(t, b, "", 0o644)
	if got, err := firstThatExists("", a, b); got != b || err != nil {
		t.Errorf("with the second got %q, %v", got, err)
	}
	write(t, a, "", 0o644)
	if got, err := firstThatExists("", a, b); got != a || err != nil {
		t.Errorf("with both got %q, %v", got, err)
	}
	// A path below a file fails with ENOTDIR, as root too.
	if got, err := firstThatExists(filepath.Join(a, "x"), b); got != "" || err == nil {
		t.Errorf("past one that cannot be looked at got %q, %v", got, err)
	}
}

// A file that was asked for and is not there must not be passed over: the next
// one may name another cluster.
func TestLoadClientWantsTheFileItWasGiven(t *testing.T) {
	_, xdg := homes(t)
	socketsFile(t, filepath.Join(xdg, "gpuqctl.toml"), "/xdg.sock")
	absent := filepath.Join(xdg, "absent.toml")
	if _, err := LoadClient(absent); err == nil || !strings.Contains(err.Error(), absent) {
		t.Errorf("an absent --config gave %v", err)
	}
	t.Setenv("GPUQCTL_CONFIG", absent)
	if _, err := LoadClient(""); err == nil || !strings.Contains(err.Error(), absent) {
		t.Errorf("an absent $GPUQCTL_CONFIG gave %v", err)
	}
}

func TestLoadClientWorksWithoutAHome(t *testing.T) {
	homes(t)
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("HOME", "")
	if path := userConfig(); path != "" {
		t.Errorf("without a home the user's file is %q", path)
	}
	c, err := parseClient("c.toml", nil)
	if err != nil || !reflect.DeepEqual(c, DefaultClient()) {
		t.Errorf("an empty file gave %+v, %v", c, err)
	}
	_, err = parseClient("c.toml", []byte("[broker]\nurls = [\"amqp://a\"]\npassword_file = \"~/p\"\n"))
	if err == nil || !strings.Contains(err.Error(), "c.toml:3: broker.password_file: the home directory cannot be told") {
		t.Errorf("~/ without a home gave %v", err)
	}
}

func TestLoadClientFillsInTheCaller(t *testing.T) {
	home, _ := homes(t)
	c, err := parseClient("c.toml", []byte("[broker]\nurls = [\"amqps://a/q\"]\npassword_file = \"~/.config/gpuq.password\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if c.Broker.User != me.Username || c.Broker.PasswordFile != filepath.Join(home, ".config/gpuq.password") {
		t.Errorf("got %+v", c.Broker)
	}
}

func TestParseClientRefuses(t *testing.T) {
	homes(t)
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":     {"socket = \"/a\"", "c.toml:1: socket: there is no such key; the nearest is sockets"},
		"unknown section": {"[brokers]\nurls = []", "c.toml:1: brokers: there is no such section; the nearest is [broker]"},
		"daemon's key":    {"[broker]\nheartbeat = \"10s\"", "c.toml:2: broker.heartbeat: there is no such key here; there are urls, user, password_file, ca_file"},
		"bare timeout":    {"timeout = 10", "c.toml:1: timeout: want a number with its unit"},
		"no timeout":      {"timeout = \"0s\"", "c.toml:1: timeout: 0s is not between 100ms and 10m"},
		"relative socket": {"sockets = [\"a\"]", `c.toml:1: sockets: "a" is no absolute path`},
		"no way at all":   {"sockets = []", "c.toml:1: sockets: it is empty and so is broker.urls"},
		"password in url": {"[broker]\nurls = [\"amqp://u:hunter2@a\"]\nuser = \"u\"\npassword_file = \"/p\"", "c.toml:2: broker.urls: entry 1 holds credentials"},
		"no password":     {"[broker]\nurls = [\"amqp://a\"]\nuser = \"u\"", `c.toml: broker.password_file: it is empty, but broker.user is "u"`},
		"relative ca":     {"[broker]\nca_file = \"ca.pem\"", `c.toml:2: broker.ca_file: "ca.pem" is no absolute path`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseClient("c.toml", []byte(c.text))
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Fatalf("got  %v\nwant %s…", err, c.want)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
				t.Errorf("want one problem and no password:\n%v", err)
			}
		})
	}
}
