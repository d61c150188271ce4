package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/test/wait"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

// testRestored puts the ledger back to a copy of before.
//
// Goal: what ended after the copy runs again, whatever done-cache, broker and the
// hosts' disks know of it, and each job has one result.
//
// Steps: all devices are busy and a job waits (copy); the jobs end, the one that
// waited, too, and another that comes after; one ends while its host's gpuqd is
// down, and one still runs as everything is stopped (restore).
func testRestored(t *testing.T, e *env) {
	w, soon, late, never := newWitness(t), newGate(t), newGate(t), newGate(t)
	var running []job.ID
	for range 2*len(e.Workers()) - 2 {
		running = append(running, e.startAtGate(t, w, soon).ID)
	}
	onDisk, cut := e.startAtGate(t, w, late).ID, e.startAtGate(t, w, never).ID
	running = append(running, onDisk, cut)
	waits := e.submit(t, append([]string{"--"}, w.script("true")...)...)

	e.stopWorkers(t)
	copied := filepath.Join(t.TempDir(), "copy")
	e.whileStopped(t, func() { e.copyLedger(t, copied) })
	e.startWorkers(t)
	e.expectRefused(t)

	soon.open(t)
	for _, id := range append(running[:len(running)-2:len(running)-2], waits) {
		if j := e.waitEnd(t, id); j.State != job.Succeeded {
			t.Fatalf("before the restoration job %s is %s: %s", id, j.State, j.Reason)
		}
	}
	after := e.submit(t, append([]string{"--"}, w.script("true")...)...)
	unknown := e.waitEnd(t, after)

	e.stopWorkers(t)
	late.open(t)
	w.waitEnds(t, onDisk, 1) // its result is on the disk of its host alone
	for _, worker := range e.Workers() {
		if err := e.KillHost(t.Context(), worker); err != nil {
			t.Fatal(err)
		}
	}
	e.whileStopped(t, func() { e.putBack(t, copied) })
	was := e.openLedger(t).ID()
	said := e.ledgerRestored(t, e.ConfigPath("worker_1"))
	if said.code != 0 || !strings.Contains(said.out, "ledger "+was+" is ledger ") ||
		!strings.Contains(said.out, "sessions ended: 3") || !strings.Contains(said.out, fmt.Sprintf("running: %d", len(running))) {
		t.Fatalf("gpuqd --ledger-restored: exit code %d: %s", said.code, said.out)
	}
	// Messages that a broker may still have, of jobs that are over in its view.
	e.publishTicket(t, waits, unknown.Queue)
	e.publishTicket(t, after, unknown.Queue)
	never.open(t)
	e.startWorkers(t)

	e.expectRunAgain(t, w, waits, 1)
	for _, id := range running {
		e.expectRunAgain(t, w, id, 2)
	}
	if n := w.starts(t)[after]; n != 1 {
		t.Errorf("the job that the restored ledger does not know ran %d times, want once", n)
	}
	if r := e.ctl(t, "show", string(after)); r.Code == 0 {
		t.Errorf("it is shown all the same: %s", r.Stdout)
	}
	l := e.openLedger(t)
	if l.ID() == was {
		t.Error("the restored ledger has the ID of the one before")
	}
	// Had the done-cache been believed, its message would have had to be found missing.
	if n := e.show(t, waits).Republished; n != 0 {
		t.Errorf("the message of the job that waited was turned away: it was published again %d times", n)
	}
	e.expectSetAside(t, l, after)
	events, err := l.EventList(t.Context(), ledger.EventFilter{Target: "ledger", Limit: 1})
	if err != nil || len(events) != 1 || events[0].What != "restore_ledger" {
		t.Errorf("events of the ledger: %v, %v", events, err)
	}
}

// expectRunAgain checks that a job succeeded once more, by the given attempt, that
// the restoration cost it nothing, and that it has one end.
func (e *env) expectRunAgain(t *testing.T, w witness, id job.ID, attempt int) {
	t.Helper()
	var j *job.Job
	wait.For(t, 5*time.Minute, func() error { // its message may first have to be found missing
		if j = e.show(t, id); !j.State.Terminal() {
			return fmt.Errorf("job %s is %s: %s", id, j.State, j.Reason)
		}
		return nil
	})
	ends := 0
	for _, c := range j.History {
		if c.State.Terminal() {
			ends++
		}
	}
	if j.State != job.Succeeded || ends != 1 || j.Attempt != attempt || j.Failures+j.Requeues+j.Lost != 0 {
		t.Errorf("job %s is %s (%s), %d ends, attempt %d, failures %d, requeues %d, lost %d; want one success by attempt %d at no cost",
			id, j.State, j.Reason, ends, j.Attempt, j.Failures, j.Requeues, j.Lost, attempt)
	}
	if n := w.starts(t)[id]; n != 2 {
		t.Errorf("job %s ran %d times, want once before the restoration and once after", id, n)
	}
}

// expectRefused checks that a ledger that daemons work with is let alone: by the
// host of one of them, and by a host that has none.
func (e *env) expectRefused(t *testing.T) {
	t.Helper()
	before := e.openLedger(t).ID()
	text, err := os.ReadFile(e.ConfigPath("worker_1"))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "gpuqd.toml")
	text = []byte(strings.ReplaceAll(string(text), e.StateDir("worker_1"), filepath.Join(t.TempDir(), "state")))
	if err := os.WriteFile(elsewhere, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		e.ConfigPath("worker_1"): "gpuqd runs on this host",
		elsewhere:                "the ledger is in use",
	} {
		if said := e.ledgerRestored(t, path); said.code != 1 || !strings.Contains(said.out, want) {
			t.Errorf("under daemons, with %s: exit code %d: %s; want %q", path, said.code, said.out, want)
		}
	}
	if now := e.openLedger(t).ID(); now != before {
		t.Errorf("the ledger %s is %s now", before, now)
	}
}

type restoration struct {
	out  string
	code int
}

func (e *env) ledgerRestored(t *testing.T, settings string) restoration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), jobTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, "gpuqd"), "--config", settings, "--ledger-restored")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	t.Logf("gpuqd --ledger-restored:\n%s", out)
	return restoration{string(out), cmd.ProcessState.ExitCode()}
}

// stopWorkers ends all daemons in order; jobs run on.
func (e *env) stopWorkers(t *testing.T) {
	t.Helper()
	for _, worker := range e.Workers() {
		e.takeDown(t, worker, e.KeepDown)
	}
}

func (e *env) startWorkers(t *testing.T) {
	t.Helper()
	var group errgroup.Group
	for _, worker := range e.Workers() {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
			defer cancel()
			return e.StartUnit(ctx, worker)
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	// They answer before they have reached the ledger.
	wait.For(t, jobTimeout, func() error {
		r := e.ctl(t, "hosts", "--json")
		var hosts []control.HostRow
		if err := json.Unmarshal([]byte(r.Stdout), &hosts); err != nil {
			return fmt.Errorf("gpuqctl hosts: exit code %d, %q: %w", r.Code, r.Stderr, err)
		}
		for _, h := range hosts {
			if !h.Live {
				return fmt.Errorf("host %s is not live", h.Name)
			}
		}
		return nil
	})
}

// whileStopped does something to the ledger's files while no server has them open.
func (e *env) whileStopped(t *testing.T, do func()) {
	t.Helper()
	if e.kind == config.LedgerSQLite {
		do()
		return
	}
	e.takeDown(t, "mongodb", e.KeepDown)
	do()
	e.bringUp(t, "mongodb")
}

// ledgerFiles returns the directory that the ledger's files are in, and their names.
func (e *env) ledgerFiles(t *testing.T) (dir string, names []string) {
	t.Helper()
	dir, pattern := filepath.Join(e.Dir(), "mongodb", "mongodb"), "*"
	if e.kind == config.LedgerSQLite {
		dir, pattern = filepath.Dir(e.SQLitePath()), filepath.Base(e.SQLitePath())+"*"
	}
	paths, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("files of the ledger in %s: %v, %v", dir, paths, err)
	}
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	return dir, names
}

func (e *env) copyLedger(t *testing.T, to string) {
	t.Helper()
	dir, names := e.ledgerFiles(t)
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	copyFiles(t, dir, names, to)
}

func (e *env) putBack(t *testing.T, from string) {
	t.Helper()
	dir, names := e.ledgerFiles(t)
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	names = nil
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	copyFiles(t, from, names, dir)
}

func copyFiles(t *testing.T, from string, names []string, to string) {
	t.Helper()
	for _, name := range names {
		out, err := exec.Command("cp", "-a", filepath.Join(from, name), to).CombinedOutput()
		if err != nil {
			t.Fatalf("copy %s: %v: %s", name, err, out)
		}
	}
}

// publishTicket publishes a job's message as intake does.
func (e *env) publishTicket(t *testing.T, id job.ID, queue string) {
	t.Helper()
	urls, err := e.HostURLs()
	err = channel(t, urls, err).PublishWithContext(t.Context(), "", queue, true, false, amqp.Publishing{
		Body: job.Ticket{ID: id, EnqueuedAt: job.At(time.Now())}.Encode(), MessageId: string(id), DeliveryMode: amqp.Persistent,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// expectSetAside waits for the dead letter of a job that the ledger does not know.
func (e *env) expectSetAside(t *testing.T, l *ledger.Ledger, id job.ID) {
	t.Helper()
	wait.For(t, jobTimeout, func() error {
		letters, err := l.DeadLetterList(t.Context(), 100)
		if err != nil {
			return err
		}
		for _, d := range letters {
			if d.MessageID == string(id) && strings.Contains(d.Reason, "knows no job") {
				return nil
			}
		}
		return fmt.Errorf("no dead letter for the message of job %s yet", id)
	})
}

// waitEnds waits until a job has told the witness of n ends.
func (w witness) waitEnds(t *testing.T, id job.ID, n int) {
	t.Helper()
	wait.For(t, jobTimeout, func() error {
		ends := 0
		for _, x := range w.read(t) {
			if x.event == "end" && x.id == id {
				ends++
			}
		}
		if ends < n {
			return fmt.Errorf("job %s has ended %d times, want %d", id, ends, n)
		}
		return nil
	})
}
