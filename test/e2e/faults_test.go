package e2e

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"

	"github.com/redis/go-redis/v9"
	"gpuqd/test/wait"
	_ "modernc.org/sqlite" // to lock the ledger's file from outside
)

// train returns the command of the example, slow enough to be interrupted.
func train(t *testing.T, witness string, slow string) []string {
	t.Helper()
	path, err := filepath.Abs("../../examples/train/train.py")
	if err != nil {
		t.Fatal(err)
	}
	return []string{
		"/usr/bin/python3", path, "--hidden", "4", "--epochs", "200", "--checkpoint-every", "5",
		"--slow-epoch", slow, "--witness", witness,
	}
}

// trainEvent is a line of the example's own witness.
type trainEvent struct {
	Event   string `json:"event"`
	JobID   job.ID `json:"job_id"`
	Attempt any    `json:"attempt"`
}

func trainEvents(t *testing.T, path, event string) (n int) {
	t.Helper()
	for line := range strings.Lines(writtenLines(t, path)) {
		var x trainEvent
		if err := json.Unmarshal([]byte(line), &x); err != nil {
			t.Fatalf("line of the witness %q: %v", line, err)
		}
		if x.Event == event {
			n++
		}
	}
	return n
}

// startTraining submits a training job and waits until it has a checkpoint.
func (e *env) startTraining(t *testing.T, witness, slow string) *job.Job {
	t.Helper()
	id := e.submit(t, append([]string{"--name", "training", "--"}, train(t, witness, slow)...)...)
	wait.For(t, jobTimeout, func() error {
		_, err := os.Stat(filepath.Join(e.WorkRoot(), string(id), "train.checkpoint"))
		return err
	})
	return e.waitFor(t, id, job.Running)
}

// expectOneRun checks that the training ended well, in one execution.
func (e *env) expectOneRun(t *testing.T, id job.ID, witness string) {
	t.Helper()
	j := e.waitEnd(t, id)
	if j.State != job.Succeeded || j.Attempt != 1 || j.Fence != 1 || !strings.Contains(j.Result.LogTail, "result accuracy=") {
		t.Errorf("job is %s (%s), attempt %d, fence %d, output %q", j.State, j.Reason, j.Attempt, j.Fence, j.Result.LogTail)
	}
	if s, n := trainEvents(t, witness, "start"), trainEvents(t, witness, "end"); s != 1 || n != 1 {
		t.Errorf("the payload saw %d starts and %d ends, want one of each", s, n)
	}
}

// takeDown takes a server or daemon down. A test that fails meanwhile leaves the
// cluster whole for the next all the same.
func (e *env) takeDown(t *testing.T, unit string, how func(context.Context, string) error) {
	t.Helper()
	t.Cleanup(func() { e.bringUp(t, unit) })
	if err := how(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
}

// bringUp wants a server or daemon up, and waits until it answers.
func (e *env) bringUp(t *testing.T, unit string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startTimeout)
	defer cancel()
	if err := e.StartUnit(ctx, unit); err != nil {
		t.Fatal(err)
	}
}

func testGracefulStop(t *testing.T, e *env) {
	witness := filepath.Join(t.TempDir(), "witness")
	j := e.startTraining(t, witness, "0.03")
	e.takeDown(t, j.Owner.Host, e.KeepDown)
	if len(processesWith(t, "environ", "GPUQ_JOB_ID="+string(j.ID))) == 0 {
		t.Error("the job is gone with its daemon")
	}
	e.bringUp(t, j.Owner.Host)
	e.expectOneRun(t, j.ID, witness)
}

func testDaemonKilled(t *testing.T, e *env) {
	witness := filepath.Join(t.TempDir(), "witness")
	j := e.startTraining(t, witness, "0.05")
	if err := e.Kill(j.Owner.Host); err != nil {
		t.Fatal(err)
	}
	e.expectOneRun(t, j.ID, witness)
}

func testShimKilled(t *testing.T, e *env) {
	w := newWitness(t)
	id := e.submit(t, append([]string{"--"}, w.script("[ $GPUQ_ATTEMPT = 2 ] || { setsid sleep 600 & sleep 600; }")...)...)
	w.waitStart(t, id)
	shims := processesWith(t, "cmdline", string(id)+".1")
	if len(shims) != 1 {
		t.Fatalf("shims of the job: %v, want one", shims)
	}
	pid, err := strconv.Atoi(strings.Fields(shims[0])[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	j := e.waitEnd(t, id)
	if j.State != job.Succeeded || j.Attempt != 2 || j.Failures != 0 || j.Requeues != 1 {
		t.Errorf("job is %s (%s), attempt %d, failures %d, requeues %d; want succeeded by attempt 2 at no cost", j.State, j.Reason, j.Attempt, j.Failures, j.Requeues)
	}
	expectNoProcessOfJob(t, id)
}

func testDeadHost(t *testing.T, e *env) {
	witness := filepath.Join(t.TempDir(), "witness")
	j := e.startTraining(t, witness, "0.03")
	died := since()
	e.takeDown(t, j.Owner.Host, e.KillHost)
	var next *job.Job
	wait.For(t, jobTimeout, func() error {
		next = e.show(t, j.ID)
		if next.Attempt != 2 {
			return fmt.Errorf("job is %s on attempt %d", next.State, next.Attempt)
		}
		return nil
	})
	// ttl 15 s, grace 5 s, two renewals of 2 s; what is left is the start, on
	// however busy a machine.
	t.Logf("running on another host %.1f s after its own died; ttl + grace + two renewals are 24 s", died().Seconds())
	if next.Fence != 2 || next.Owner != nil && next.Owner.Host == j.Owner.Host {
		t.Errorf("fence %d, owner %+v; want fence 2 on another host than %s", next.Fence, next.Owner, j.Owner.Host)
	}
	end := e.waitEnd(t, j.ID)
	if end.State != job.Succeeded || end.Failures != 0 || !strings.Contains(end.Result.LogTail, "resumed at epoch") {
		t.Errorf("job is %s (%s), failures %d, output %q; want a success that resumed", end.State, end.Reason, end.Failures, end.Result.LogTail)
	}
	if s, n := trainEvents(t, witness, "start"), trainEvents(t, witness, "end"); s != 2 || n != 1 {
		t.Errorf("the payload saw %d starts and %d ends, want 2 and 1", s, n)
	}
	e.bringUp(t, j.Owner.Host)
}

// batchSize is how many jobs a fault has to leave unharmed.
const batchSize = 200

// batch submits 200 jobs and returns what they tell.
func (e *env) batch(t *testing.T) (w witness, label string) {
	t.Helper()
	e.forgetFinished(t)
	w, label = newWitness(t), "b-"+string(job.NewID())
	var specs strings.Builder
	for range batchSize {
		line, err := json.Marshal(map[string]any{
			"command": w.script("sleep 0.2"), "labels": map[string]string{"batch": label},
		})
		if err != nil {
			t.Fatal(err)
		}
		specs.Write(append(line, '\n'))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r, err := e.GpuqctlInput(ctx, strings.NewReader(specs.String()), "submit", "-f", "-")
	if err != nil || r.Code != 0 {
		t.Fatalf("submit -f -: %v, exit code %d: %s", err, r.Code, r.Stderr)
	}
	if n := len(strings.Fields(r.Stdout)); n != batchSize {
		t.Fatalf("%d jobs were confirmed, want %d", n, batchSize)
	}
	return w, label
}

// forgetFinished removes the jobs of the tests before from a MongoDB-wire
// stand-in, each of whose operations reads every job there is.
func (e *env) forgetFinished(t *testing.T) {
	t.Helper()
	if e.kind != config.LedgerMongoDB {
		return
	}
	store := e.openStore(t)
	docs, err := store.Find(t.Context(), ledger.Jobs, ledger.Query{Without: []string{"history", "result", "spec"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range docs {
		var j struct {
			ID    string    `json:"id"`
			State job.State `json:"state"`
		}
		if err := json.Unmarshal(doc, &j); err != nil {
			t.Fatal(err)
		}
		if j.State.Terminal() {
			if err := store.Delete(t.Context(), ledger.Jobs, j.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// waitProgress waits until at least n jobs of the batch have started.
func (w witness) waitProgress(t *testing.T, n int) {
	t.Helper()
	wait.For(t, 5*time.Minute, func() error {
		if started := len(w.starts(t)); started < n {
			return fmt.Errorf("%d jobs have started, want %d", started, n)
		}
		return nil
	})
}

// expectBatch checks that every job of the batch succeeded in one execution.
func (e *env) expectBatch(t *testing.T, w witness, label string) {
	t.Helper()
	// First the payloads' word, which costs the ledger nothing.
	wait.For(t, 8*time.Minute, func() error {
		ends := 0
		for _, x := range w.read(t) {
			if x.event == "end" {
				ends++
			}
		}
		if ends < batchSize {
			return fmt.Errorf("%d executions have ended, want %d", ends, batchSize)
		}
		return nil
	})
	var rows []control.JobRow
	wait.For(t, 5*time.Minute, func() error {
		rows = e.rows(t, label)
		left := map[job.State]int{}
		for _, r := range rows {
			if !r.State.Terminal() {
				left[r.State]++
			}
		}
		if len(rows) != batchSize || len(left) > 0 {
			return fmt.Errorf("%d jobs, not over: %v", len(rows), left)
		}
		return nil
	})
	hosts := map[string]int{}
	for _, r := range rows {
		hosts[r.Host]++
		if r.State != job.Succeeded {
			t.Errorf("job %s is %s: %s", r.ID, r.State, r.Reason)
		}
	}
	starts := w.starts(t)
	total := 0
	for id, n := range starts {
		total += n
		if n != 1 {
			t.Errorf("job %s ran %d times", id, n)
		}
	}
	if total != batchSize || len(starts) != batchSize {
		t.Errorf("%d executions of %d jobs, want %d of each", total, len(starts), batchSize)
	}
	t.Logf("jobs by host: %v", hosts)
}

// expectAllTakePart fills every device: no host stays out of work.
func (e *env) expectAllTakePart(t *testing.T) {
	t.Helper()
	w, g := newWitness(t), newGate(t)
	hosts := map[string]int{}
	var jobs []job.ID
	for range 2 * len(e.Workers()) {
		j := e.startAtGate(t, w, g)
		hosts[j.Owner.Host]++
		jobs = append(jobs, j.ID)
	}
	if len(hosts) != len(e.Workers()) {
		t.Errorf("jobs by host: %v, want all %d to take part", hosts, len(e.Workers()))
	}
	g.open(t)
	for _, id := range jobs {
		e.waitEnd(t, id)
	}
}

func testBrokerNodeKilled(t *testing.T, e *env) {
	nodes := e.RabbitNodes()
	if e.kind == config.LedgerMongoDB {
		nodes = nodes[:1] // the ledger makes no difference to the broker, and its stand-in is slow
	}
	for _, node := range nodes {
		t.Run(node, func(t *testing.T) {
			w, label := e.batch(t)
			w.waitProgress(t, 20)
			e.takeDown(t, node, e.KillAndKeepDown)
			w.waitProgress(t, 100)
			e.bringUp(t, node)
			e.expectBatch(t, w, label)
			// A host whose take hung at the node may have sat the batch out.
			e.expectAllTakePart(t)
		})
	}
}

func testRedisLost(t *testing.T, e *env) {
	w, label := e.batch(t)
	w.waitProgress(t, 20)
	password, err := e.RedisPassword()
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: e.RedisAddr(), Password: password})
	defer client.Close()
	if err := client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	w.waitProgress(t, 60)
	e.takeDown(t, "redis", e.KeepDown)
	w.waitProgress(t, 120)
	e.bringUp(t, "redis")
	e.expectBatch(t, w, label)
	e.expectAllTakePart(t)
}

// ledgerOutage is longer than the lease: jobs are frozen and thawed.
const ledgerOutage = 30 * time.Second

func testLedgerLost(t *testing.T, e *env) {
	w, label := e.batch(t)
	w.waitProgress(t, 20)
	if e.LedgerKind() == "sqlite" {
		lockFor(t, e.SQLitePath(), ledgerOutage)
	} else {
		e.takeDown(t, "mongodb", e.KeepDown)
		hold(t, ledgerOutage)
		e.bringUp(t, "mongodb")
	}
	e.expectBatch(t, w, label)
	e.expectAllTakePart(t)
}

// lockFor holds an exclusive lock on a SQLite file for so long.
func lockFor(t *testing.T, path string, d time.Duration) {
	t.Helper()
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(20000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(t.Context(), "BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	hold(t, d)
	if _, err := db.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
}

// hold lets an outage last: the length of the fault is what is tested here.
func hold(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}
