package control

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"gpuqd/daemon/job"
)

// verb carries out one kind of request; what it returns becomes the data.
type verb func(ctx context.Context, h Handler, c Caller, args json.RawMessage) (any, error)

// verbs is the whole protocol, one row per verb.
var verbs = map[Verb]verb{
	VerbSubmit: func(ctx context.Context, h Handler, c Caller, args json.RawMessage) (any, error) {
		return h.Submit(ctx, c, args)
	},
	VerbList: with(doList),
	VerbShow: with(func(ctx context.Context, h Handler, c Caller, args IDArgs) (any, error) {
		if err := checkID(args.ID); err != nil {
			return nil, err
		}
		return h.Show(ctx, c, args.ID)
	}),
	VerbStates: with(doStates),
	VerbLogs:   with(doLogs),
	VerbKill: with(func(ctx context.Context, h Handler, c Caller, args KillArgs) (any, error) {
		if err := checkID(args.ID); err != nil {
			return nil, err
		}
		return h.Kill(ctx, c, args)
	}),
	VerbHosts: with(func(ctx context.Context, h Handler, c Caller, _ struct{}) (any, error) {
		return h.Hosts(ctx, c)
	}),
	VerbDevices: with(func(ctx context.Context, h Handler, c Caller, args DevicesArgs) (any, error) {
		return h.Devices(ctx, c, args)
	}),
	VerbVersion: with(func(ctx context.Context, h Handler, c Caller, _ struct{}) (any, error) {
		return h.Version(ctx, c)
	}),
	VerbStatus: with(func(ctx context.Context, h Handler, c Caller, _ struct{}) (any, error) {
		return h.Status(ctx, c)
	}),
	VerbHold: with(doHold),
	VerbRelease: with(func(ctx context.Context, h Handler, c Caller, args IDArgs) (any, error) {
		if err := checkID(args.ID); err != nil {
			return nil, err
		}
		return h.Release(ctx, c, args.ID)
	}),
	VerbWhy: with(func(ctx context.Context, h Handler, c Caller, args IDArgs) (any, error) {
		if err := checkID(args.ID); err != nil {
			return nil, err
		}
		return h.Why(ctx, c, args.ID)
	}),
	VerbDrain:    with(doDrain),
	VerbResume:   with(doResume),
	VerbDeadList: with(doDeadList),
	VerbDeadShow: with(func(ctx context.Context, h Handler, c Caller, args DeadIDArgs) (any, error) {
		if err := checkDeadID(args.ID); err != nil {
			return nil, err
		}
		return h.DeadShow(ctx, c, args.ID)
	}),
	VerbDeadRequeue: with(func(ctx context.Context, h Handler, c Caller, args DeadIDArgs) (any, error) {
		if err := checkDeadID(args.ID); err != nil {
			return nil, err
		}
		return h.DeadRequeue(ctx, c, args.ID)
	}),
	VerbDeadPurge: with(doDeadPurge),
	VerbEvents:    with(doEvents),
	VerbDoctor: with(func(ctx context.Context, h Handler, c Caller, args DoctorArgs) (any, error) {
		return h.Doctor(ctx, c, args)
	}),
	VerbSimulate:       with(doSimulate),
	VerbSimulateDevice: with(doSimulateDevice),
}

// with decodes a verb's arguments before it runs.
func with[A any](do func(context.Context, Handler, Caller, A) (any, error)) verb {
	return func(ctx context.Context, h Handler, c Caller, raw json.RawMessage) (any, error) {
		var args A
		if len(raw) > 0 {
			if err := job.DecodeStrict(raw, &args); err != nil {
				return nil, Errorf(CodeBadRequest, "use a gpuqctl of the daemon's version; gpuqctl version shows both",
					"arguments not understood: %v", err)
			}
		}
		return do(ctx, h, c, args)
	}
}

// Dispatch carries out one request for a caller who has been established. A
// panic of the handler is answered as an internal error and ends nothing else.
func Dispatch(ctx context.Context, h Handler, c Caller, req Request) Response {
	if req.Schema != Schema {
		return fail(Errorf(CodeBadRequest, "use a gpuqctl of the daemon's version",
			"request has schema version %d, this daemon speaks %d", req.Schema, Schema))
	}
	do, ok := verbs[req.Verb]
	if !ok {
		return fail(Errorf(CodeBadRequest, "use a gpuqctl of the daemon's version; it knows "+verbNames(),
			"this daemon does not know the verb %q", req.Verb))
	}
	if c.User == "" {
		return fail(Errorf(CodeForbidden, "ask over the socket, or with the user-id property set", "the request names no user"))
	}
	return respond(guarded(ctx, do, h, c, req))
}

func guarded(ctx context.Context, do verb, h Handler, c Caller, req Request) (reply any, err error) {
	defer func() {
		if p := recover(); p != nil {
			slog.Error("control request panicked", "err", fmt.Sprintf("%s: %v\n%s", req.Verb, p, debug.Stack()))
			reply, err = nil, Errorf(CodeInternal, "the daemon's log has the details", "the daemon failed on %s", req.Verb)
		}
	}()
	return do(ctx, h, c, req.Args)
}

// Encode returns the response to a request that was carried out elsewhere, as it
// travels: the daemon answers a message of the queue gpuq.submit with it.
func Encode(reply any, err error) []byte { return encode(respond(reply, err)) }

func respond(reply any, err error) Response {
	if err != nil {
		return fail(AsError(err))
	}
	data, err := json.Marshal(reply)
	if err != nil {
		return fail(Errorf(CodeInternal, "", "encode the reply: %v", err))
	}
	return Response{Schema: Schema, Data: data}
}

func fail(e *Error) Response { return Response{Schema: Schema, Error: e} }

func doList(ctx context.Context, h Handler, c Caller, args ListArgs) (any, error) {
	if err := checkLimit(&args.Limit, "state, user or since"); err != nil {
		return nil, err
	}
	for _, s := range args.States {
		if !s.Valid() {
			return nil, Errorf(CodeBadRequest, "want any of "+stateNames(), "%q is no state", s)
		}
	}
	reply, err := h.List(ctx, c, args)
	if reply.Jobs == nil {
		reply.Jobs = []JobRow{} // an empty list is [] to programs, never null
	}
	return reply, err
}

// checkLimit fills in the default; narrow names what else makes a list shorter.
func checkLimit(limit *int, narrow string) error {
	if *limit == 0 {
		*limit = RowsDefault
	}
	if *limit < 0 || *limit > RowsMax {
		return Errorf(CodeBadRequest, fmt.Sprintf("give 1 to %d, and narrow with %s", RowsMax, narrow), "limit %d is out of bounds", *limit)
	}
	return nil
}

func doLogs(ctx context.Context, h Handler, c Caller, args LogsArgs) (any, error) {
	if err := checkID(args.ID); err != nil {
		return nil, err
	}
	if args.Attempt < 0 || args.Offset < 0 || args.Max < 0 {
		return nil, Errorf(CodeBadRequest, "leave them out for the last attempt from its start", "attempt, offset and max cannot be negative")
	}
	if args.Max == 0 || args.Max > LogBytesMax {
		args.Max = LogBytesMax
	}
	return h.Logs(ctx, c, args)
}

// StatesWaitMax is the longest that one states request is held.
const StatesWaitMax = 10 * time.Second

// The time between two looks of a held states request: short at first, for jobs
// of a second; longer later, and the longer the more jobs are looked at, for the
// ledger's sake.
const (
	statesPollMin    = 50 * time.Millisecond
	statesPollMax    = time.Second
	statesPollPerJob = 4 * time.Millisecond
)

// unheld marks a context in which states answers at once.
type unheld struct{}

func doStates(ctx context.Context, h Handler, c Caller, args StatesArgs) (any, error) {
	if len(args.IDs) == 0 || len(args.IDs) > RowsMax {
		return nil, Errorf(CodeBadRequest, fmt.Sprintf("give 1 to %d", RowsMax), "%d job IDs are out of bounds", len(args.IDs))
	}
	for _, id := range args.IDs {
		if err := checkID(id); err != nil {
			return nil, err
		}
	}
	deadline := time.Now().Add(min(args.Wait.Std(), StatesWaitMax))
	if ctx.Value(unheld{}) != nil {
		deadline = time.Now()
	}
	pauseMax := statesPollMax + time.Duration(len(args.IDs))*statesPollPerJob
	for pause := statesPollMin; ; pause = min(2*pause, pauseMax) {
		rows, err := h.States(ctx, c, args.IDs)
		if err != nil {
			return nil, err
		}
		reply := inOrder(args.IDs, rows)
		ended := slices.ContainsFunc(rows, func(r JobRow) bool { return r.State.Terminal() })
		left := time.Until(deadline)
		if ended || len(reply.Missing) > 0 || left <= 0 {
			return reply, nil
		}
		select {
		case <-time.After(min(pause, left)):
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for jobs: %w", context.Cause(ctx))
		}
	}
}

// inOrder puts rows in the order of ids and finds the ones that are missing.
func inOrder(ids []job.ID, rows []JobRow) StatesReply {
	byID := make(map[job.ID]JobRow, len(rows))
	for _, r := range rows {
		byID[r.ID] = r
	}
	reply := StatesReply{Jobs: make([]JobRow, 0, len(ids))}
	for _, id := range ids {
		if row, ok := byID[id]; ok {
			reply.Jobs = append(reply.Jobs, row)
		} else {
			reply.Missing = append(reply.Missing, id)
		}
	}
	return reply
}

func checkID(id job.ID) error {
	if _, err := job.ParseID(string(id)); err != nil {
		return &Error{Code: CodeBadRequest, Message: err.Error()}
	}
	return nil
}

func stateNames() string {
	names := make([]string, 0, len(job.States))
	for _, s := range job.States {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

func verbNames() string {
	names := make([]string, 0, len(verbs))
	for v := range verbs {
		names = append(names, string(v))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
