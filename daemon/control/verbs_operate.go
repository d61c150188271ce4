package control

import (
	"context"
	"time"

	"gpuqd/daemon/job"
)

// Hold parks a job, and repeats that as Submit does.
func (c *Client) Hold(ctx context.Context, args HoldArgs) (HoldReply, error) {
	return askFor[HoldReply](ctx, c, change(VerbHold, "hold of job "+string(args.ID)), args)
}

// Release lets a held job go on, and repeats that as Submit does.
func (c *Client) Release(ctx context.Context, id job.ID) (HoldReply, error) {
	return askFor[HoldReply](ctx, c, change(VerbRelease, "release of job "+string(id)), IDArgs{ID: id})
}

// Why says what a job waits for.
func (c *Client) Why(ctx context.Context, id job.ID) (WhyReply, error) {
	return askFor[WhyReply](ctx, c, read(VerbWhy), IDArgs{ID: id})
}

// Drain keeps new attempts from a host or device, and repeats that as Submit does.
func (c *Client) Drain(ctx context.Context, args DrainArgs) (DrainReply, error) {
	return askFor[DrainReply](ctx, c, change(VerbDrain, "drain of "+target(args.Host, args.Device)), args)
}

// Resume ends a drain, and repeats that as Submit does.
func (c *Client) Resume(ctx context.Context, args ResumeArgs) (DrainReply, error) {
	return askFor[DrainReply](ctx, c, change(VerbResume, "resume of "+target(args.Host, args.Device)), args)
}

func target(host, device string) string {
	if device == "" {
		return host
	}
	return host + "/" + device
}

// DeadList returns what was set aside.
func (c *Client) DeadList(ctx context.Context, args DeadArgs) (DeadListReply, error) {
	return askFor[DeadListReply](ctx, c, read(VerbDeadList), args)
}

// DeadShow returns one of them whole.
func (c *Client) DeadShow(ctx context.Context, id string) (DeadShowReply, error) {
	return askFor[DeadShowReply](ctx, c, read(VerbDeadShow), DeadIDArgs{ID: id})
}

// DeadRequeue gives a job, or a message, another chance, and repeats that as
// Submit does.
func (c *Client) DeadRequeue(ctx context.Context, id string) (DeadRequeueReply, error) {
	return askFor[DeadRequeueReply](ctx, c, change(VerbDeadRequeue, "requeue of "+id), DeadIDArgs{ID: id})
}

// DeadPurge forgets messages, and repeats that as Submit does.
func (c *Client) DeadPurge(ctx context.Context, args DeadPurgeArgs) (DeadPurgeReply, error) {
	return askFor[DeadPurgeReply](ctx, c, change(VerbDeadPurge, "purge"), args)
}

// Events returns what was done.
func (c *Client) Events(ctx context.Context, args EventsArgs) (EventsReply, error) {
	return askFor[EventsReply](ctx, c, read(VerbEvents), args)
}

// Doctor returns the state of health. It may take a while: every host looks.
func (c *Client) Doctor(ctx context.Context, args DoctorArgs) (DoctorReply, error) {
	q := read(VerbDoctor)
	q.hold = doctorHold
	return askFor[DoctorReply](ctx, c, q, args)
}

// doctorHold is how long the daemons may look, beyond what any answer may take.
const doctorHold = 60 * time.Second

// change is a question whose repetition does no harm.
func change(verb Verb, what string) question {
	return question{verb: verb, changes: true, what: what, verify: "ask for it again: a second time does no harm"}
}
