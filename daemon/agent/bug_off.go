//go:build !planted

package agent

import (
	"context"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
)

// CanPlant reports whether this build can make mistakes on purpose.
const CanPlant = false

func bugged(Bug) bool { return false }

func (a *Agent) claim(ctx context.Context, c ledger.Claim) (*job.Job, error) {
	return a.ledger.Claim(ctx, c)
}
