//go:build planted

package ledger

import (
	"context"

	"gpuqd/daemon/job"
)

// ClaimByFence gives the job to whoever comes with the highest fence, wherever
// it got that from: the mistake that Claim does not make.
func (l *Ledger) ClaimByFence(ctx context.Context, c Claim, fence int64) (*job.Job, error) {
	doc, err := l.store.Update(ctx, Jobs, string(c.JobID),
		[]Cond{
			{"state", In, []string{string(job.Queued), string(job.Retrying), string(job.Claimed), string(job.Running)}},
			{"kill", Eq, nil},
			{"fence", Lt, fence},
		},
		Update{
			Set: map[string]any{"state": job.Claimed, "fence": fence, "owner": job.Owner{
				Host: c.Host, Session: c.Session, ClaimID: c.ClaimID, Devices: c.Devices, ClaimedAt: c.Now,
			}},
			Inc:  map[string]int64{"attempt": 1},
			Push: map[string]any{"history": job.Change{ID: c.ClaimID, State: job.Claimed, At: c.Now, Host: c.Host}},
		})
	if err == nil {
		return decode[job.Job](doc)
	}
	return l.readBack(ctx, step{id: c.JobID, opID: c.ClaimID, to: job.Claimed}, err)
}
