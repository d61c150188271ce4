package services

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// redisProgram is the server as Debian names it.
const redisProgram = "redis-server"

// RedisOptions says how a Redis server runs.
type RedisOptions struct {
	Dir      string // for configuration, log and dumps; created if missing
	Port     int    // on 127.0.0.1; 0 picks a free one
	Password string // "" asks for none
	Orphan   bool   // see Process.Orphan
}

// Redis is one Redis server. Its Process starts and ends it, and may be handed to
// whatever restarts servers.
type Redis struct {
	*Process
	Addr     string // host:port
	Password string
}

// NewRedis writes a server's configuration into its directory and returns the
// server, not yet started. What it holds is lost when it ends, as with any cache.
func NewRedis(opts RedisOptions) (*Redis, error) {
	program, err := exec.LookPath(redisProgram)
	if err != nil {
		return nil, fmt.Errorf("%s is not installed: apt-get install redis-server", redisProgram)
	}
	if opts.Port == 0 {
		ports, err := FreePorts(1)
		if err != nil {
			return nil, err
		}
		opts.Port = ports[0]
	}
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("prepare redis: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("prepare redis: %w", err)
	}
	// A file and not arguments: those would show the password to every user.
	conf := filepath.Join(dir, "redis.conf")
	if err := os.WriteFile(conf, redisConfig(dir, opts), 0o600); err != nil {
		return nil, fmt.Errorf("prepare redis: %w", err)
	}
	r := &Redis{
		Addr:     net.JoinHostPort("127.0.0.1", strconv.Itoa(opts.Port)),
		Password: opts.Password,
	}
	r.Process = &Process{
		Name:    "redis",
		Path:    program,
		Args:    []string{conf},
		Dir:     dir,
		LogPath: filepath.Join(dir, "redis.log"),
		Orphan:  opts.Orphan,
		Ready:   r.Ping,
	}
	return r, nil
}

// redisConfig returns the server's redis.conf. Noeviction makes a full server
// refuse writes by name instead of forgetting in silence.
func redisConfig(dir string, opts RedisOptions) []byte {
	lines := []string{
		"bind 127.0.0.1",
		"port " + strconv.Itoa(opts.Port),
		"dir " + strconv.Quote(dir),
		"daemonize no",
		"appendonly no",
		`save ""`,
		"maxmemory 100mb",
		"maxmemory-policy noeviction",
	}
	if opts.Password != "" {
		lines = append(lines, "requirepass "+strconv.Quote(opts.Password))
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}

// Ping returns nil when the server answers a PING within a second.
func (r *Redis) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", r.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	replies := bufio.NewReader(conn)
	if r.Password != "" {
		if err := ask(conn, replies, "+OK", "AUTH", r.Password); err != nil {
			return err
		}
	}
	return ask(conn, replies, "+PONG", "PING")
}

// ask sends one command in the Redis protocol and wants a one-line reply.
func ask(conn net.Conn, replies *bufio.Reader, want string, words ...string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	if _, err := conn.Write([]byte(b.String())); err != nil {
		return err
	}
	reply, err := replies.ReadString('\n')
	if err != nil {
		return fmt.Errorf("%s: %w", words[0], err)
	}
	if reply = strings.TrimSpace(reply); reply != want {
		return errors.New(words[0] + ": " + strings.TrimPrefix(reply, "-"))
	}
	return nil
}
