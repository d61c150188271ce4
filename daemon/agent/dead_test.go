package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
)

// setAsideAs records a dead letter of a user's, one second after the one before.
func (b operateBench) setAsideAs(t *testing.T, user, queue, body string) *ledger.DeadLetter {
	t.Helper()
	b.clock.pass(time.Second)
	d := ledger.DeadLetter{At: b.now(), Reason: "unparsable", Queue: queue, User: user, MessageID: "m", Body: []byte(body), Host: "a"}
	d.Seal()
	if err := b.ledger.RecordDeadLetter(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	return &d
}

// deadJobAs is a job of a user's that ended dead.
func (b operateBench) deadJobAs(t *testing.T, user string) *job.Job {
	t.Helper()
	b.clock.pass(time.Second)
	j := b.submitAs(t, user)
	j, err := b.ledger.End(t.Context(), j.ID, job.ClassExpired, "it expired", "end-1", b.now())
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func (b operateBench) letters(t *testing.T) int {
	t.Helper()
	list, err := b.ledger.DeadLetterRows(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestDeadListMergesMessagesAndJobs(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	first := b.setAsideAs(t, "ada", broker.QueueSubmit, "run this")
	second := b.deadJobAs(t, "bob")
	third := b.setAsideAs(t, "bob", broker.QueueSubmit, "and this")
	fourth := b.deadJobAs(t, "ada")
	b.submitAs(t, "ada") // queued: not dead
	for name, c := range map[string]struct {
		caller control.Caller
		limit  int
		want   []string
		more   bool
	}{
		"Operator":      {operator, 10, []string{string(fourth.ID), third.ID, string(second.ID), first.ID}, false},
		"OperatorExact": {operator, 4, []string{string(fourth.ID), third.ID, string(second.ID), first.ID}, false},
		"OperatorCut":   {operator, 3, []string{string(fourth.ID), third.ID, string(second.ID)}, true},
		"Owner":         {ada, 10, []string{string(fourth.ID), first.ID}, false},
		"Stranger":      {control.Caller{User: "eve"}, 10, nil, false},
	} {
		reply, err := b.DeadList(ctx, c.caller, control.DeadArgs{Limit: c.limit})
		var ids []string
		for _, row := range reply.Dead {
			ids = append(ids, row.ID)
		}
		if err != nil || !slices.Equal(ids, c.want) || reply.More != c.more {
			t.Errorf("%s: %v, more %t, %v; want %v, %t", name, ids, reply.More, err, c.want, c.more)
		}
	}
}

func TestDeadShowIsWholeAndForItsOwner(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	d, j := b.setAsideAs(t, "ada", broker.QueueSubmit, "run this"), b.deadJobAs(t, "ada")
	got, err := b.DeadShow(ctx, ada, d.ID[:8])
	if err != nil || got.ID != d.ID || string(got.Body) != "run this" || got.Cut || got.Bytes != 8 || got.Host != "a" || got.MessageID != "m" {
		t.Errorf("letter: %+v, %v", got, err)
	}
	got, err = b.DeadShow(ctx, ada, string(j.ID))
	if err != nil || got.Kind != control.DeadJob || got.Job == nil || got.Job.Result.Class != job.ClassExpired {
		t.Errorf("job: %+v, %v", got, err)
	}
	for _, id := range []string{d.ID, string(j.ID)} {
		_, err := b.DeadShow(ctx, bob, id)
		wantRefusal(t, err, control.ErrForbidden)
	}
	_, err = b.DeadShow(ctx, ada, strings.Repeat("0", 64))
	wantRefusal(t, err, control.ErrNotFound, "gpuqctl dead list")
	_, err = b.DeadShow(ctx, ada, string(b.submitAs(t, "ada").ID))
	wantRefusal(t, err, control.ErrNotFound, "queued, not dead", "gpuqctl show")
}

func TestRequeueOfAJobIsOneNewJob(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	old := b.deadJobAs(t, "ada")
	got, err := b.DeadRequeue(ctx, ada, string(old.ID))
	if err != nil || !got.Created || got.State != job.Queued || got.ID == old.ID || got.Warning != "" {
		t.Fatalf("requeue: %+v, %v", got, err)
	}
	if j := b.stored(t, got.ID); j.RequeueOf != old.ID || j.Submitter != "ada" || j.SpecHash != old.SpecHash {
		t.Errorf("the new job is %+v", j)
	}
	again, err := b.DeadRequeue(ctx, operator, string(old.ID))
	if err != nil || again.Created || again.ID != got.ID {
		t.Errorf("requeue once more: %+v, %v", again, err)
	}
	for _, m := range b.box.messages() {
		if m.MessageID != string(got.ID) {
			t.Errorf("published %+v", m)
		}
	}
	if len(b.box.messages()) == 0 {
		t.Error("nothing was published")
	}
	if now := b.stored(t, old.ID); now.State != job.Dead {
		t.Errorf("the old job is %s", now.State)
	}
	_, err = b.DeadRequeue(ctx, ada, string(got.ID))
	wantRefusal(t, err, control.ErrConflict, "is not over", "gpuqctl why")
	_, err = b.DeadRequeue(ctx, bob, string(old.ID))
	wantRefusal(t, err, control.ErrForbidden)
}

func TestRequeueOfASucceededJobIsRefused(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	r := b.claimAs(t, "ada")
	_, err := b.ledger.Commit(ctx, r.hold, ledger.Commit{
		ID: "commit-1", Verdict: job.Verdict{State: job.Succeeded}, Result: &job.Result{}, Now: b.now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.DeadRequeue(ctx, ada, string(r.hold.JobID))
	wantRefusal(t, err, control.ErrConflict, "has succeeded", "submit it again")
}

func TestRequeuedSubmissionIsItsOwnUsers(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	id := job.NewID()
	d := b.setAsideAs(t, "ada", broker.QueueSubmit, `{"schema":1,"id":"`+string(id)+`","spec":{"command":["true"]}}`)
	_, err := b.DeadRequeue(ctx, bob, d.ID)
	wantRefusal(t, err, control.ErrForbidden)
	got, err := b.DeadRequeue(ctx, operator, d.ID)
	if err != nil || got.ID != id || !got.Created {
		t.Errorf("requeue: %+v, %v", got, err)
	}
	if j := b.stored(t, id); j.Submitter != "ada" || j.State != job.Queued {
		t.Errorf("the job is %s, of %s", j.State, j.Submitter)
	}
	if n := b.letters(t); n != 0 {
		t.Errorf("%d letters are left", n)
	}
}

func TestLetterThatCannotBeRequeuedStaysAndSaysWhatToDo(t *testing.T) {
	over := func(t *testing.T, b operateBench) string { return string(b.deadJobAs(t, "ada").ID) }
	unknown := func(*testing.T, operateBench) string { return string(job.NewID()) }
	for name, c := range map[string]struct {
		queue string
		body  func(t *testing.T, b operateBench) string
		want  []string
	}{
		"RefusedAgain": {broker.QueueSubmit, func(*testing.T, operateBench) string { return "run this" }, []string{"refused again", "unparsable", "submit the job again"}},
		"Cut": {broker.QueueSubmit, func(*testing.T, operateBench) string {
			return strings.Repeat("x", ledger.DeadBodyBytesMax+1)
		}, []string{"were kept", "submit the job again"}},
		"TicketOfAnUnknownJob": {"gpuq.job.default.normal.g1.any", func(t *testing.T, b operateBench) string {
			return string(job.Ticket{ID: job.ID(unknown(t, b))}.Encode())
		}, []string{"does not know", "submit the job again"}},
		"TicketOfAJobThatIsOver": {"gpuq.job.default.normal.g1.any", func(t *testing.T, b operateBench) string {
			return string(job.Ticket{ID: job.ID(over(t, b))}.Encode())
		}, []string{"which is dead", "gpuqctl dead requeue"}},
		"NoTicket": {"gpuq.job.default.normal.g1.any", func(*testing.T, operateBench) string { return "hello" }, []string{"names no job", "gpuqctl dead purge"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newOperateBench(t)
			d := b.setAsideAs(t, "ada", c.queue, c.body(t, b))
			_, err := b.DeadRequeue(t.Context(), ada, d.ID)
			wantRefusal(t, err, control.ErrConflict, c.want...)
			if n := b.letters(t); n != 1 {
				t.Errorf("%d letters are left, want it kept", n)
			}
			if len(b.events(t)) > 0 || len(b.box.messages()) > 0 {
				t.Errorf("events %q, messages %v", b.events(t), b.box.messages())
			}
		})
	}
}

func TestRequeuedTicketIsPublishedWhereItsJobNeedsIt(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	ticket := func(id job.ID) string {
		return b.setAsideAs(t, "gpuqd", "gpuq.job.default.normal.g1.any", string(job.Ticket{ID: id}.Encode())).ID
	}
	queued, held := b.submitAs(t, "ada").ID, b.claimAs(t, "ada").hold.JobID
	got, err := b.DeadRequeue(ctx, operator, ticket(queued))
	if err != nil || got.ID != queued || got.Created || got.Warning != "" {
		t.Errorf("of a queued job: %+v, %v", got, err)
	}
	if sent := b.box.messages(); len(sent) != 1 || !sent[0].Again || sent[0].MessageID != string(queued) {
		t.Errorf("published %+v", sent)
	}
	got, err = b.DeadRequeue(ctx, operator, ticket(held))
	if err != nil || !strings.Contains(got.Warning, "needs no message") || len(b.box.messages()) != 1 {
		t.Errorf("of a claimed job: %+v, %v; published %v", got, err, b.box.messages())
	}
	if n := b.letters(t); n != 0 {
		t.Errorf("%d letters are left", n)
	}
}

func TestPurgeForgetsMessagesAndNeverJobs(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	own, others := b.setAsideAs(t, "ada", broker.QueueSubmit, "1"), b.setAsideAs(t, "bob", broker.QueueSubmit, "2")
	j := b.deadJobAs(t, "ada")
	_, err := b.DeadPurge(ctx, ada, control.DeadPurgeArgs{IDs: []string{own.ID, string(j.ID)}})
	wantRefusal(t, err, control.ErrBadRequest, "never forgotten")
	_, err = b.DeadPurge(ctx, ada, control.DeadPurgeArgs{IDs: []string{own.ID, others.ID}})
	wantRefusal(t, err, control.ErrForbidden)
	if n := b.letters(t); n != 2 {
		t.Fatalf("%d letters are left after refusals, want both", n)
	}
	got, err := b.DeadPurge(ctx, ada, control.DeadPurgeArgs{IDs: []string{own.ID[:12]}})
	if err != nil || got.Purged != 1 || b.letters(t) != 1 {
		t.Errorf("purge: %+v, %v; %d letters are left", got, err, b.letters(t))
	}
}

func TestPurgeByTimeTakesOnlyTheCallersOwn(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	b.setAsideAs(t, "ada", broker.QueueSubmit, "1")
	b.setAsideAs(t, "bob", broker.QueueSubmit, "2")
	b.clock.pass(time.Second)
	before := b.now()
	b.setAsideAs(t, "ada", broker.QueueSubmit, "3")
	got, err := b.DeadPurge(ctx, ada, control.DeadPurgeArgs{Before: before})
	if err != nil || got.Purged != 1 || b.letters(t) != 2 {
		t.Errorf("user: %+v, %v; %d letters are left", got, err, b.letters(t))
	}
	got, err = b.DeadPurge(ctx, operator, control.DeadPurgeArgs{Before: before})
	if err != nil || got.Purged != 1 || b.letters(t) != 1 {
		t.Errorf("operator: %+v, %v; %d letters are left", got, err, b.letters(t))
	}
}
