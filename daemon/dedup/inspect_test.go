package dedup

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/health"
	"gpuqd/test/services"
	"gpuqd/test/wait"
)

// wantCheck looks, and expects a check of that name and state whose text has all
// the words.
func wantCheck(t *testing.T, c *Cache, name string, state health.State, words ...string) {
	t.Helper()
	checks := c.Inspect(t.Context())
	for _, c := range checks {
		if c.Saw == "" || (c.Advice == "") != (c.State == health.OK) || strings.Contains(c.Saw+c.Advice, "not-to-be-told") {
			t.Errorf("%+v", c)
		}
	}
	found := slices.ContainsFunc(checks, func(c health.Check) bool {
		return c.Name == name && c.State == state &&
			!slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(c.Saw+" "+c.Advice, w) })
	})
	if !found {
		t.Errorf("no check %q is %s with %q: %+v", name, state, words, checks)
	}
}

func TestInspect(t *testing.T) {
	f := start(t, "not-to-be-told")
	set := func(name, value string) {
		t.Helper()
		if err := f.direct.ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("HealthyServerIsGoodInEveryCheck", func(t *testing.T) {
		for name, word := range map[string]string{
			checkServer: "answers in", checkEviction: "noeviction", checkMemory: "of 100 MiB used", checkReplication: "primary, with 0 replicas",
		} {
			wantCheck(t, f.Cache, name, health.OK, word)
		}
	})
	t.Run("PolicyThatForgetsIsNamed", func(t *testing.T) {
		set("maxmemory-policy", "allkeys-lru")
		wantCheck(t, f.Cache, checkEviction, health.Warn, "allkeys-lru", "maxmemory-policy noeviction")
		set("maxmemory-policy", "volatile-ttl")
		wantCheck(t, f.Cache, checkEviction, health.OK, "volatile-ttl")
		set("maxmemory-policy", "noeviction")
	})
	t.Run("NoLimitAndAFullServerAreNamed", func(t *testing.T) {
		set("maxmemory", "0")
		wantCheck(t, f.Cache, checkMemory, health.Warn, "without a limit", "set maxmemory")
		set("maxmemory", "1mb")
		wantCheck(t, f.Cache, checkMemory, health.Warn, "of 1.0 MiB used", "raise maxmemory")
		set("maxmemory", "100mb")
	})
	t.Run("ReplicaIsNamed", func(t *testing.T) {
		ports, err := services.FreePorts(1)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.direct.Do(t.Context(), "REPLICAOF", "127.0.0.1", ports[0]).Err(); err != nil {
			t.Fatal(err)
		}
		wantCheck(t, f.Cache, checkReplication, health.Warn, fmt.Sprintf("a replica of 127.0.0.1:%d (link down)", ports[0]))
		if err := f.direct.Do(t.Context(), "REPLICAOF", "NO", "ONE").Err(); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("OneThatIsDownIsAFailure", func(t *testing.T) {
		f.server.Stop(patience)
		wantCheck(t, f.Cache, checkServer, health.Fail, f.server.Addr, "connection refused", "start Redis")
	})
	t.Run("NoneConfiguredIsGood", func(t *testing.T) {
		c := New(Config{LedgerID: "ledger-1"})
		defer c.Close()
		wantCheck(t, c, checkServer, health.OK, "none is configured")
	})
	t.Run("SentinelsThatDoNotAnswerAreNamed", func(t *testing.T) {
		ports, err := services.FreePorts(1)
		if err != nil {
			t.Fatal(err)
		}
		addr := fmt.Sprintf("127.0.0.1:%d", ports[0])
		c := New(Config{Addrs: []string{addr}, MasterName: "gpuq", LedgerID: "ledger-1", Timeout: time.Second})
		defer c.Close()
		wantCheck(t, c, checkServer, health.Fail, addr)
		wantCheck(t, c, checkSentinels, health.Warn, addr+": ", "connection refused")
		wantCheck(t, c, checkSentinels, health.Warn, "1 Sentinels are configured")
	})
}

// A Sentinel that works is reported with what it watches.
func TestInspectSentinel(t *testing.T) {
	primary, replica := start(t, ""), start(t, "")
	host, port, _ := strings.Cut(primary.server.Addr, ":")
	if err := replica.direct.Do(t.Context(), "REPLICAOF", host, port).Err(); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the replica follows", func() bool {
		info, err := replica.direct.Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "master_link_status:up")
	})
	c := New(Config{Addrs: []string{startSentinel(t, primary.server)}, MasterName: "gpuq", LedgerID: "ledger-1", Timeout: time.Second})
	defer c.Close()
	wantCheck(t, c, checkSentinels, health.OK, "primary "+primary.server.Addr+" is master, with 1 replicas; 0 other Sentinels, quorum 1")
	wantCheck(t, c, checkReplication, health.OK, "primary, with 1 replicas")
}
