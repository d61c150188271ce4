package control

import (
	"context"
	"errors"

	"gpuqd/daemon/fault"
	"gpuqd/daemon/job"
)

// SimulateDeviceArgs asks one host, which any daemon passes it on to, to let a
// fault strike its simulated devices.
type SimulateDeviceArgs struct {
	ID    job.ID      `json:"id"` // of the request: one that comes again strikes once
	Host  string      `json:"host"`
	Fault fault.Fault `json:"fault"`
}

// SimulateDeviceReply says whom it struck.
type SimulateDeviceReply struct {
	Host    string   `json:"host"`
	Devices []string `json:"devices"` // UUIDs; empty where it is of all together
}

func doSimulateDevice(ctx context.Context, h Handler, c Caller, args SimulateDeviceArgs) (any, error) {
	if err := checkID(args.ID); err != nil {
		return nil, err
	}
	if err := checkHost(args.Host); err != nil {
		return nil, err
	}
	var problem *fault.Problem
	if err := args.Fault.Check(); errors.As(err, &problem) {
		return nil, Errorf(CodeBadRequest, "gpuqctl simulate device --help lists the faults and what each needs", "%v", problem)
	}
	return h.SimulateDevice(ctx, c, args)
}

// SimulateDevice lets a fault strike simulated devices, and repeats that as Submit
// does. It strikes once: args gets an ID unless it has one.
func (c *Client) SimulateDevice(ctx context.Context, args SimulateDeviceArgs) (SimulateDeviceReply, error) {
	if args.ID == "" {
		args.ID = job.NewID()
	}
	q := change(VerbSimulateDevice, "fault of "+target(args.Host, args.Fault.Device))
	q.verify = "gpuqctl events tells of it once it has struck; asked for again, it strikes again"
	return askFor[SimulateDeviceReply](ctx, c, q, args)
}
