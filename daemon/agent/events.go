package agent

import (
	"context"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
)

// Events implements control.Handler. Operators see all; users see what they did
// themselves, and what was done to their own jobs and to hosts.
func (a *Agent) Events(ctx context.Context, caller control.Caller, args control.EventsArgs) (control.EventsReply, error) {
	l, err := a.book()
	if err != nil {
		return control.EventsReply{}, err
	}
	most := args.Limit + 1
	if !caller.Operator {
		most = control.RowsMax // how many of them are the caller's, only reading tells
	}
	events, err := l.EventList(ctx, ledger.EventFilter{Since: args.Since, Target: args.Target, Limit: most})
	if err != nil {
		return control.EventsReply{}, a.asked(ctx, err)
	}
	more := len(events) == most
	if !caller.Operator {
		if events, err = visible(ctx, l, caller, events); err != nil {
			return control.EventsReply{}, a.asked(ctx, err)
		}
	}
	more = more || len(events) > args.Limit
	reply := control.EventsReply{More: more}
	for _, e := range events[:min(len(events), args.Limit)] {
		reply.Events = append(reply.Events, control.EventRow{
			ID: e.ID, At: e.At, Who: e.Who, What: e.What, Target: e.Target, Why: e.Why, Host: e.Host,
		})
	}
	return reply, nil
}

// visible returns the events that a user who is no operator may see.
func visible(ctx context.Context, l *ledger.Ledger, caller control.Caller, events []*ledger.Event) ([]*ledger.Event, error) {
	var ids []job.ID
	for _, e := range events {
		if id, err := job.ParseID(e.Target); err == nil {
			ids = append(ids, id)
		}
	}
	jobs, err := l.JobsByID(ctx, ids)
	if err != nil {
		return nil, err
	}
	own := map[string]bool{}
	for _, j := range jobs {
		own[string(j.ID)] = j.Submitter == caller.User
	}
	var list []*ledger.Event
	for _, e := range events {
		_, err := job.ParseID(e.Target)
		ofJob := err == nil
		ofHost := !ofJob && e.What != "dead_requeue" && e.What != "dead_purge"
		if e.Who == caller.User || own[e.Target] || ofHost {
			list = append(list, e)
		}
	}
	return list, nil
}
