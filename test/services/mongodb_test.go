package services

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

func TestMongo(t *testing.T) {
	ports, err := FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewMongo(t.Context(), t.TempDir(), ports[0])
	if err != nil {
		t.Fatal(err)
	}
	if genuine := strings.HasPrefix(m.Kind, "mongod "); genuine != m.Genuine() {
		t.Errorf("a server of kind %q says genuine: %v", m.Kind, m.Genuine())
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	t.Run("StartsAgainOverItsDataAfterStopAndKill", func(t *testing.T) {
		defer m.Stop()
		for i, end := range []func(){m.Stop, m.Process.Kill, m.Stop} {
			if err := m.Start(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := m.admin(ctx, bson.D{{Key: "insert", Value: "starts"}, {Key: "documents", Value: bson.A{bson.D{{Key: "_id", Value: i}}}}}); err != nil {
				t.Fatal(err)
			}
			reply, err := m.admin(ctx, bson.D{{Key: "count", Value: "starts"}})
			if err != nil {
				t.Fatal(err)
			}
			if n, _ := reply.Lookup("n").AsInt64OK(); n != int64(i+1) {
				t.Fatalf("%d documents after start %d", n, i+1)
			}
			end()
		}
		if err := m.Process.Err(); err != nil {
			t.Errorf("a stop is no failure: %v", err)
		}
	})
}

func TestMongowireIsBuiltOnce(t *testing.T) {
	paths := make([]string, 4)
	var callers sync.WaitGroup
	for i := range paths {
		callers.Go(func() {
			var err error
			if paths[i], err = BuildMongowire(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	for _, path := range paths {
		if path != paths[0] {
			t.Errorf("built at %s and %s", path, paths[0])
		}
	}
	if _, err := os.Stat(paths[0]); err != nil {
		t.Error(err)
	}
}
