package dedup

import (
	"errors"
	"net"

	"github.com/redis/go-redis/v9"
)

// resultOf names what became of a question, for Config.Observe.
func resultOf(err error) string {
	var slow net.Error // of a read of the network, or of the context
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, redis.Nil):
		return "miss"
	case errors.As(err, &slow) && slow.Timeout():
		return "timeout"
	}
	return "failed"
}

// Circuit is whether Redis is asked at all, for reads or for writes.
type Circuit struct {
	Name string // reads or writes
	Open bool   // Redis failed, and is not asked until a probe succeeds
}

// Circuits returns how the circuits stand.
func (c *Cache) Circuits() []Circuit {
	return []Circuit{{c.reads.what, !c.reads.closed()}, {c.writes.what, !c.writes.closed()}}
}
