package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/job"
)

func TestEveryVerb(t *testing.T) {
	h := newRecorder()
	s := serve(t, h, nil)
	c, ctx := clientOf(s.opts.Socket), t.Context()
	sub := submissionOf("true")
	id := sub.ID
	for _, v := range []struct {
		name Verb
		ask  func() (any, error)
		want any
	}{
		{VerbSubmit, func() (any, error) { return c.Submit(ctx, sub) }, SubmitReply{ID: id, Created: true, State: job.Queued}},
		{VerbSubmit, func() (any, error) { return c.Submit(ctx, sub) }, SubmitReply{ID: id, State: job.Queued}},
		{VerbList, func() (any, error) {
			return c.List(ctx, ListArgs{States: []job.State{job.Queued}, User: "ada"})
		}, ListReply{Jobs: []JobRow{{Name: "[queued] ada 100", Submitter: userName(uint32(os.Getuid())), State: job.Queued}}}},
		{VerbShow, func() (any, error) {
			j, err := c.Show(ctx, id)
			return j.Spec.Command, err
		}, []string{"true"}},
		{VerbStates, func() (any, error) {
			r, err := c.States(ctx, []job.ID{id, "0192f0c1-6d2e-7000-8000-00c0ffee0001"}, 0)
			return fmt.Sprintf("%d %s %s", len(r.Jobs), r.Jobs[0].State, r.Missing), err
		}, "1 queued [0192f0c1-6d2e-7000-8000-00c0ffee0001]"},
		{
			VerbLogs, func() (any, error) { return c.Logs(ctx, LogsArgs{ID: id, Attempt: 2, Offset: 7}) },
			LogsReply{Attempt: 2, Offset: 7, Data: []byte{0, 0xff, '\n'}, NextOffset: 7 + LogBytesMax},
		},
		{VerbKill, func() (any, error) { return c.Kill(ctx, KillArgs{ID: id, Reason: "why"}) }, KillReply{State: job.Running, Flagged: true}},
		{VerbHosts, func() (any, error) { return c.Hosts(ctx) }, HostsReply{Hosts: []HostRow{{Name: "gpu1", Live: true}}}},
		{VerbDevices, func() (any, error) { return c.Devices(ctx, DevicesArgs{Host: "x"}) }, DevicesReply{Devices: []DeviceRow{{Host: "x", UUID: "GPU-1"}}}},
		{VerbVersion, func() (any, error) { return c.Version(ctx) }, VersionReply{Host: "gpu1", Ledger: "sqlite"}},
		{VerbStatus, func() (any, error) { return c.Status(ctx) }, StatusReply{Host: "gpu1", Ready: true}},
	} {
		t.Run(string(v.name), func(t *testing.T) {
			got, err := v.ask()
			if err != nil || !reflect.DeepEqual(got, v.want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, v.want)
			}
		})
	}
}

func TestRequestThatMakesNoSense(t *testing.T) {
	id := job.NewID()
	for name, c := range map[string]struct {
		request, want string
		code          Code
	}{
		"NoSchema":         {`{"verb":"hosts"}`, "schema version 0", CodeBadRequest},
		"AnotherSchema":    {`{"schema":2,"verb":"hosts"}`, "schema version 2", CodeBadRequest},
		"UnknownVerb":      {`{"schema":1,"verb":"explode"}`, `"explode": use a gpuqctl of the daemon's version; it knows dead_list, dead_purge`, CodeBadRequest},
		"UnknownArgument":  {`{"schema":1,"verb":"list","args":{"stats":["queued"]}}`, `unknown field "stats"`, CodeBadRequest},
		"ArgumentsInArray": {`{"schema":1,"verb":"list","args":[{}]}`, "arguments not understood", CodeBadRequest},
		"NoID":             {`{"schema":1,"verb":"show"}`, "is no job ID", CodeBadRequest},
		"UpperCaseID":      {fmt.Sprintf(`{"schema":1,"verb":"kill","args":{"id":%q}}`, strings.ToUpper(string(id))), "lower case", CodeBadRequest},
		"NoIDs":            {`{"schema":1,"verb":"states","args":{"ids":[]}}`, "0 job IDs", CodeBadRequest},
		"LimitTooLarge":    {`{"schema":1,"verb":"list","args":{"limit":10001}}`, "give 1 to 10000", CodeBadRequest},
		"NegativeLimit":    {`{"schema":1,"verb":"list","args":{"limit":-1}}`, "give 1 to 10000", CodeBadRequest},
		"NoState":          {`{"schema":1,"verb":"list","args":{"states":["done"]}}`, `"done" is no state: want any of waiting, queued`, CodeBadRequest},
		"NegativeOffset":   {fmt.Sprintf(`{"schema":1,"verb":"logs","args":{"id":%q,"offset":-1}}`, id), "cannot be negative", CodeBadRequest},
		"SubmissionIsNone": {`{"schema":1,"verb":"submit","args":{"schema":1}}`, "id: give a fresh UUID", CodeBadRequest},
		"NotJSON":          {`hello`, "not understood", CodeBadRequest},
		"Null":             {`null`, "schema version 0", CodeBadRequest},
		"Array":            {`[]`, "not understood", CodeBadRequest},
		"Impersonation":    {`{"schema":1,"verb":"hosts","caller":{"user":"root","operator":true}}`, "only a host may", CodeForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewServer(newRecorder(), Options{})
			defer s.Stop()
			var res Response
			if err := json.Unmarshal(s.ServeDelivery(t.Context(), "ada", []byte(c.request)), &res); err != nil {
				t.Fatal(err)
			}
			if res.Error == nil || res.Error.Code != c.code || !strings.Contains(res.Error.Error(), c.want) || res.Schema != Schema {
				t.Errorf("got %+v (%v), want %s with %q", res, res.Error, c.code, c.want)
			}
		})
	}
}

func TestErrorKeepsItsKindOnTheWay(t *testing.T) {
	h := newRecorder()
	s := serve(t, h, nil)
	other := errors.New("something else")
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"BadRequest", ErrBadRequest, ErrBadRequest},
		{"NotFound", ErrNotFound, ErrNotFound},
		{"Forbidden", ErrForbidden, ErrForbidden},
		{"Conflict", ErrConflict, ErrConflict},
		{"Unavailable", ErrUnavailable, ErrUnavailable},
		{"UnknownOutcome", ErrUnknownOutcome, ErrUnknownOutcome},
		{"UnknownOutcomeFromUnavailable", fmt.Errorf("%w: %w", ErrUnavailable, ErrUnknownOutcome), ErrUnknownOutcome},
		{"NoHost", ErrNoHost, ErrNoHost},
		{"Internal", ErrInternal, ErrInternal},
		{"Another", other, ErrInternal},
		{"UnacceptableMessage", job.ErrMessage, ErrBadRequest},
		{"Deadline", context.DeadlineExceeded, ErrUnavailable},
		{"WithAHint", Errorf(CodeConflict, "do that", "it is so"), ErrConflict},
		{"OfANewerDaemon", Errorf("too_new", "", "what?"), ErrInternal},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.mu.Lock()
			h.err = fmt.Errorf("carry it out: %w", c.err)
			h.mu.Unlock()
			_, err := clientOf(s.opts.Socket).Hosts(t.Context())
			e := wantErr(t, err, c.want)
			for _, k := range codes {
				if got := errors.Is(err, k.sentinel); got != (k.sentinel == c.want) {
					t.Errorf("errors.Is(%v, %q) is %v", e, k.sentinel, got)
				}
			}
		})
	}
	if len(codes) != 8 || len(Codes()) != len(codes) {
		t.Errorf("%d codes: this test knows 8", len(codes))
	}
}

func TestPanicEndsOneRequestOnly(t *testing.T) {
	h := newRecorder()
	s := serve(t, h, nil)
	h.gate = func(context.Context) error { panic("planted") }
	_, err := clientOf(s.opts.Socket).Hosts(t.Context())
	if e := wantErr(t, err, ErrInternal); strings.Contains(e.Error(), "planted") {
		t.Errorf("the user is told of the daemon's inside: %v", e)
	}
	h.mu.Lock()
	h.gate = nil
	h.mu.Unlock()
	if _, err := clientOf(s.opts.Socket).Hosts(t.Context()); err != nil {
		t.Errorf("the next request: %v", err)
	}
}

func TestHeldStates(t *testing.T) {
	h := newRecorder()
	s := serve(t, h, nil)
	c := clientOf(s.opts.Socket)
	slow, quick := submissionOf("sleep"), submissionOf("true")
	for _, sub := range []job.Submission{slow, quick} {
		if _, err := c.Submit(t.Context(), sub); err != nil {
			t.Fatal(err)
		}
	}
	ids := []job.ID{slow.ID, quick.ID}
	t.Run("AnswersWhenTheWaitIsOver", func(t *testing.T) {
		r, err := c.States(t.Context(), ids, 120*time.Millisecond)
		if err != nil || len(r.Jobs) != 2 || r.Jobs[0].ID != slow.ID || r.Jobs[1].ID != quick.ID {
			t.Errorf("got %+v, %v: want both, in the order asked", r, err)
		}
	})
	t.Run("AnswersAtOnceForAMissingJob", func(t *testing.T) {
		began := time.Now()
		r, err := c.States(t.Context(), []job.ID{slow.ID, job.NewID()}, StatesWaitMax)
		if err != nil || len(r.Missing) != 1 || time.Since(began) > StatesWaitMax/2 {
			t.Errorf("got %+v, %v after %s", r, err, time.Since(began))
		}
	})
	t.Run("AnswersWhenOneHasEnded", func(t *testing.T) {
		looked := make(chan struct{}, 100)
		h.mu.Lock()
		h.gate = func(context.Context) error { looked <- struct{}{}; return nil }
		h.mu.Unlock()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			<-looked // the request is held
			h.mu.Lock()
			h.jobs[quick.ID].State = job.Succeeded
			h.mu.Unlock()
		}()
		began := time.Now()
		r, err := c.States(t.Context(), ids, StatesWaitMax)
		<-ended
		if err != nil || r.Jobs[1].State != job.Succeeded || time.Since(began) > StatesWaitMax/2 {
			t.Errorf("got %+v, %v after %s", r, err, time.Since(began))
		}
	})
}

func TestRowOfJob(t *testing.T) {
	at := func(sec int) job.Time { return job.At(time.Date(2026, 11, 22, 14, 0, sec, 0, time.UTC)) }
	base := func(change func(*job.Job)) *job.Job {
		spec := job.DefaultSpec()
		spec.Name = "n"
		j := job.New("0192f0c1-6d2e-7000-8000-00c0ffee0001", "ada", spec, at(0))
		change(j)
		return j
	}
	code := func(n int) *int { return &n }
	for name, c := range map[string]struct {
		job  *job.Job
		want JobRow
	}{
		"Fresh": {base(func(*job.Job) {}), JobRow{State: job.Queued}},
		"Running": {base(func(j *job.Job) {
			j.State, j.Attempt = job.Running, 2
			j.Owner = &job.Owner{Host: "new", Running: at(5)}
			j.Result = &job.Result{Host: "old", StartedAt: at(1), ExitCode: 3, Class: job.ClassUser}
		}), JobRow{State: job.Running, Attempt: 2, Host: "new", StartedAt: at(5), Class: job.ClassUser}},
		"Succeeded": {base(func(j *job.Job) {
			j.State = job.Succeeded
			j.Result = &job.Result{Host: "h", StartedAt: at(1)}
			j.History = append(j.History, job.Change{State: job.Succeeded, At: at(9)})
		}), JobRow{State: job.Succeeded, Host: "h", StartedAt: at(1), EndedAt: at(9), ExitCode: code(0)}},
		"LostHostHasNoExitCode": {base(func(j *job.Job) {
			j.State = job.Failed
			j.Result = &job.Result{Host: "h", StartedAt: at(1), Class: job.ClassHostLost}
			j.History = append(j.History, job.Change{State: job.Failed, At: at(9), Class: job.ClassHostLost})
		}), JobRow{State: job.Failed, Host: "h", StartedAt: at(1), EndedAt: at(9), Class: job.ClassHostLost}},
		"KilledWhileItWaitedForARetry": {base(func(j *job.Job) {
			j.State = job.Killed
			j.Result = &job.Result{Host: "h", StartedAt: at(1), ExitCode: 139, Signal: "SIGSEGV", Class: job.ClassUser}
			j.History = append(j.History, job.Change{State: job.Killed, At: at(9), Class: job.ClassKilled})
		}), JobRow{State: job.Killed, Host: "h", StartedAt: at(1), EndedAt: at(9), ExitCode: code(139), Signal: "SIGSEGV", Class: job.ClassKilled}},
	} {
		t.Run(name, func(t *testing.T) {
			w := c.want
			w.ID, w.Name, w.Submitter, w.Queue = c.job.ID, "n", "ada", "gpuq.job.default.normal.g1.any"
			w.Priority, w.GPUs, w.SubmittedAt = job.Normal, 1, at(0)
			if got := RowOf(c.job); !reflect.DeepEqual(got, w) {
				t.Errorf("got  %+v\nwant %+v", got, w)
			}
		})
	}
}

// FuzzRequest: whatever arrives is answered with one well-formed response.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"schema":1,"verb":"list","args":{"states":["queued"],"limit":3}}`))
	f.Add([]byte(`{"schema":1,"verb":"states","args":{"ids":["0192f0c1-6d2e-7000-8000-00c0ffee0001"],"wait":"0s"}}`))
	f.Add([]byte(`{"schema":1,"verb":"submit","args":{"schema":1,"spec":{"command":["a"],"key":"k"}}}`))
	f.Add([]byte("\x00\xff{"))
	f.Fuzz(func(t *testing.T, body []byte) {
		s := NewServer(newRecorder(), Options{})
		defer s.Stop()
		answer := s.ServeDelivery(t.Context(), "ada", body)
		var res Response
		if err := json.Unmarshal(answer, &res); err != nil || (res.Error == nil) == (res.Data == nil) {
			t.Fatalf("%q is answered with %q: %v", body, answer, err)
		}
		if strings.Contains(string(answer), "\n") {
			t.Fatalf("the answer to %q has a line end: %q", body, answer)
		}
	})
}
