package config

import (
	"cmp"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gpuqd/daemon/job"
)

// checker collects what is wrong with values. Its methods each check one key.
type checker struct {
	problems []*Problem
	broken   map[string]bool // keys that have a problem already and hold no value to judge
}

// bad reports a problem of key, unless its value could not even be read.
func (c *checker) bad(key, format string, args ...any) {
	if !c.broken[key] {
		c.problems = append(c.problems, &Problem{Key: key, Text: fmt.Sprintf(format, args...)})
	}
}

// readable reports whether all these keys hold what the file says, so that a
// relation between them can be judged.
func (c *checker) readable(keys ...string) bool {
	return !slices.ContainsFunc(keys, func(key string) bool { return c.broken[key] })
}

func (c *checker) duration(key string, d job.Duration, least, most time.Duration) {
	if d.Std() < least || d.Std() > most {
		c.bad(key, "%s is not between %s and %s", plain(d.Std()), plain(least), plain(most))
	}
}

func number[N cmp.Ordered](c *checker, key string, n, least, most N) {
	if n < least || n > most {
		c.bad(key, "%v is not between %v and %v", n, least, most)
	}
}

func (c *checker) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		c.bad(key, "%q is none of the values it can have: %s", value, quoted(allowed))
	}
}

// path checks for an absolute path; "" is allowed where optional.
func (c *checker) path(key, path string, optional bool) {
	switch {
	case path == "" && optional:
	case path == "":
		c.bad(key, "it is empty: want an absolute path")
	case !filepath.IsAbs(path) || strings.ContainsRune(path, 0):
		c.bad(key, "%q is no absolute path: write it from / on", path)
	}
}

// socketBytesMax is what a Unix socket's path can have: sun_path of unix(7) has
// 108 bytes with the zero at its end.
const socketBytesMax = 107

func (c *checker) socket(key, path string) {
	c.path(key, path, false)
	if len(path) > socketBytesMax {
		c.bad(key, "a path of %d bytes is too long for a Unix socket: want at most %d", len(path), socketBytesMax)
	}
}

// secret checks the form of a password file's path, and that user and password
// come together.
func (c *checker) secret(userKey, user, fileKey, file string) {
	name, credential := strings.CutPrefix(file, credentialsPrefix)
	switch {
	case file == "" && user != "" && c.readable(userKey):
		c.bad(fileKey, "it is empty, but %s is %q: name the file with its password", userKey, user)
	case file == "":
	case credential && !isCredentialName(name), !credential && !filepath.IsAbs(file):
		c.bad(fileKey, "%q cannot be used: %s", file, secretPathForm)
	}
}

// text checks a name that is sent to another program.
func (c *checker) text(key, value string, optional bool) {
	switch {
	case value == "" && optional:
	case value == "":
		c.bad(key, "it is empty: want a name")
	case len(value) > 128 || !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		c.bad(key, "%q is no name: want at most 128 bytes without spaces", value)
	}
}

// account checks the name of a local account: a number would be taken for a UID.
func (c *checker) account(key, name string, optional bool) {
	c.text(key, name, optional)
	if name != "" && strings.Trim(name, "0123456789") == "" {
		c.bad(key, "%q is a number: want the account's name", name)
	}
}

// list checks the length of a list and that nothing is in it twice.
func (c *checker) list(key string, values []string, least, most int) {
	if len(values) < least || len(values) > most {
		c.bad(key, "it has %d entries: want %d to %d", len(values), least, most)
	}
	for i, v := range values {
		if slices.Contains(values[:i], v) && !strings.Contains(v, "@") {
			c.bad(key, "%q is in it twice: leave one out", v)
		}
	}
}

// command checks a program with its arguments; none is allowed.
func (c *checker) command(key string, words []string) {
	if len(words) > 32 {
		c.bad(key, "it has %d entries: want at most 32", len(words))
	}
	for i, word := range words {
		switch {
		case word == "" || len(word) > 1024 || !printable(word):
			c.bad(key, "entry %d cannot be used: want 1 to 1024 bytes of printable text, one word of the command line each", i+1)
		case i == 0 && strings.ContainsAny(word, " \t"):
			c.bad(key, "%q is no program: write each word of the command line as an entry of its own", word)
		case strings.HasPrefix(word, "--erlang-cookie"):
			c.bad(key, "entry %d holds the cookie, which process lists would show: take it out, and let the command run as a user who has it in ~/.erlang.cookie", i+1)
		}
	}
}

// address checks for host:port. Without a port it may still be a host, where
// the protocol has a usual port.
func address(text string, portOptional bool) bool {
	host, port, err := net.SplitHostPort(text)
	if err != nil && portOptional {
		host, port, err = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"), "1", nil
		if strings.Contains(host, ":") && net.ParseIP(host) == nil {
			return false
		}
	}
	n, convErr := strconv.Atoi(port)
	return err == nil && convErr == nil && n >= 1 && n <= 65535 && isHostText(host)
}

// isHostText reports whether text can be a DNS name or an IP address.
func isHostText(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._-:%", r))
	})
}

func quoted(values []string) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = strconv.Quote(v)
	}
	return strings.Join(parts, ", ")
}

// plain returns a duration as people write it: "5m", not "5m0s".
func plain(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
