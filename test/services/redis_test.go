package services

import (
	"bufio"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func startRedis(t *testing.T, opts RedisOptions) *Redis {
	t.Helper()
	opts.Dir = t.TempDir()
	r, err := NewRedis(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := r.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Kill)
	return r
}

// askRedis sends one command without a password and returns the reply's lines.
func askRedis(t *testing.T, r *Redis, lines int, words ...string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", r.Addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(strings.Join(words, " ") + "\r\n")); err != nil {
		t.Fatal(err)
	}
	var reply strings.Builder
	for replies := bufio.NewReader(conn); lines > 0; lines-- {
		line, err := replies.ReadString('\n')
		if err != nil {
			t.Fatalf("%v: %v", words, err)
		}
		reply.WriteString(line)
	}
	return reply.String()
}

func TestRedis(t *testing.T) {
	t.Run("AnswersUntilStoppedAndAgainAfterAStart", func(t *testing.T) {
		r := startRedis(t, RedisOptions{})
		for range 2 {
			if err := r.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.Stop(10 * time.Second)
			if r.Running() || r.Err() != nil {
				t.Fatalf("running %v, ended with %v; want a clean end", r.Running(), r.Err())
			}
			if err := r.Ping(t.Context()); err == nil {
				t.Fatal("it answers after the stop")
			}
			if err := r.Process.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})

	t.Run("NeverEvictsAndKeepsNothingOnDisk", func(t *testing.T) {
		r := startRedis(t, RedisOptions{})
		for setting, want := range map[string]string{"maxmemory-policy": "noeviction", "appendonly": "no", "save": "", "bind": "127.0.0.1"} {
			lines := strings.Split(askRedis(t, r, 5, "CONFIG", "GET", setting), "\r\n")
			if lines[4] != want {
				t.Errorf("%s is %q, want %q", setting, lines[4], want)
			}
		}
	})

	t.Run("RefusesWhoHasNoPassword", func(t *testing.T) {
		r := startRedis(t, RedisOptions{Password: `with "quotes" and \ and space`})
		if reply := askRedis(t, r, 1, "PING"); !strings.HasPrefix(reply, "-NOAUTH") {
			t.Errorf("without a password it says %q, want NOAUTH", reply)
		}
		wrong := &Redis{Addr: r.Addr, Password: "guess"}
		if err := wrong.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "WRONGPASS") {
			t.Errorf("with a wrong one: %v, want WRONGPASS", err)
		}
		conf, err := os.Stat(filepath.Join(r.Dir, "redis.conf"))
		if err != nil || conf.Mode().Perm() != 0o600 {
			t.Errorf("the file with the password: %v, %v, want mode 0600", conf, err)
		}
	})

	t.Run("FrozenIsNotReady", func(t *testing.T) {
		r := startRedis(t, RedisOptions{})
		if err := r.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if err := r.Ping(t.Context()); err == nil {
			t.Error("it answers while frozen")
		}
		if err := r.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if err := r.Ping(t.Context()); err != nil {
			t.Errorf("thawed: %v", err)
		}
	})

	t.Run("MissingProgramSaysWhatToInstall", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		_, err := NewRedis(RedisOptions{Dir: t.TempDir()})
		if err == nil || !strings.Contains(err.Error(), "apt-get install redis-server") {
			t.Errorf("got %v", err)
		}
	})
}
