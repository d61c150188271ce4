package bench

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"gpuqd/daemon/job"

	amqp "github.com/rabbitmq/amqp091-go"
	_ "modernc.org/sqlite" // registers the driver "sqlite"
)

const (
	// preloadAtOnce is how many documents are one transaction, and how many
	// messages await their confirms. In between gpuqd can write; and no document is
	// so much older than its message that the sweeper would miss it.
	preloadAtOnce = 2000
	// preloadTimeout bounds it: a million takes some minutes.
	preloadTimeout = 30 * time.Minute
)

// preload makes jobs that wait: the documents and messages that submissions would
// make, by the thousand.
type preload struct {
	rig     *rig
	db      *sql.DB
	conn    *amqp.Connection
	ch      *amqp.Channel
	account string
	waiting []job.ID // in the order of the queue
}

func (r *rig) newPreload(ctx context.Context) (p *preload, err error) {
	p = &preload{rig: r}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	pragmas := url.Values{"_pragma": {"synchronous(FULL)", "busy_timeout(60000)"}}
	if p.db, err = sql.Open("sqlite", "file:"+r.SQLitePath()+"?"+pragmas.Encode()); err != nil {
		return p, err
	}
	p.db.SetMaxOpenConns(1)
	urls, err := r.HostURLs()
	if err != nil {
		return p, err
	}
	p.account = accountOf(urls[0])
	if p.conn, err = amqp.Dial(urls[0]); err != nil {
		return p, err
	}
	if p.ch, err = p.conn.Channel(); err != nil {
		return p, err
	}
	return p, p.ch.Confirm(false)
}

// close ends what newPreload has opened. Nothing is lost by an error here.
func (p *preload) close() {
	if p.db != nil {
		_ = p.db.Close()
	}
	if p.conn != nil {
		_ = p.conn.Close()
	}
}

// fill brings the number of waiting jobs up to n.
func (p *preload) fill(ctx context.Context, n int, tell func(now int)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, preloadTimeout, fmt.Errorf("%d jobs could not be made in %s", n, preloadTimeout))
	defer cancel()
	told := time.Now()
	for len(p.waiting) < n {
		jobs := make([]*job.Job, min(preloadAtOnce, n-len(p.waiting)))
		for i := range jobs {
			jobs[i] = job.New(job.NewID(), p.rig.User(), spec(trueCommand), job.At(time.Now()))
		}
		if err := p.store(ctx, jobs); err != nil {
			return fmt.Errorf("preload the ledger: %w", err)
		}
		if err := p.publish(ctx, jobs); err != nil {
			return fmt.Errorf("preload the queue: %w", err)
		}
		for _, j := range jobs {
			p.waiting = append(p.waiting, j.ID)
		}
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			tell(len(p.waiting))
		}
	}
	return nil
}

// store inserts documents by one statement, and so in one transaction: the driver
// would compile a statement of one document anew for each.
func (p *preload) store(ctx context.Context, jobs []*job.Job) error {
	docs, err := json.Marshal(jobs)
	if err != nil {
		return err
	}
	_, err = p.db.ExecContext(ctx, `INSERT INTO "jobs" (id, doc) SELECT json_extract(value, '$.id'), value FROM json_each(?1)`, string(docs))
	return err
}

// publish puts messages into the work queue and waits for all confirms.
func (p *preload) publish(ctx context.Context, jobs []*job.Job) error {
	confirms := make([]*amqp.DeferredConfirmation, len(jobs))
	for i, j := range jobs {
		var err error
		confirms[i], err = p.ch.PublishWithDeferredConfirmWithContext(ctx, "", j.Queue, true, false, amqp.Publishing{
			Headers: amqp.Table{}, ContentType: "application/json", DeliveryMode: amqp.Persistent, MessageId: string(j.ID),
			Timestamp: time.Now(), UserId: p.account, Body: job.Ticket{ID: j.ID, EnqueuedAt: j.PublishedAt}.Encode(),
		})
		if err != nil {
			return err
		}
	}
	for _, confirm := range confirms {
		if ok, err := confirm.WaitContext(ctx); err != nil || !ok {
			return errors.Join(errors.New("the broker did not confirm a message"), err)
		}
	}
	return nil
}

// drop forgets the jobs that have run.
func (p *preload) drop(docs []*job.Job) {
	ran := map[job.ID]bool{}
	for _, j := range docs {
		ran[j.ID] = j.State.Terminal()
	}
	p.waiting = slices.DeleteFunc(p.waiting, func(id job.ID) bool { return ran[id] })
}
