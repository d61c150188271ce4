package control

import (
	"context"
	"time"

	"gpuqd/daemon/job"
)

// Submit hands in a job and repeats it, as the same job, until a daemon has
// confirmed or refused it or Patience is over. ErrUnknownOutcome then says that
// it may yet be confirmed. s has an ID, or a spec with a key.
func (c *Client) Submit(ctx context.Context, s job.Submission) (SubmitReply, error) {
	q := question{verb: VerbSubmit, changes: true, what: "submission of job " + string(s.ID), verify: "gpuqctl show " + string(s.ID) + " tells"}
	if s.ID == "" {
		q.what = "submission of the job with the key " + s.Spec.Key
		q.verify = "submit it again with the same key: it stays one job"
	}
	s.Schema = job.Schema
	return askFor[SubmitReply](ctx, c, q, s)
}

// List returns jobs.
func (c *Client) List(ctx context.Context, args ListArgs) (ListReply, error) {
	return askFor[ListReply](ctx, c, read(VerbList), args)
}

// Show returns the ledger's document of a job.
func (c *Client) Show(ctx context.Context, id job.ID) (*job.Job, error) {
	return askFor[*job.Job](ctx, c, read(VerbShow), IDArgs{ID: id})
}

// States returns the rows of many jobs. With wait it returns when one of them
// is terminal, or after that time; wait is cut to StatesWaitMax.
func (c *Client) States(ctx context.Context, ids []job.ID, wait time.Duration) (StatesReply, error) {
	wait = min(wait, StatesWaitMax)
	q := read(VerbStates)
	q.hold = wait
	return askFor[StatesReply](ctx, c, q, StatesArgs{IDs: ids, Wait: job.Duration(wait)})
}

// Logs returns a stretch of output.
func (c *Client) Logs(ctx context.Context, args LogsArgs) (LogsReply, error) {
	return askFor[LogsReply](ctx, c, read(VerbLogs), args)
}

// Kill asks for a job's end, and repeats that as Submit does.
func (c *Client) Kill(ctx context.Context, args KillArgs) (KillReply, error) {
	q := question{verb: VerbKill, changes: true, what: "kill of job " + string(args.ID), verify: "ask for it again: a second kill does no harm"}
	return askFor[KillReply](ctx, c, q, args)
}

// Hosts returns all hosts.
func (c *Client) Hosts(ctx context.Context) (HostsReply, error) {
	return askFor[HostsReply](ctx, c, read(VerbHosts), struct{}{})
}

// Devices returns devices.
func (c *Client) Devices(ctx context.Context, args DevicesArgs) (DevicesReply, error) {
	return askFor[DevicesReply](ctx, c, read(VerbDevices), args)
}

// Version says which daemon answers.
func (c *Client) Version(ctx context.Context) (VersionReply, error) {
	return askFor[VersionReply](ctx, c, read(VerbVersion), struct{}{})
}

// Status says how the daemon that answers fares.
func (c *Client) Status(ctx context.Context) (StatusReply, error) {
	return askFor[StatusReply](ctx, c, read(VerbStatus), struct{}{})
}

func read(verb Verb) question { return question{verb: verb, what: string(verb)} }

func askFor[R any](ctx context.Context, c *Client, q question, args any) (R, error) {
	var reply R
	err := c.ask(ctx, q, args, &reply)
	return reply, err
}
