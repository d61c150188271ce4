//go:build planted

package agent

import (
	"context"
	"fmt"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
)

// CanPlant reports whether this build can make mistakes on purpose.
const CanPlant = true

// Planted is the mistake to make; "" is none.
var Planted Bug

func bugged(b Bug) bool { return Planted == b }

// fencer is a cache that hands out fences.
type fencer interface {
	NextFence(ctx context.Context, id job.ID) (int64, error)
}

func (a *Agent) claim(ctx context.Context, c ledger.Claim) (*job.Job, error) {
	if !bugged(FenceFromRedis) {
		return a.ledger.Claim(ctx, c)
	}
	fence, err := a.done.(fencer).NextFence(ctx, c.JobID)
	if err != nil {
		return nil, fmt.Errorf("fence from the cache: %w", err)
	}
	return a.ledger.ClaimByFence(ctx, c, fence)
}
