package dedup

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/redis/go-redis/v9"
)

// library takes what the Redis client has to say, which it writes to stderr
// otherwise: there a journald that stands still would hold the daemon up. It is the
// process's, not a cache's: the last one has it. What matters of it the circuits
// say by themselves.
type library struct{ log *slog.Logger }

// Printf implements the client's logger.
func (l library) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, "Redis client has something to say", "reason", fmt.Sprintf(format, v...))
}

// hear lets a log have what the client says.
func hear(log *slog.Logger) { redis.SetLogger(library{log}) }
