package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/ledger/mongodb"
	"gpuqd/daemon/ledger/sqlite"

	amqp "github.com/rabbitmq/amqp091-go"
	"gpuqd/test/wait"
)

// channel connects as any AMQP client would, with an account's URLs.
func channel(t *testing.T, urls []string, err error) *amqp.Channel {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := amqp.Dial(urls[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// openStore opens the store of the cluster's ledger beside its daemons.
func (e *env) openStore(t *testing.T) ledger.Store {
	t.Helper()
	var store ledger.Store
	var err error
	if e.kind == config.LedgerSQLite {
		store, err = sqlite.Open(t.Context(), sqlite.Options{Path: e.SQLitePath()})
	} else {
		store, err = mongodb.Open(t.Context(), mongodb.Options{
			URI: e.MongoDBURI(), SingleNode: true, Database: config.Default().Ledger.Database, Timeout: time.Minute,
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	if err := store.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store
}

// openLedger opens the ledger itself.
func (e *env) openLedger(t *testing.T) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(t.Context(), e.openStore(t))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func testDeadLetters(t *testing.T, e *env) {
	urls, err := e.UserURLs()
	ch := channel(t, urls, err)
	bad := map[string][]byte{
		"unparsable":             []byte("run this please"),
		"oversized":              append([]byte(`{"schema": 1, "spec": {"command": ["`), append(bytes.Repeat([]byte("x"), job.MessageBytesMax), `"]}}`...)...),
		"unknown schema version": []byte(`{"schema": 99, "id": "` + job.NewID() + `", "spec": {"command": ["true"]}}`),
		"invalid":                []byte(`{"schema": 1, "id": "` + job.NewID() + `", "spec": {"command": []}}`),
		"submitter":              nil, // a good one, without a user-id
	}
	for reason, body := range bad {
		p := amqp.Publishing{Body: body, UserId: e.User(), MessageId: "dead-" + reason}
		if reason == "submitter" {
			p.UserId, p.Body = "", []byte(`{"schema": 1, "id": "`+job.NewID()+`", "spec": {"command": ["true"]}}`)
		}
		if err := ch.PublishWithContext(t.Context(), "gpuq.submit", "", true, false, p); err != nil {
			t.Fatal(err)
		}
	}
	l := e.openLedger(t)
	wait.For(t, jobTimeout, func() error {
		letters, err := l.DeadLetterList(t.Context(), 100)
		if err != nil {
			return err
		}
		found := map[string]*ledger.DeadLetter{}
		for _, d := range letters {
			if reason, ok := strings.CutPrefix(d.MessageID, "dead-"); ok {
				found[reason] = d
			}
		}
		for reason := range bad {
			d := found[reason]
			if d == nil {
				return fmt.Errorf("no dead letter for the %s message yet", reason)
			}
			if !strings.Contains(d.Reason, reason) || d.Queue != "gpuq.submit" || d.BodyBytes == 0 {
				t.Fatalf("dead letter of the %s message: %+v", reason, *d)
			}
		}
		return nil
	})
}

func testSameKey(t *testing.T, e *env) {
	w := newWitness(t)
	args := append([]string{"submit", "--key", "once-" + string(job.NewID()), "--"}, w.script("sleep 0.2")...)
	var mu sync.Mutex
	ids := map[string]int{}
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			r, err := e.Gpuqctl(t.Context(), args...)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || r.Code != 0 {
				t.Errorf("submit --key: %v, exit code %d: %s", err, r.Code, r.Stderr)
			}
			ids[strings.TrimSpace(r.Stdout)]++
		})
	}
	group.Wait()
	if len(ids) != 1 {
		t.Fatalf("50 submissions of one key gave %d jobs: %v", len(ids), ids)
	}
	for id := range ids {
		if j := e.waitEnd(t, job.ID(id)); j.State != job.Succeeded || j.Attempt != 1 {
			t.Errorf("job is %s after attempt %d", j.State, j.Attempt)
		}
		if n := w.starts(t)[job.ID(id)]; n != 1 {
			t.Errorf("it ran %d times, want once", n)
		}
	}
}

func testDuplicate(t *testing.T, e *env) {
	w := newWitness(t)
	id := e.submit(t, append([]string{"--"}, w.script("true")...)...)
	j := e.waitEnd(t, id)
	urls, err := e.HostURLs()
	ch := channel(t, urls, err)
	before := e.duplicates(t)
	ticket := job.Ticket{ID: id, EnqueuedAt: job.At(time.Now())}.Encode()
	// One that the done-cache answers, one that only the ledger may answer.
	for _, headers := range []amqp.Table{nil, {"gpuq-ask-ledger": true}} {
		err := ch.PublishWithContext(t.Context(), "", j.Queue, true, false, amqp.Publishing{Body: ticket, Headers: headers, DeliveryMode: amqp.Persistent})
		if err != nil {
			t.Fatal(err)
		}
	}
	wait.For(t, jobTimeout, func() error {
		if got := e.duplicates(t); got["done_cache"] < before["done_cache"]+1 || got["ledger"] < before["ledger"]+1 {
			return fmt.Errorf("duplicates counted: %v, before: %v", got, before)
		}
		q, err := ch.QueueDeclarePassive(j.Queue, true, false, false, false, nil)
		if err != nil || q.Messages != 0 {
			return fmt.Errorf("queue has %d messages (%v)", q.Messages, err)
		}
		return nil
	})
	if n := w.starts(t)[id]; n != 1 {
		t.Errorf("the job ran %d times, want once", n)
	}
	if after := e.show(t, id); after.Attempt != 1 || after.Fence != j.Fence || len(after.History) != len(j.History) {
		t.Errorf("the finished job was touched: %+v", after)
	}
}

func (e *env) duplicates(t *testing.T) map[string]float64 {
	t.Helper()
	n := map[string]float64{}
	for _, source := range []string{"done_cache", "ledger"} {
		n[source] = e.metric(t, fmt.Sprintf(`gpuqd_duplicates_total{source=%q}`, source))
	}
	return n
}
