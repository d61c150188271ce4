package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
)

// fileBytesMax bounds a configuration file. The shipped one has some 20 KiB.
const fileBytesMax = 1 << 20

// Load reads the daemon's settings from the TOML file at path, over the
// defaults, and checks them. A key that does not exist is an error. All that is
// wrong comes as one error, which joins *Problem values.
//
// Host.Name is set in what Load returns: where the file leaves it out, to the
// kernel's host name up to its first dot. Password files are not read; see
// Secrets.
func Load(path string) (Config, error) {
	data, err := readFile(path)
	if err != nil {
		return Config{}, err
	}
	kernel, err := os.Hostname()
	if err != nil {
		return Config{}, fmt.Errorf("read the kernel's host name: %w", err)
	}
	return parse(path, data, kernel)
}

// parse is Load on a file's content and the kernel's host name.
func parse(file string, data []byte, kernel string) (Config, error) {
	cfg := Default()
	doc := decode(file, data, &cfg)
	check := checker{broken: doc.broken}
	if cfg.Host.Name == "" && !doc.broken["host.name"] {
		cfg.Host.Name = shortName(kernel)
		if !hostPattern.MatchString(cfg.Host.Name) {
			check.bad("host.name", "the kernel's host name %q cannot be used: set one of %s", kernel, hostForm)
			doc.broken["host.name"] = true
		}
	}
	cfg.check(&check)
	if err := doc.join(check.problems); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

// hostPattern is narrower than DNS (no dots or capitals) and wider (it takes
// "_"): host names become parts of queue names and file names.
var hostPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$`)

const hostForm = "1 to 63 of a-z, 0-9, _ and -, with a letter or digit at both ends"

// shortName returns a kernel host name as a host's name: without its domain, in
// lower case.
func shortName(kernel string) string {
	name, _, _ := strings.Cut(kernel, ".")
	return strings.ToLower(name)
}

// readFile returns the content of a configuration file.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the configuration: %w: write one, or give the path of another", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, fileBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if len(data) > fileBytesMax {
		return nil, fmt.Errorf("read the configuration %s: it has more than %d bytes: this is another file", path, fileBytesMax)
	}
	return data, nil
}
