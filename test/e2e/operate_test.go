package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/device"
	"gpuqd/daemon/job"

	amqp "github.com/rabbitmq/amqp091-go"
	"gpuqd/test/wait"
)

// at asks one worker's daemon, over its socket.
func (e *env) at(t *testing.T, worker string) *control.Client {
	t.Helper()
	c := control.NewClient(control.SocketWay(e.Socket(worker)))
	t.Cleanup(c.Close)
	return c
}

// drain drains what is named, asking a worker, and resumes it when the test ends.
func (e *env) drain(t *testing.T, worker string, args control.DrainArgs) control.DrainReply {
	t.Helper()
	reply, err := e.at(t, worker).Drain(t.Context(), args)
	if err != nil {
		t.Fatalf("drain %+v: %v", args, err)
	}
	t.Cleanup(func() { e.resume(t, args.Host, reply.Device) })
	return reply
}

func (e *env) resume(t *testing.T, host, device string) control.DrainReply {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), jobTimeout)
	defer cancel()
	reply, err := e.at(t, host).Resume(ctx, control.ResumeArgs{Host: host, Device: device})
	if err != nil {
		t.Fatalf("resume %s %s: %v", host, device, err)
	}
	return reply
}

// hostRow returns a worker's row, as another one shows it.
func (e *env) hostRow(t *testing.T, worker string) control.HostRow {
	t.Helper()
	reply, err := e.at(t, worker).Hosts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range reply.Hosts {
		if h.Name == worker {
			return h
		}
	}
	t.Fatalf("no host %s in %+v", worker, reply.Hosts)
	return control.HostRow{}
}

// why waits until the sentence about a job has all these words.
func (e *env) why(t *testing.T, worker string, id job.ID, words ...string) {
	t.Helper()
	c := e.at(t, worker)
	wait.For(t, jobTimeout, func() error {
		reply, err := c.Why(t.Context(), id)
		if err != nil {
			return err
		}
		for _, w := range words {
			if !strings.Contains(reply.Sentence, w) {
				return fmt.Errorf("why: %q, want %q in it", reply.Sentence, w)
			}
		}
		return nil
	})
}

// expectEvents waits until these were recorded of a target, the newest first.
func (e *env) expectEvents(t *testing.T, target string, want ...string) {
	t.Helper()
	c := e.at(t, e.Workers()[0])
	wait.For(t, jobTimeout, func() error {
		reply, err := c.Events(t.Context(), control.EventsArgs{Target: target, Limit: len(want)})
		if err != nil {
			return err
		}
		var got []string
		for _, x := range reply.Events {
			got = append(got, x.What)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("events of %s: %v, want %v", target, got, want)
		}
		return nil
	})
}

// gate keeps jobs running until it is opened.
type gate struct{ path string }

func newGate(t *testing.T) gate {
	g := gate{filepath.Join(t.TempDir(), "open")}
	t.Cleanup(func() { g.open(t) }) // or what waits at it would stay
	return g
}

// body waits at the gate. Where the whole place is gone the test is over, and nobody
// has asked whether this job was through.
func (g gate) body() string {
	return fmt.Sprintf("while [ -d %s ] && [ ! -e %s ]; do sleep 0.1; done", filepath.Dir(g.path), g.path)
}

func (g gate) open(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(g.path, nil, 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// startAtGate submits a job that runs until the gate is opened.
func (e *env) startAtGate(t *testing.T, w witness, g gate) *job.Job {
	t.Helper()
	id := e.submit(t, append([]string{"--"}, w.script(g.body())...)...)
	w.waitStart(t, id)
	return e.waitFor(t, id, job.Running)
}

// testHold: no host takes work, so that a job can be held before it starts.
func testHold(t *testing.T, e *env) {
	workers := e.Workers()
	for _, host := range workers {
		e.drain(t, workers[0], control.DrainArgs{Host: host, Reason: "nothing shall start"})
	}
	w := newWitness(t)
	held := e.submit(t, append([]string{"--"}, w.script("true")...)...)
	e.why(t, workers[0], held, "waits for 1 free device", workers[0]+" is drained by", "nothing shall start", workers[2]+" is drained by")
	c := e.at(t, workers[1])
	for _, changed := range []bool{true, false} {
		reply, err := c.Hold(t.Context(), control.HoldArgs{ID: held, Reason: "the data is not there"})
		if err != nil || reply.State != job.Waiting || reply.Changed != changed {
			t.Errorf("hold: %+v, %v", reply, err)
		}
	}
	e.why(t, workers[0], held, "holds it since", "the data is not there")
	next := e.submit(t, append([]string{"--"}, w.script("true")...)...)
	for _, host := range workers {
		if reply := e.resume(t, host, ""); !reply.Changed {
			t.Errorf("resume of %s changed nothing", host)
		}
	}
	if j := e.waitEnd(t, next); j.State != job.Succeeded {
		t.Errorf("the job that nobody held is %s: %s", j.State, j.Reason)
	}
	if n := w.starts(t)[held]; n != 0 || e.show(t, held).State != job.Waiting {
		t.Errorf("the held job ran %d times", n)
	}
	if reply, err := c.Release(t.Context(), held); err != nil || reply.State != job.Queued || !reply.Changed || reply.Warning != "" {
		t.Errorf("release: %+v, %v", reply, err)
	}
	j := e.waitEnd(t, held)
	if j.State != job.Succeeded || w.starts(t)[held] != 1 {
		t.Errorf("the released job is %s (%s) after %d runs", j.State, j.Reason, w.starts(t)[held])
	}
	e.why(t, workers[0], held, "It succeeded on "+j.Result.Host)
	e.expectEvents(t, string(held), "release", "hold")
	if _, err := c.Hold(t.Context(), control.HoldArgs{ID: held}); !errors.Is(err, control.ErrConflict) {
		t.Errorf("hold of a job that is over: %v", err)
	}
}

// testDrainHost: finish, then requeue, each with jobs running; kept over a
// restart; then resumed.
func testDrainHost(t *testing.T, e *env) {
	w, g := newWitness(t), newGate(t)
	j := e.startAtGate(t, w, g)
	host := j.Owner.Host
	asked := e.Workers()[0]
	if asked == host {
		asked = e.Workers()[1] // somebody else is told, and passes it on
	}
	reply := e.drain(t, asked, control.DrainArgs{Host: host, Reason: "new driver"})
	if reply.Running != 1 || reply.Warning != "" {
		t.Errorf("drain: %+v", reply)
	}
	if row := e.hostRow(t, host); !strings.HasPrefix(row.Drain, "draining by ") || row.Drained == nil || row.Drained.Mode != control.DrainFinish {
		t.Errorf("row of the drained host: %+v", row)
	}
	e.why(t, asked, j.ID, "runs on "+host, "is drained by", "it may go on to its end")
	if _, err := e.at(t, asked).Hold(t.Context(), control.HoldArgs{ID: j.ID}); !errors.Is(err, control.ErrConflict) || !strings.Contains(err.Error(), "drain") {
		t.Errorf("hold of a running job: %v", err)
	}
	// It runs on, until somebody changes his mind: as many more jobs as there are
	// devices elsewhere all go there.
	for range 4 {
		if other := e.startAtGate(t, w, g); other.Owner.Host == host {
			t.Errorf("job %s started on the drained host", other.ID)
		}
	}
	if n := e.show(t, j.ID).Attempt; n != 1 {
		t.Errorf("a drain that lets it finish has interrupted it: attempt %d", n)
	}
	e.takeDown(t, host, e.KillAndKeepDown)
	e.bringUp(t, host)
	e.drain(t, asked, control.DrainArgs{Host: host, Reason: "new driver, now", Mode: control.DrainFinish, Deadline: job.Duration(time.Second)})
	again := e.waitFor(t, j.ID, job.Queued)
	if last := again.History[len(again.History)-1]; last.Class != job.ClassDrained || again.Failures != 0 || again.Requeues != 0 {
		t.Errorf("its last change is %+v, failures %d, requeues %d; want it drained at no cost", last, again.Failures, again.Requeues)
	}
	e.why(t, asked, j.ID, "queued again (drained: host "+host, "waits for 1 free device", host+" is drained by")
	// Still drained after one more restart, and idle: the job waits for the others.
	e.takeDown(t, host, e.KillAndKeepDown)
	e.bringUp(t, host)
	local := e.at(t, host)
	wait.For(t, jobTimeout, func() error {
		status, err := local.Status(t.Context())
		if err != nil || !status.Ready || !strings.Contains(status.Line, "; drained by ") || len(status.Missing) > 0 {
			return fmt.Errorf("status of the drained host: %+v (%v)", status, err)
		}
		return nil
	})
	g.open(t)
	if end := e.waitEnd(t, j.ID); end.State != job.Succeeded || end.Attempt != 2 || end.Result.Host == host {
		t.Errorf("job is %s (%s) after attempt %d on %s", end.State, end.Reason, end.Attempt, end.Result.Host)
	}
	if reply := e.resume(t, host, ""); !reply.Changed {
		t.Errorf("resume: %+v", reply)
	}
	if reply := e.resume(t, host, ""); reply.Changed {
		t.Errorf("resume once more: %+v", reply)
	}
	e.expectEvents(t, host, "resume", "drain", "drain")
	expectNoProcessOfJob(t, j.ID)
}

// testDrainDevice fills every device, and drains one.
func testDrainDevice(t *testing.T, e *env) {
	w, g := newWitness(t), newGate(t)
	var jobs []*job.Job
	for range 2 * len(e.Workers()) {
		jobs = append(jobs, e.startAtGate(t, w, g))
	}
	j := jobs[0]
	host, uuid := j.Owner.Host, j.Owner.Devices[0]
	index := 0
	if uuid == device.SimulatedUUID(host, 1) {
		index = 1
	}
	reply := e.drain(t, e.Workers()[0], control.DrainArgs{
		Host: host, Device: fmt.Sprint(index), Reason: "row remap", Mode: control.DrainRequeue,
	})
	if reply.Device != uuid || reply.Running != 1 {
		t.Errorf("drain: %+v, want device %s with 1 attempt", reply, uuid)
	}
	e.waitFor(t, j.ID, job.Queued)
	e.why(t, e.Workers()[0], j.ID, "1 cordoned: device "+fmt.Sprint(index), "row remap")
	devices, err := e.at(t, host).Devices(t.Context(), control.DevicesArgs{Host: host})
	if err != nil || devices.Devices[index].State != "cordoned" || devices.Devices[index].Drained == nil || devices.Devices[1-index].Drained != nil {
		t.Errorf("devices: %+v, %v", devices, err)
	}
	g.open(t)
	for _, one := range jobs {
		end := e.waitEnd(t, one.ID)
		want := 1
		if one == j {
			want = 2
		}
		if end.State != job.Succeeded || end.Attempt != want {
			t.Errorf("job %s is %s (%s) after attempt %d, want %d", end.ID, end.State, end.Reason, end.Attempt, want)
		}
		if one == j && end.Result.Devices[0] == uuid {
			t.Errorf("it ran on the drained device again")
		}
	}
	if reply := e.resume(t, host, uuid[:len(uuid)-4]); !reply.Changed || reply.Device != uuid {
		t.Errorf("resume: %+v", reply)
	}
	e.expectEvents(t, host+"/"+uuid, "resume", "drain")
}

// takeBrokersDown kills every node of the broker.
func (e *env) takeBrokersDown(t *testing.T) {
	t.Helper()
	t.Cleanup(func() { e.bringBrokersUp(t) })
	for _, node := range e.RabbitNodes() {
		if err := e.KillAndKeepDown(t.Context(), node); err != nil {
			t.Fatal(err)
		}
	}
}

// bringBrokersUp starts the nodes together: after all were down, each waits for
// the others.
func (e *env) bringBrokersUp(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startTimeout)
	defer cancel()
	var group sync.WaitGroup
	for _, node := range e.RabbitNodes() {
		group.Go(func() {
			if err := e.StartUnit(ctx, node); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// testDrainWithoutBrokers drains two hosts and kills a job over their sockets
// alone.
func testDrainWithoutBrokers(t *testing.T, e *env) {
	w, g := newWitness(t), newGate(t)
	drained := e.startAtGate(t, w, g)
	var killed, plain *job.Job // on two other hosts than the first
	for killed == nil || plain == nil {
		next := e.startAtGate(t, w, g)
		switch host := next.Owner.Host; {
		case host == drained.Owner.Host:
		case killed == nil:
			killed = next
		case host != killed.Owner.Host:
			plain = next
		}
	}
	e.takeBrokersDown(t)
	e.drain(t, drained.Owner.Host, control.DrainArgs{Host: drained.Owner.Host, Reason: "smoke", Mode: control.DrainRequeue})
	e.drain(t, killed.Owner.Host, control.DrainArgs{Host: killed.Owner.Host, Reason: "fire", Mode: control.DrainKill})
	local := e.at(t, plain.Owner.Host)
	if _, err := local.Kill(t.Context(), control.KillArgs{ID: plain.ID}); err != nil {
		t.Errorf("kill over the socket: %v", err)
	}
	for _, c := range []struct {
		id    job.ID
		host  string
		state job.State
		words string
	}{
		{drained.ID, drained.Owner.Host, job.Queued, "drained: host " + drained.Owner.Host},
		{killed.ID, killed.Owner.Host, job.Killed, "with the drain of host " + killed.Owner.Host + ": fire"},
		{plain.ID, plain.Owner.Host, job.Killed, "killed by"},
	} {
		socket := e.at(t, c.host)
		wait.For(t, jobTimeout, func() error {
			j, err := socket.Show(t.Context(), c.id)
			if err != nil {
				return err
			}
			if j.State != c.state || !strings.Contains(j.Reason, c.words) {
				return fmt.Errorf("job %s is %s (%s), want %s (%s)", c.id, j.State, j.Reason, c.state, c.words)
			}
			return nil
		})
		expectNoProcessOfJob(t, c.id)
	}
	e.why(t, drained.Owner.Host, drained.ID, "does not reach the broker")
	e.bringBrokersUp(t)
	g.open(t)
	if end := e.waitEnd(t, drained.ID); end.State != job.Succeeded || end.Attempt != 2 || end.Result.Host != plain.Owner.Host {
		t.Errorf("job is %s (%s) after attempt %d on %s, want it on the one host that takes work, %s",
			end.State, end.Reason, end.Attempt, end.Result.Host, plain.Owner.Host)
	}
	e.expectEvents(t, string(killed.ID), "kill")
}

// testDead: messages and jobs that were set aside are shown, begun anew, or
// forgotten.
func testDead(t *testing.T, e *env) {
	c := e.at(t, e.Workers()[0])
	find := func(what string, is func(control.DeadRow) bool) (row control.DeadRow) {
		t.Helper()
		wait.For(t, jobTimeout, func() error {
			reply, err := c.DeadList(t.Context(), control.DeadArgs{})
			if err != nil {
				return err
			}
			for _, row = range reply.Dead {
				if is(row) {
					return nil
				}
			}
			return errors.New("not set aside yet: " + what)
		})
		return row
	}
	// A message without a job: it gets one, and is published again.
	urls, err := e.HostURLs()
	ch := channel(t, urls, err)
	id := job.NewID()
	first := e.submit(t, "--pool", "nowhere", "--expires", "1s", "--", "true") // the queue is there now
	err = ch.PublishWithContext(t.Context(), "", "gpuq.job.default.normal.g1.any", true, false, amqp.Publishing{
		Body: job.Ticket{ID: id, EnqueuedAt: job.At(time.Now())}.Encode(), DeliveryMode: amqp.Persistent,
	})
	if err != nil {
		t.Fatal(err)
	}
	letter := find("the message of no job", func(r control.DeadRow) bool { return strings.Contains(r.Reason, string(id)) })
	if _, err := c.DeadRequeue(t.Context(), letter.ID); !errors.Is(err, control.ErrConflict) {
		t.Errorf("requeue of a message without a job: %v", err)
	}
	s := job.Submission{ID: id, Spec: job.DefaultSpec()}
	s.Spec.Command, s.Spec.Pool = []string{"true"}, "nowhere"
	if _, err := c.Submit(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if reply, err := c.DeadRequeue(t.Context(), letter.ID[:10]); err != nil || reply.ID != id || reply.Warning != "" {
		t.Errorf("requeue of a message: %+v, %v", reply, err)
	}
	if _, err := c.DeadShow(t.Context(), letter.ID); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("the message is still there after its requeue: %v", err)
	}
	e.why(t, e.Workers()[1], id, "none serves pool nowhere")
	if _, err := c.Kill(t.Context(), control.KillArgs{ID: id}); err != nil {
		t.Error(err)
	}

	// A job that is dead begins anew, once.
	dead := find("the expired job", func(r control.DeadRow) bool { return r.ID == string(first) })
	if shown, err := c.DeadShow(t.Context(), dead.ID); err != nil || shown.Job == nil || shown.Kind != control.DeadJob {
		t.Errorf("dead job: %+v, %v", shown, err)
	}
	reply, err := c.DeadRequeue(t.Context(), dead.ID)
	if err != nil || !reply.Created {
		t.Fatalf("requeue of a job: %+v, %v", reply, err)
	}
	if again, err := e.at(t, e.Workers()[2]).DeadRequeue(t.Context(), dead.ID); err != nil || again.Created || again.ID != reply.ID {
		t.Errorf("requeue once more: %+v, %v, want job %s", again, err, reply.ID)
	}
	if j := e.show(t, reply.ID); j.RequeueOf != first || j.Submitter != e.User() {
		t.Errorf("the new job is %s's, a requeue of %q", j.Submitter, j.RequeueOf)
	}
	if _, err := c.Kill(t.Context(), control.KillArgs{ID: reply.ID}); err != nil {
		t.Error(err)
	}
	if _, err := c.DeadPurge(t.Context(), control.DeadPurgeArgs{IDs: []string{dead.ID}}); !errors.Is(err, control.ErrBadRequest) {
		t.Errorf("purge of a job: %v", err)
	}

	// What nobody can use is shown whole, and forgotten.
	urls, err = e.UserURLs()
	ch = channel(t, urls, err)
	err = ch.PublishWithContext(t.Context(), "gpuq.submit", "", true, false, amqp.Publishing{Body: []byte("purge me"), UserId: e.User()})
	if err != nil {
		t.Fatal(err)
	}
	bad := find("the unusable message", func(r control.DeadRow) bool { return r.Bytes == len("purge me") && r.User == e.User() })
	if shown, err := c.DeadShow(t.Context(), bad.ID); err != nil || string(shown.Body) != "purge me" || shown.Cut {
		t.Errorf("message: %+v, %v", shown, err)
	}
	if _, err := c.DeadRequeue(t.Context(), bad.ID); !errors.Is(err, control.ErrConflict) || !strings.Contains(err.Error(), "refused again") {
		t.Errorf("requeue of an unusable message: %v", err)
	}
	if purged, err := c.DeadPurge(t.Context(), control.DeadPurgeArgs{IDs: []string{bad.ID}}); err != nil || purged.Purged != 1 {
		t.Errorf("purge: %+v, %v", purged, err)
	}
	e.expectEvents(t, bad.ID, "dead_purge")
	e.expectEvents(t, dead.ID, "dead_requeue", "dead_requeue")
}
