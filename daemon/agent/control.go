package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

var _ control.Handler = (*Agent)(nil)

// controlWorkers bounds the requests from the broker handled at once.
const controlWorkers = 32

// serveControl answers gpuqctl over the socket, with every broker down too, and
// over the broker.
func (a *Agent) serveControl(ctx context.Context) error {
	server := control.NewServer(a, control.Options{
		Socket:    a.cfg.Control.Socket,
		Operators: func() []string { return a.live().Control.Operators },
		Forwards:  func(account string) bool { return account == a.cfg.Broker.User },
		Observe:   a.metrics.controlRequests.count,
	})
	if err := server.Start(); err != nil {
		return err
	}
	defer server.Stop()
	return a.broker.ConsumeControl(ctx, controlWorkers, func(ctx context.Context, d *broker.Delivery) broker.Verdict {
		body := server.ServeDelivery(ctx, d.UserID, d.Body)
		if err := a.broker.Reply(ctx, d, body); err != nil {
			a.log.Debug("reply could not be sent; the client asks again", "err", err)
		}
		return broker.Done
	})
}

// book returns the ledger, or why it cannot be asked yet.
func (a *Agent) book() (*ledger.Ledger, error) {
	select {
	case <-a.opened:
		return a.ledger, nil
	default:
		return nil, control.Errorf(control.CodeUnavailable, "try again; the daemon's log says what it waits for",
			"the daemon on %s is starting and has not reached its ledger yet", a.host)
	}
}

// asked turns an error of the ledger into one of the protocol.
func (a *Agent) asked(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ledger.ErrNotFound):
		return control.Errorf(control.CodeNotFound, "gpuqctl list shows the jobs there are", "%v", err)
	}
	a.ledgerFailedIn(ctx, err)
	return fmt.Errorf("%w: the ledger did not answer; try again: %w", control.ErrUnavailable, err)
}

// Submit implements control.Handler.
func (a *Agent) Submit(ctx context.Context, caller control.Caller, submission []byte) (control.SubmitReply, error) {
	if _, err := a.book(); err != nil {
		return control.SubmitReply{}, err
	}
	reply, err := a.submit(ctx, submission, caller, false)
	return reply, submitError(err)
}

// submitError turns an error of submit into one of the protocol.
func submitError(err error) error {
	switch {
	case err == nil, errors.Is(err, job.ErrMessage):
		return err
	case errors.Is(err, ledger.ErrConflict):
		return fmt.Errorf("%w: %w", control.ErrConflict, err)
	case errors.Is(err, ledger.ErrShapesFull):
		return fmt.Errorf("%w: %w", control.ErrBadRequest, err)
	}
	return fmt.Errorf("%w: the ledger did not say whether it has the job: %w", control.ErrUnknownOutcome, err)
}

// List implements control.Handler.
func (a *Agent) List(ctx context.Context, _ control.Caller, args control.ListArgs) (control.ListReply, error) {
	l, err := a.book()
	if err != nil {
		return control.ListReply{}, err
	}
	jobs, err := l.JobList(ctx, ledger.JobFilter{
		States: args.States, Submitter: args.User, Since: args.Since, Limit: args.Limit + 1,
	})
	if err != nil {
		return control.ListReply{}, a.asked(ctx, err)
	}
	reply := control.ListReply{More: len(jobs) > args.Limit}
	reply.Jobs = a.rows(jobs[:min(len(jobs), args.Limit)])
	return reply, nil
}

func (a *Agent) rows(jobs []*job.Job) []control.JobRow {
	list := make([]control.JobRow, len(jobs))
	for i, j := range jobs {
		list[i] = control.RowOf(j)
		if j.State == job.Queued && j.Reason == "" {
			list[i].Reason = a.unplaceable(j.Spec)
		}
	}
	return list
}

// Show implements control.Handler.
func (a *Agent) Show(ctx context.Context, caller control.Caller, id job.ID) (*job.Job, error) {
	l, err := a.book()
	if err != nil {
		return nil, err
	}
	j, err := l.Job(ctx, id)
	if err != nil {
		return nil, a.asked(ctx, err)
	}
	if !caller.MayAct(j.Submitter) {
		hidePrivate(j)
	}
	return j, nil
}

// hidePrivate leaves out what only a job's submitter and operators may read:
// values of its environment, which can be secrets, and its output.
func hidePrivate(j *job.Job) {
	for name := range j.Spec.Env {
		j.Spec.Env[name] = "(hidden)"
	}
	if j.Result != nil {
		j.Result.LogTail = ""
	}
}

// States implements control.Handler.
func (a *Agent) States(ctx context.Context, _ control.Caller, ids []job.ID) ([]control.JobRow, error) {
	l, err := a.book()
	if err != nil {
		return nil, err
	}
	jobs, err := l.JobsByID(ctx, ids)
	if err != nil {
		return nil, a.asked(ctx, err)
	}
	return a.rows(jobs), nil
}

// Kill implements control.Handler. The request is durable before anybody is
// told; the owner also finds it at its next renewal.
func (a *Agent) Kill(ctx context.Context, caller control.Caller, args control.KillArgs) (control.KillReply, error) {
	l, _, err := a.ownJob(ctx, caller, args.ID)
	if err != nil {
		return control.KillReply{}, err
	}
	reason := "killed by " + caller.User
	if args.Reason != "" {
		reason += ": " + args.Reason
	}
	after, err := l.Kill(ctx, args.ID, job.Kill{ID: "kill-" + uuid.NewString(), Who: caller.User, Reason: reason, At: a.now()})
	switch {
	case errors.Is(err, ledger.ErrTerminal):
		return control.KillReply{State: after.State}, nil
	case err != nil:
		return control.KillReply{}, a.asked(ctx, err)
	}
	if caller.Via != control.ViaForwarded {
		a.recordEvent(ctx, "kill", caller.User, string(after.ID), after.Kill.Reason)
	}
	if after.State.Terminal() {
		a.done.Store(ctx, after.ID, after.State)
		return control.KillReply{State: after.State}, nil
	}
	a.passKillOn(ctx, caller, args, after)
	return control.KillReply{State: after.State, Flagged: true}, nil
}

// passKillOn tells the owner at once: this host, or another through the broker.
func (a *Agent) passKillOn(ctx context.Context, caller control.Caller, args control.KillArgs, j *job.Job) {
	if r := a.runs.byClaim(j.Owner.ClaimID); r != nil {
		r.kill(*j.Kill)
		return
	}
	if j.Owner.Host == a.host || caller.Via == control.ViaForwarded {
		return // its renewal finds the flag
	}
	var reply control.KillReply
	if err := a.askHost(ctx, j.Owner.Host, control.VerbKill, caller, args, &reply); err != nil {
		a.log.Info("owner could not be told of the kill; its next renewal finds it", "job_id", j.ID, "err", err)
	}
}

// askHostTimeout bounds a request to another host's daemon.
const askHostTimeout = 5 * time.Second

// askHost puts a request of caller's to the daemon of another host.
func (a *Agent) askHost(ctx context.Context, host string, verb control.Verb, caller control.Caller, args, reply any) error {
	ctx, cancel := context.WithTimeout(ctx, askHostTimeout)
	defer cancel()
	return a.ask(ctx, host, verb, caller, args, reply)
}

// ask is askHost for as long as ctx; host "" is whichever daemon is free.
func (a *Agent) ask(ctx context.Context, host string, verb control.Verb, caller control.Caller, args, reply any) error {
	raw, err := json.Marshal(args)
	if err != nil {
		return err
	}
	body, err := json.Marshal(control.Request{Schema: control.Schema, Verb: verb, Args: raw, Caller: &caller})
	if err != nil {
		return err
	}
	key := broker.KeyAny
	if host != "" {
		key = broker.HostKey(host)
	}
	answer, err := a.broker.Request(ctx, broker.ExchangeControl, key, body, nil)
	if errors.Is(err, broker.ErrNoHost) {
		return fmt.Errorf("%w: its gpuqd is not connected to the broker", control.ErrNoHost)
	}
	if err != nil {
		return fmt.Errorf("ask host %s: %w", host, err)
	}
	var response control.Response
	if err := json.Unmarshal(answer, &response); err != nil {
		return fmt.Errorf("ask host %s: %w", host, err)
	}
	if response.Error != nil {
		return response.Error
	}
	return json.Unmarshal(response.Data, reply)
}

func forbidden(j *job.Job) error {
	return control.Errorf(control.CodeForbidden, "ask its submitter or an operator", "job %s belongs to %s", j.ID, j.Submitter)
}

// operatorsOnly refuses what takes an operator; what goes on after "may ".
func operatorsOnly(what string) error {
	return control.Errorf(control.CodeForbidden,
		"operators are root and the daemon's own user over its socket, and whom control.operators of gpuqd.toml names: ask one, or be named there",
		"only operators may %s", what)
}
