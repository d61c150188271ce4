package dedup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"gpuqd/daemon/health"

	"github.com/redis/go-redis/v9"
)

// Names of the checks.
const (
	checkServer      = "server"
	checkEviction    = "eviction"
	checkMemory      = "memory"
	checkReplication = "replication"
	checkSentinels   = "sentinels"
)

// inspectRounds is how many answers the latency is taken from.
const inspectRounds = 5

// Inspect asks Redis how it fares, whether the cache is in use or not.
func (c *Cache) Inspect(ctx context.Context) []health.Check {
	if c.client == nil {
		return []health.Check{health.Good(checkServer, "none is configured: each duplicate of a finished job costs a read of the ledger, and nothing else")}
	}
	var checks []health.Check
	info, err := c.info(ctx)
	if err != nil {
		checks = append(checks, health.Bad(checkServer, health.Fail, "start Redis, or mend the network, the account or the password (redis.user, redis.password_file); "+
			"until then each duplicate costs a read of the ledger, and no promise suffers", "%s: %v", strings.Join(c.addrs, ", "), err))
	} else {
		checks = append(checks, c.judgeServer(ctx, info), judgeEviction(info), judgeMemory(info), judgeReplication(info))
	}
	if c.masterName != "" {
		checks = append(checks, c.inspectSentinels(ctx)...)
	}
	return checks
}

// info returns what INFO says, by field. Of a Redis Cluster one node answers.
func (c *Cache) info(ctx context.Context) (map[string]string, error) {
	// Longer than a job would wait: a slow answer is to be seen, not to be absent.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	text, err := c.client.Info(ctx).Result()
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok {
			fields[name] = value
		}
	}
	return fields, nil
}

func (c *Cache) judgeServer(ctx context.Context, info map[string]string) health.Check {
	var times []time.Duration
	for range inspectRounds {
		began := time.Now()
		if err := c.client.Ping(ctx).Err(); err != nil {
			return health.Bad(checkServer, health.Fail, "see why Redis answers now and then only: its log, the network, the load of its machine",
				"redis %s answers once, then: %v", info["redis_version"], err)
		}
		times = append(times, time.Since(began))
	}
	median, most := health.Spread(times)
	saw := fmt.Sprintf("redis %s answers in %s (median of %d; at most %s); a job waits for it up to %s",
		info["redis_version"], health.Figure(median), inspectRounds, health.Figure(most), health.Figure(c.timeout))
	if ok, why := c.Healthy(); !ok {
		return health.Bad(checkServer, health.Warn, "mend what the reason names, such as a full memory; the cache comes back by itself, and until then the ledger is asked",
			"%s; the cache is out of use: %s", saw, why)
	}
	if 2*median > c.timeout {
		return health.Bad(checkServer, health.Warn, "bring Redis nearer or give it less to do; past redis.timeout the ledger is asked instead", "%s", saw)
	}
	return health.Good(checkServer, "%s", saw)
}

func judgeEviction(info map[string]string) health.Check {
	policy := info["maxmemory_policy"]
	switch {
	case policy == "":
		return health.Bad(checkEviction, health.Unknown, "by hand: redis-cli config get maxmemory-policy; want noeviction", "the server does not tell its eviction policy")
	case policy == "noeviction", strings.HasPrefix(policy, "volatile-"):
		return health.Good(checkEviction, "%s", policy)
	}
	return health.Bad(checkEviction, health.Warn, "set maxmemory-policy noeviction (redis-cli config set, and in redis.conf): finished jobs are forgotten in silence "+
		"under memory pressure, and duplicates of them cost reads of the ledger", "%s", policy)
}

func judgeMemory(info map[string]string) health.Check {
	used, err := strconv.ParseUint(info["used_memory"], 10, 64)
	most, err2 := strconv.ParseUint(info["maxmemory"], 10, 64)
	if err := errors.Join(err, err2); err != nil {
		return health.Bad(checkMemory, health.Unknown, "by hand: redis-cli info memory", "the server does not tell its memory")
	}
	switch {
	case most == 0:
		return health.Bad(checkMemory, health.Warn, "set maxmemory in redis.conf: without it a burst of finished jobs grows Redis until the kernel kills something; "+
			"a job takes about 150 bytes for redis.ttl", "%s used, without a limit", health.Bytes(used))
	case used >= most/10*9:
		return health.Bad(checkMemory, health.Warn, "raise maxmemory, or shorten redis.ttl: when it is full, finished jobs are no longer remembered",
			"%s of %s used", health.Bytes(used), health.Bytes(most))
	}
	return health.Good(checkMemory, "%s of %s used", health.Bytes(used), health.Bytes(most))
}

func judgeReplication(info map[string]string) health.Check {
	switch info["role"] {
	case "master":
		return health.Good(checkReplication, "it is the primary, with %s replicas", info["connected_slaves"])
	case "slave":
		return health.Bad(checkReplication, health.Warn, "name the Sentinels in redis.addresses and the primary's name in redis.master_name, or the primary itself: a replica takes no writes",
			"the server asked is a replica of %s:%s (link %s)", info["master_host"], info["master_port"], info["master_link_status"])
	}
	return health.Bad(checkReplication, health.Unknown, "by hand: redis-cli info replication", "the server does not tell its role")
}

// inspectSentinels asks each Sentinel which primary it sees, and whether enough
// of them agree to replace it.
func (c *Cache) inspectSentinels(ctx context.Context) []health.Check {
	var checks []health.Check
	primaries := map[string]bool{}
	for _, addr := range c.addrs {
		primary, check := c.inspectSentinel(ctx, addr)
		checks = append(checks, check)
		if primary != "" {
			primaries[primary] = true
		}
	}
	if len(primaries) > 1 {
		checks = append(checks, health.Bad(checkSentinels, health.Warn, "wait for the failover to end; where it stays, compare sentinel monitor on each",
			"the Sentinels name %d different primaries", len(primaries)))
	}
	if len(c.addrs) < 3 {
		checks = append(checks, health.Bad(checkSentinels, health.Warn, "run three Sentinels on machines of their own and name all in redis.addresses",
			"%d Sentinels are configured: fewer than three cannot tell a dead primary from a cut network", len(c.addrs)))
	}
	return checks
}

func (c *Cache) inspectSentinel(ctx context.Context, addr string) (primary string, check health.Check) {
	s := redis.NewSentinelClient(&redis.Options{
		Addr: addr, Username: c.sentinelUser, Password: c.sentinelPassword, TLSConfig: c.tls,
		DialTimeout: 2 * time.Second, ReadTimeout: 2 * time.Second, MaxRetries: -1, DisableIdentity: true,
	})
	defer s.Close() //nolint:errcheck // nothing is buffered
	said, err := s.Master(ctx, c.masterName).Result()
	if err != nil {
		return "", health.Bad(checkSentinels, health.Warn, "start that Sentinel, or correct redis.addresses and redis.master_name", "%s: %v", addr, err)
	}
	primary = said["ip"] + ":" + said["port"]
	saw := fmt.Sprintf("%s: primary %s is %s, with %s replicas; %s other Sentinels, quorum %s",
		addr, primary, said["flags"], said["num-slaves"], said["num-other-sentinels"], said["quorum"])
	if said["flags"] != "master" || said["num-slaves"] == "0" {
		return primary, health.Bad(checkSentinels, health.Warn, "start the primary or a replica: without one there is nothing to fail over to", "%s", saw)
	}
	if err := s.CkQuorum(ctx, c.masterName).Err(); err != nil {
		return primary, health.Bad(checkSentinels, health.Warn, "start the other Sentinels: too few are there to replace a dead primary", "%s; %v", saw, err)
	}
	return primary, health.Good(checkSentinels, "%s", saw)
}
