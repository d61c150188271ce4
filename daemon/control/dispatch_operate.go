package control

import (
	"context"
	"fmt"
	"strings"

	"gpuqd/daemon/job"
)

// reasonBytesMax bounds what a person says of an action.
const reasonBytesMax = 1000

// changing are the verbs that change something: a daemon that stops lets those
// under way finish.
var changing = []Verb{
	VerbSubmit, VerbKill, VerbHold, VerbRelease, VerbDrain, VerbResume, VerbDeadRequeue, VerbDeadPurge, VerbSimulate,
	VerbSimulateDevice,
}

func doHold(ctx context.Context, h Handler, c Caller, args HoldArgs) (any, error) {
	if err := checkID(args.ID); err != nil {
		return nil, err
	}
	if err := checkReason(args.Reason); err != nil {
		return nil, err
	}
	return h.Hold(ctx, c, args)
}

func checkReason(reason string) error {
	if len(reason) > reasonBytesMax {
		return Errorf(CodeBadRequest, fmt.Sprintf("at most %d bytes", reasonBytesMax), "the reason is too long")
	}
	return nil
}

func doDrain(ctx context.Context, h Handler, c Caller, args DrainArgs) (any, error) {
	if args.Mode == "" {
		args.Mode = DrainFinish
	}
	switch args.Mode {
	case DrainFinish, DrainRequeue, DrainKill:
	default:
		return nil, Errorf(CodeBadRequest, "want finish, requeue or kill", "%q is no mode of a drain", args.Mode)
	}
	if err := checkHost(args.Host); err != nil {
		return nil, err
	}
	if strings.TrimSpace(args.Reason) == "" {
		return nil, Errorf(CodeBadRequest, "say why, for whoever finds the host drained", "a drain needs a reason")
	}
	if err := checkReason(args.Reason); err != nil {
		return nil, err
	}
	if args.Deadline < 0 {
		return nil, Errorf(CodeBadRequest, "leave it out for none", "a deadline cannot be negative")
	}
	return h.Drain(ctx, c, args)
}

func doResume(ctx context.Context, h Handler, c Caller, args ResumeArgs) (any, error) {
	if err := checkHost(args.Host); err != nil {
		return nil, err
	}
	return h.Resume(ctx, c, args)
}

func checkHost(name string) error {
	if name == "" {
		return Errorf(CodeBadRequest, "gpuqctl hosts lists them", "no host is named")
	}
	return nil
}

func doDeadList(ctx context.Context, h Handler, c Caller, args DeadArgs) (any, error) {
	if err := checkLimit(&args.Limit, "nothing else: purge what is old"); err != nil {
		return nil, err
	}
	reply, err := h.DeadList(ctx, c, args)
	if reply.Dead == nil {
		reply.Dead = []DeadRow{}
	}
	return reply, err
}

// deadIDDigitsMin is how much of a hash has to be given.
const deadIDDigitsMin = 8

// checkDeadID refuses what names nothing that was set aside.
func checkDeadID(id string) error {
	if _, err := job.ParseID(id); err == nil {
		return nil
	}
	if len(id) < deadIDDigitsMin || strings.Trim(id, "0123456789abcdef") != "" {
		return Errorf(CodeBadRequest, fmt.Sprintf("give a job's UUID, or at least %d digits of a message's hash, as gpuqctl dead list shows them", deadIDDigitsMin),
			"%q is no ID of what was set aside", id)
	}
	return nil
}

func doDeadPurge(ctx context.Context, h Handler, c Caller, args DeadPurgeArgs) (any, error) {
	if (len(args.IDs) == 0) == args.Before.IsZero() {
		return nil, Errorf(CodeBadRequest, "name messages, or a time before which all go", "a purge needs one of the two")
	}
	for _, id := range args.IDs {
		if err := checkDeadID(id); err != nil {
			return nil, err
		}
	}
	return h.DeadPurge(ctx, c, args)
}

func doEvents(ctx context.Context, h Handler, c Caller, args EventsArgs) (any, error) {
	if err := checkLimit(&args.Limit, "since or target"); err != nil {
		return nil, err
	}
	reply, err := h.Events(ctx, c, args)
	if reply.Events == nil {
		reply.Events = []EventRow{}
	}
	return reply, err
}
