package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/device"
	"gpuqd/test/services"
)

// prepared returns a cluster that is not started.
func prepared(t *testing.T, opts Options) (*Cluster, error) {
	t.Helper()
	opts.BinDir = programs
	return New(within(t, time.Minute), opts)
}

func TestTakenPortIsReportedWithItsHolder(t *testing.T) {
	c, err := prepared(t, Options{Dir: t.TempDir(), Workers: 1, RabbitNodes: 1, Ledger: "sqlite"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", c.RedisAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	err = c.Start(within(t, time.Minute))
	if err == nil {
		t.Fatal("the cluster started on a port that is taken")
	}
	for _, want := range []string{fmt.Sprint(c.settings.Ports[redisName]), fmt.Sprintf("process %d", os.Getpid()), "make down"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
}

func TestPortFree(t *testing.T) {
	ports, err := services.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	port := ports[0]
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	if err := portFree(port); err == nil {
		t.Error("a port that is listened on counts as free")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := portFree(port); err != nil {
		t.Errorf("a port that nobody holds: %v", err)
	}
}

func TestSettings(t *testing.T) {
	dir := t.TempDir()
	first := Options{Dir: dir, Workers: 2, RabbitNodes: 1, Ledger: config.LedgerSQLite}
	c, err := prepared(t, first)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("PortsAndPasswordsAreKept", func(t *testing.T) {
		again, err := prepared(t, first)
		if err != nil {
			t.Fatal(err)
		}
		urls, err := c.UserURLs()
		if err != nil {
			t.Fatal(err)
		}
		urlsAgain, err := again.UserURLs()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(urls, urlsAgain) || c.RedisAddr() != again.RedisAddr() {
			t.Errorf("addresses were %v %s, and now %v %s", urls, c.RedisAddr(), urlsAgain, again.RedisAddr())
		}
	})
	t.Run("AutoTakesTheLedgerThatIsThere", func(t *testing.T) {
		other := first
		other.Ledger = LedgerAuto
		if again, err := prepared(t, other); err != nil || again.LedgerKind() != config.LedgerSQLite {
			t.Errorf("%v, want no error and SQLite", err)
		}
	})
	t.Run("AnotherClusterIsRefused", func(t *testing.T) {
		for name, change := range map[string]func(*Options){
			"Ledger":  func(o *Options) { o.Ledger = config.LedgerMongoDB },
			"Workers": func(o *Options) { o.Workers = 3 },
			"Nodes":   func(o *Options) { o.RabbitNodes = 3 },
		} {
			other := first
			change(&other)
			if _, err := prepared(t, other); !errors.Is(err, errOtherSettings) {
				t.Errorf("%s: %v, want a refusal that says what to do", name, err)
			}
		}
	})
	t.Run("SecretsAreTheOwnersAlone", func(t *testing.T) {
		entries, err := os.ReadDir(filepath.Join(dir, "secrets"))
		if err != nil || len(entries) == 0 {
			t.Fatalf("%d secrets, %v", len(entries), err)
		}
		for _, e := range entries {
			if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: mode %v, %v", e.Name(), info.Mode(), err)
			}
		}
	})
	t.Run("GpuqctlsConfigurationIsValid", func(t *testing.T) {
		cfg, err := config.LoadClient(c.ClientConfigPath())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(cfg.Sockets, c.Socket("worker_2")) || len(cfg.Broker.URLs) != 1 {
			t.Errorf("%+v does not name every way to the cluster", cfg)
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	for name, opts := range map[string]Options{
		"NoDirectory":    {BinDir: "/bin"},
		"UnknownLedger":  {Dir: "/x", BinDir: "/bin", Ledger: "postgres"},
		"TooManyWorkers": {Dir: "/x", BinDir: "/bin", Workers: workersMax + 1},
		"NegativeNodes":  {Dir: "/x", BinDir: "/bin", RabbitNodes: -1},
	} {
		if _, err := opts.complete(); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	_, err := New(context.Background(), Options{Dir: t.TempDir(), BinDir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("programs that are not built: %v, want what to do", err)
	}
}

func TestSocketsOfALongDirectoryAreShort(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	c, err := prepared(t, Options{Dir: dir, Workers: 1, RabbitNodes: 1, Ledger: "sqlite"})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{c.Socket("worker_1"), c.files.supervisor()} {
		if len(path) > socketPathMax {
			t.Errorf("%s is too long for a socket", path)
		}
	}
	if err := Remove(dir); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, c.files.sockets} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cluster")
	unlock, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("a second lock: %v, want ErrLocked", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	again, err := Lock(dir)
	if err != nil {
		t.Fatalf("lock of a new directory in the old one's place: %v", err)
	}
	again()
	unlock()
}

func TestRemove(t *testing.T) {
	t.Run("NothingIsNoError", func(t *testing.T) {
		if err := Remove(filepath.Join(t.TempDir(), "none")); err != nil {
			t.Error(err)
		}
	})
	t.Run("EmptyDirectoryGoes", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "empty")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := Remove(dir); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Error("it is left")
		}
	})
	t.Run("ForeignDirectoryStays", func(t *testing.T) {
		dir := t.TempDir()
		file := filepath.Join(dir, "thesis.tex")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Remove(dir); err == nil {
			t.Error("it was removed without a word")
		}
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	})
}

func TestShareOut(t *testing.T) {
	gpus := make([]device.Facts, 5)
	for i := range gpus {
		gpus[i].UUID = fmt.Sprintf("GPU-%d", i)
	}
	for _, tc := range []struct {
		gpus, workers int
		want          string
	}{
		{0, 3, "[] [] []"},
		{1, 3, "[GPU-0] [] []"},
		{5, 3, "[GPU-0 GPU-3] [GPU-1 GPU-4] [GPU-2]"},
	} {
		var got []string
		for _, s := range shareOut(gpus[:tc.gpus], tc.workers) {
			cfg := s.config("/bin", 2)
			got = append(got, fmt.Sprint(cfg.Include))
			if simulated := cfg.Kind == config.DeviceSim; simulated != (len(s) == 0) {
				t.Errorf("%d GPUs for %d workers: a worker with %v is simulated: %t", tc.gpus, tc.workers, cfg.Include, simulated)
			}
		}
		if text := strings.Join(got, " "); text != tc.want {
			t.Errorf("%d GPUs for %d workers: %s, want %s", tc.gpus, tc.workers, text, tc.want)
		}
	}
}
