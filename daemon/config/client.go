package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"gpuqd/daemon/job"
)

// Client holds gpuqctl's settings: where it finds a daemon.
type Client struct {
	Sockets []string     `toml:"sockets"` // of daemons on this machine, tried in this order
	Timeout job.Duration `toml:"timeout"` // of one request and its reply
	Broker  ClientBroker `toml:"broker"`
}

// ClientBroker is the way to a daemon when no socket answers, and to a host by
// name. Without URLs there is none.
type ClientBroker struct {
	URLs         []string `toml:"urls"`          // as in Broker
	User         string   `toml:"user"`          // "" is the caller's login name, which LoadClient fills in
	PasswordFile string   `toml:"password_file"` // for Secret; "~/" is the caller's home, which LoadClient fills in
	CAFile       string   `toml:"ca_file"`       // for amqps; "" trusts the system's authorities
}

// ClientPathSystem is the file that all users of a machine share.
const ClientPathSystem = "/etc/gpuqd/gpuqctl.toml"

// DefaultClient returns the settings that a file is decoded over.
func DefaultClient() Client {
	return Client{
		Sockets: []string{defaultSocket},
		Timeout: seconds(10),
		Broker:  ClientBroker{URLs: []string{}},
	}
}

// ClientPath returns the file that LoadClient reads: the path given, else
// $GPUQCTL_CONFIG, else the first that exists of $XDG_CONFIG_HOME/gpuqctl.toml
// (by default ~/.config) and ClientPathSystem. "" means that there is none and
// the defaults hold. A file that was asked for by name is returned even if it
// does not exist: to fall back in silence would act on another cluster.
func ClientPath(path string) (string, error) {
	if path != "" {
		return path, nil
	}
	if path = os.Getenv("GPUQCTL_CONFIG"); path != "" {
		return path, nil
	}
	return firstThatExists(userConfig(), ClientPathSystem)
}

// firstThatExists skips paths that are empty or have no file. One that cannot be
// looked at is an error, not a reason to read the next.
func firstThatExists(paths ...string) (string, error) {
	for _, path := range paths {
		if path == "" {
			continue
		}
		_, err := os.Stat(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("look for the configuration: %w", err)
		}
	}
	return "", nil
}

// userConfig returns the path of the user's own file, or "" without a home.
//
// Source: XDG Base Directory Specification, which has relative values ignored.
func userConfig() string {
	if dir := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "gpuqctl.toml")
	}
	if home, err := os.UserHomeDir(); err == nil && filepath.IsAbs(home) {
		return filepath.Join(home, ".config", "gpuqctl.toml")
	}
	return ""
}

// LoadClient reads gpuqctl's settings from the file that ClientPath finds, over
// the defaults, and checks them as Load does.
func LoadClient(path string) (Client, error) {
	path, err := ClientPath(path)
	if err != nil {
		return Client{}, err
	}
	if path == "" {
		return DefaultClient(), nil
	}
	data, err := readFile(path)
	if err != nil {
		return Client{}, err
	}
	return parseClient(path, data)
}

func parseClient(file string, data []byte) (Client, error) {
	c := DefaultClient()
	doc := decode(file, data, &c)
	check := checker{broken: doc.broken}
	c.Broker.resolve(&check)
	c.check(&check)
	if err := doc.join(check.problems); err != nil {
		return Client{}, err
	}
	return c, nil
}

// Validate reports everything that is wrong with the settings at once.
func (c Client) Validate() error {
	var check checker
	c.check(&check)
	return join(check.problems)
}

func (c Client) check(v *checker) {
	v.list("sockets", c.Sockets, 0, 16)
	for _, path := range c.Sockets {
		v.socket("sockets", path)
	}
	v.duration("timeout", c.Timeout, 100*time.Millisecond, 10*time.Minute)
	v.brokerURLs("broker.urls", c.Broker.URLs, 0)
	if len(c.Sockets)+len(c.Broker.URLs) == 0 && v.readable("sockets", "broker.urls") {
		v.bad("sockets", "it is empty and so is broker.urls, so no daemon can be reached: name a socket or the broker")
	}
	v.path("broker.ca_file", c.Broker.CAFile, true)
	if len(c.Broker.URLs) == 0 {
		return
	}
	v.text("broker.user", c.Broker.User, false)
	v.secret("broker.user", c.Broker.User, "broker.password_file", c.Broker.PasswordFile)
}

// resolve fills in what depends on the caller, so that one file can serve all
// users of a machine.
func (b *ClientBroker) resolve(v *checker) {
	if b.User == "" && len(b.URLs) > 0 {
		caller, err := user.Current()
		if err != nil {
			v.bad("broker.user", "the login name cannot be told (%v): set this key", err)
			v.broken["broker.user"] = true
			return
		}
		b.User = caller.Username
	}
	rest, ok := strings.CutPrefix(b.PasswordFile, "~/")
	if !ok {
		return
	}
	home, err := os.UserHomeDir()
	if err != nil {
		v.bad("broker.password_file", "the home directory cannot be told (%v): give an absolute path", err)
		v.broken["broker.password_file"] = true
		return
	}
	b.PasswordFile = filepath.Join(home, rest)
}
