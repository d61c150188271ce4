package dedup

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gpuqd/daemon/job"
	"gpuqd/test/services"
	"gpuqd/test/wait"
)

// startSentinel starts a Sentinel that watches primary under the name "gpuq" and
// is alone enough to replace it.
func startSentinel(t *testing.T, primary *services.Redis) string {
	t.Helper()
	ports, err := services.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(primary.Addr)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "sentinel.conf")
	text := strings.Join([]string{
		"bind 127.0.0.1",
		fmt.Sprintf("port %d", ports[0]),
		"dir " + dir,
		fmt.Sprintf("sentinel monitor gpuq %s %s 1", host, port),
		"sentinel down-after-milliseconds gpuq 500",
		"sentinel failover-timeout gpuq 2000",
	}, "\n") + "\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", ports[0])
	sentinel := &services.Process{
		Name:    "sentinel",
		Path:    primary.Path,
		Args:    []string{conf, "--sentinel"},
		LogPath: filepath.Join(dir, "sentinel.log"),
		Ready: func(ctx context.Context) error {
			c := redis.NewSentinelClient(&redis.Options{Addr: addr})
			defer c.Close()
			replicas, err := c.Replicas(ctx, "gpuq").Result()
			if err == nil && len(replicas) == 0 {
				err = fmt.Errorf("it knows of no replica yet")
			}
			return err
		},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience) // it looks for replicas every 10 s
	defer cancel()
	if err := sentinel.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sentinel.Kill)
	return addr
}

// TestSentinelFailover defends: when the primary dies and a replica takes its
// place, the cache goes on there without a restart of gpuqd.
func TestSentinelFailover(t *testing.T) {
	primary, replica := start(t, ""), start(t, "")
	host, port, err := net.SplitHostPort(primary.server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := replica.direct.Do(t.Context(), "REPLICAOF", host, port).Err(); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the replica follows", func() bool {
		info, err := replica.direct.Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "master_link_status:up")
	})
	cache := New(Config{
		Addrs: []string{startSentinel(t, primary.server)}, MasterName: "gpuq", LedgerID: "ledger-1",
		Timeout: time.Second,
	})
	defer cache.Close()
	id := job.NewID()
	wait.Until(t, "the primary knows the job", func() bool {
		cache.Store(t.Context(), id, job.Succeeded)
		return primary.direct.Exists(t.Context(), "gpuq:done:ledger-1:"+string(id)).Val() == 1
	})
	wait.Until(t, "the replica knows it too", func() bool {
		return replica.direct.Exists(t.Context(), "gpuq:done:ledger-1:"+string(id)).Val() == 1
	})

	primary.server.Kill()
	later := job.NewID()
	wait.Until(t, "the cache writes to the new primary", func() bool {
		cache.Store(t.Context(), later, job.Failed)
		return replica.direct.Exists(t.Context(), "gpuq:done:ledger-1:"+string(later)).Val() == 1
	})
	wait.Until(t, "the cache hits again", func() bool {
		state, hit := cache.Done(t.Context(), id)
		return hit && state == job.Succeeded
	})
}
