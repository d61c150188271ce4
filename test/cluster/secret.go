package cluster

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// The passwords of a cluster, each a file of its own.
const (
	secretHost   = "broker_gpuqd" // the daemons' broker account
	secretUser   = "broker_user"  // the person's
	secretRedis  = "redis"
	secretCookie = "erlang_cookie" // between RabbitMQ nodes
)

// secret returns a password, making it up where there is none yet.
func (l layout) secret(name string) (string, error) {
	path := l.secretPath(name)
	text, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(text)) != "" {
		return strings.TrimSpace(string(text)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read password %s: %w", name, err)
	}
	password := rand.Text()
	if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write password %s: %w", name, err)
	}
	return password, nil
}

func (l layout) secretPath(name string) string { return l.path("secrets", name) }
