package control

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/job"
)

// The recorder's answers carry the arguments back to the test.

func (r *recorder) Hold(ctx context.Context, c Caller, a HoldArgs) (HoldReply, error) {
	return HoldReply{State: job.Waiting, Changed: a.Reason != ""}, r.enter(ctx, c)
}

func (r *recorder) Release(ctx context.Context, c Caller, id job.ID) (HoldReply, error) {
	return HoldReply{State: job.Queued, Warning: string(id)}, r.enter(ctx, c)
}

func (r *recorder) Why(ctx context.Context, c Caller, id job.ID) (WhyReply, error) {
	return WhyReply{ID: id, Sentence: "Because."}, r.enter(ctx, c)
}

func (r *recorder) Drain(ctx context.Context, c Caller, a DrainArgs) (DrainReply, error) {
	return DrainReply{Host: a.Host, Device: a.Device, Warning: fmt.Sprintf("%s %s %s", a.Mode, a.Deadline, a.Reason)}, r.enter(ctx, c)
}

func (r *recorder) Resume(ctx context.Context, c Caller, a ResumeArgs) (DrainReply, error) {
	return DrainReply{Host: a.Host, Device: a.Device}, r.enter(ctx, c)
}

func (r *recorder) DeadList(ctx context.Context, c Caller, a DeadArgs) (DeadListReply, error) {
	return DeadListReply{Dead: []DeadRow{{Bytes: a.Limit}}}, r.enter(ctx, c)
}

func (r *recorder) DeadShow(ctx context.Context, c Caller, id string) (DeadShowReply, error) {
	return DeadShowReply{DeadRow: DeadRow{ID: id}, Body: []byte{0, 0xff}}, r.enter(ctx, c)
}

func (r *recorder) DeadRequeue(ctx context.Context, c Caller, id string) (DeadRequeueReply, error) {
	return DeadRequeueReply{ID: job.ID(id), Created: true}, r.enter(ctx, c)
}

func (r *recorder) DeadPurge(ctx context.Context, c Caller, a DeadPurgeArgs) (DeadPurgeReply, error) {
	return DeadPurgeReply{Purged: len(a.IDs)}, r.enter(ctx, c)
}

func (r *recorder) Events(ctx context.Context, c Caller, a EventsArgs) (EventsReply, error) {
	return EventsReply{Events: []EventRow{{Target: a.Target, At: a.Since, Why: fmt.Sprint(a.Limit)}}}, r.enter(ctx, c)
}

func (r *recorder) Doctor(ctx context.Context, c Caller, a DoctorArgs) (DoctorReply, error) {
	return DoctorReply{Findings: []Finding{{Check: fmt.Sprint(a.Local)}}}, r.enter(ctx, c)
}

func (r *recorder) SimulateDevice(ctx context.Context, c Caller, a SimulateDeviceArgs) (SimulateDeviceReply, error) {
	return SimulateDeviceReply{Host: a.Host, Devices: []string{string(a.ID), a.Fault.String()}}, r.enter(ctx, c)
}

func (r *recorder) Simulate(ctx context.Context, c Caller, a SimulateArgs) (SimulateReply, error) {
	return SimulateReply{Host: a.Host}, r.enter(ctx, c)
}

func TestEveryVerbOfOperation(t *testing.T) {
	s := serve(t, newRecorder(), nil)
	c, ctx := clientOf(s.opts.Socket), t.Context()
	id := job.NewID()
	hash := strings.Repeat("0a", 32)
	at := job.At(time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC))
	for _, v := range []struct {
		name Verb
		ask  func() (any, error)
		want any
	}{
		{VerbHold, func() (any, error) { return c.Hold(ctx, HoldArgs{ID: id, Reason: "later"}) }, HoldReply{State: job.Waiting, Changed: true}},
		{VerbRelease, func() (any, error) { return c.Release(ctx, id) }, HoldReply{State: job.Queued, Warning: string(id)}},
		{VerbWhy, func() (any, error) { return c.Why(ctx, id) }, WhyReply{ID: id, Sentence: "Because."}},
		{
			VerbDrain, func() (any, error) { return c.Drain(ctx, DrainArgs{Host: "a", Device: "0", Reason: "new driver"}) },
			DrainReply{Host: "a", Device: "0", Warning: "finish 0s new driver"},
		},
		{
			VerbDrain, func() (any, error) {
				return c.Drain(ctx, DrainArgs{Host: "a", Reason: "r", Mode: DrainKill, Deadline: job.Duration(time.Hour)})
			},
			DrainReply{Host: "a", Warning: "kill 1h0m0s r"},
		},
		{VerbResume, func() (any, error) { return c.Resume(ctx, ResumeArgs{Host: "a", Device: "0"}) }, DrainReply{Host: "a", Device: "0"}},
		{VerbDeadList, func() (any, error) { return c.DeadList(ctx, DeadArgs{}) }, DeadListReply{Dead: []DeadRow{{Bytes: RowsDefault}}}},
		{VerbDeadShow, func() (any, error) { return c.DeadShow(ctx, hash[:8]) }, DeadShowReply{DeadRow: DeadRow{ID: hash[:8]}, Body: []byte{0, 0xff}}},
		{VerbDeadRequeue, func() (any, error) { return c.DeadRequeue(ctx, string(id)) }, DeadRequeueReply{ID: id, Created: true}},
		{VerbDeadPurge, func() (any, error) { return c.DeadPurge(ctx, DeadPurgeArgs{IDs: []string{hash}}) }, DeadPurgeReply{Purged: 1}},
		{VerbDeadPurge, func() (any, error) { return c.DeadPurge(ctx, DeadPurgeArgs{Before: at}) }, DeadPurgeReply{}},
		{
			VerbEvents, func() (any, error) { return c.Events(ctx, EventsArgs{Since: at, Target: "a/GPU-1", Limit: 7}) },
			EventsReply{Events: []EventRow{{Target: "a/GPU-1", At: at, Why: "7"}}},
		},
		{VerbDoctor, func() (any, error) { return c.Doctor(ctx, DoctorArgs{Local: true}) }, DoctorReply{Findings: []Finding{{Check: "true"}}}},
	} {
		t.Run(string(v.name), func(t *testing.T) {
			got, err := v.ask()
			if err != nil || !reflect.DeepEqual(got, v.want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, v.want)
			}
		})
	}
}

func TestRequestOfOperationThatMakesNoSense(t *testing.T) {
	long := strings.Repeat("x", reasonBytesMax+1)
	id := job.NewID()
	for name, c := range map[string]struct{ verb, args, want string }{
		"HoldOfNothing":       {"hold", `{}`, "is no job ID"},
		"HoldWithALongReason": {"hold", fmt.Sprintf(`{"id":%q,"reason":%q}`, id, long), "at most 1000 bytes"},
		"ReleaseOfNothing":    {"release", `{"id":"x"}`, "is no job ID"},
		"WhyOfNothing":        {"why", `{}`, "is no job ID"},
		"DrainOfNoHost":       {"drain", `{"reason":"r"}`, "no host is named"},
		"DrainWithoutReason":  {"drain", `{"host":"a","reason":" "}`, "say why"},
		"DrainLongReason":     {"drain", fmt.Sprintf(`{"host":"a","reason":%q}`, long), "at most 1000 bytes"},
		"DrainInNoMode":       {"drain", `{"host":"a","reason":"r","mode":"now"}`, "want finish, requeue or kill"},
		"DrainIntoThePast":    {"drain", `{"host":"a","reason":"r","deadline":"-1s"}`, "cannot be negative"},
		"ResumeOfNoHost":      {"resume", `{}`, "no host is named"},
		"DeadListTooLong":     {"dead_list", `{"limit":10001}`, "give 1 to 10000"},
		"DeadShowOfNothing":   {"dead_show", `{}`, "is no ID of what was set aside"},
		"DeadShowOfLittle":    {"dead_show", `{"id":"0a0a0a0"}`, "at least 8 digits"},
		"DeadShowOfNoHash":    {"dead_show", `{"id":"0a0a0a0x"}`, "is no ID"},
		"DeadRequeueOfNone":   {"dead_requeue", `{"id":"0A0A0A0A"}`, "is no ID"},
		"PurgeOfNothing":      {"dead_purge", `{}`, "name messages, or a time"},
		"PurgeOfBoth":         {"dead_purge", `{"ids":["0a0a0a0a"],"before":"2026-11-22T14:00:00Z"}`, "one of the two"},
		"PurgeOfNoHash":       {"dead_purge", `{"ids":["0a0a0a0a","all"]}`, "is no ID"},
		"TooManyEvents":       {"events", `{"limit":10001}`, "give 1 to 10000"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newRecorder()
			s := NewServer(h, Options{})
			defer s.Stop()
			var res Response
			body := fmt.Sprintf(`{"schema":1,"verb":%q,"args":%s}`, c.verb, c.args)
			if err := json.Unmarshal(s.ServeDelivery(t.Context(), "ada", []byte(body)), &res); err != nil {
				t.Fatal(err)
			}
			if res.Error == nil || res.Error.Code != CodeBadRequest || !strings.Contains(res.Error.Error(), c.want) {
				t.Errorf("got %+v (%v), want a bad request with %q", res, res.Error, c.want)
			}
			if len(h.callers) > 0 {
				t.Error("the daemon was asked all the same")
			}
		})
	}
}
