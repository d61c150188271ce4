package control

import (
	"context"
	"slices"

	"gpuqd/daemon/broker"
)

// NeedsRabbitmqctl reports whether a finding is open because no daemon may run
// rabbitmqctl, so that a caller who may can settle it.
func NeedsRabbitmqctl(f Finding) bool {
	return f.Part == "broker" && f.State == FindingUnknown && f.Saw == broker.CtlNotSet && slices.Contains(broker.CtlChecks, f.Check)
}

// AskRabbitmqctl asks the rabbitmqctl of this machine what no daemon could find
// out; the findings are nobody's but the caller's.
func AskRabbitmqctl(ctx context.Context, command []string) []Finding {
	var list []Finding
	for _, c := range broker.InspectCtl(ctx, broker.CtlInspection{Command: command}) {
		list = append(list, Finding{Part: "broker", Check: c.Name, State: FindingState(c.State), Saw: c.Saw, Advice: c.Advice})
	}
	return list
}
