package dedup

import (
	"context"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/test/services"
)

// BenchmarkDone measures what a take pays for the cache: one round trip while
// Redis answers, next to nothing while it does not.
func BenchmarkDone(b *testing.B) {
	server, err := services.NewRedis(services.RedisOptions{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	if err := server.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	defer server.Kill()
	c := New(Config{Addrs: []string{server.Addr}, LedgerID: "bench", Timeout: time.Second})
	defer c.Close()
	ctx, id := context.Background(), job.NewID()
	c.Store(ctx, id, job.Succeeded)
	b.Run("hit", func(b *testing.B) {
		for b.Loop() {
			if _, hit := c.Done(ctx, id); !hit {
				b.Fatal("a miss")
			}
		}
	})
	server.Kill()
	b.Run("down", func(b *testing.B) {
		for b.Loop() {
			if _, hit := c.Done(ctx, id); hit {
				b.Fatal("a hit")
			}
		}
	})
}
