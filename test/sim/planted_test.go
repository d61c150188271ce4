//go:build planted

package sim

import (
	"testing"

	"gpuqd/daemon/agent"
	"gpuqd/test/history"
)

// plantedWithin is the number of histories in which a planted bug must show.
const plantedWithin = 10_000

// caughtBy are the invariants that name each bug.
var caughtBy = map[agent.Bug][]history.Invariant{
	agent.AckBeforeCommit:      {history.UnjustifiedAck},
	agent.AckAcrossGenerations: {history.UnjustifiedAck},
	agent.FenceFromRedis:       {history.Overlap, history.FenceBroken, history.IllegalTransition},
	agent.TrustVanishedUnit:    {history.ResultDiffers},
	agent.WallClockTakeover:    {history.Overlap},
	agent.DepthZeroIsEmpty:     {history.NeedlessRepublish},
	agent.DoneCacheOnRequeue:   {history.UnjustifiedAck, history.Lost},
	agent.ReleaseUnrevoked:     {history.Overlap, history.RanAfterEnd},
	agent.MessageReleases:      {history.StartedHeld},
	agent.DrainUnread:          {history.StartedDrained},
	agent.DrainCharged:         {history.Overcharged},
	agent.ReleaseRunning:       {history.ReleasedRunning},
	agent.HalfShare:            {history.DeviceShared},
	agent.KindUnread:           {history.Misplaced},
}

// A bug that no history shows means that the simulation, or its checker, is
// blind.
func TestPlantedBugsAreCaught(t *testing.T) {
	defer func() { agent.Planted = "" }()
	for _, bug := range agent.Bugs {
		t.Run(string(bug), func(t *testing.T) {
			agent.Planted = bug
			for seed := range uint64(plantedWithin) {
				out := Run(t, NewPlan(seed), nil)
				collect(seed)
				for _, want := range caughtBy[bug] {
					if out.Broken(want) {
						t.Logf("caught as %s by seed %d", want, seed)
						return
					}
				}
			}
			t.Errorf("no history of %d shows it", plantedWithin)
		})
	}
}
