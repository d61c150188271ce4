package campaign

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

// harvest is all that is known of a campaign when it is over.
type harvest struct {
	began, zero, healed, ended time.Time

	docs       map[job.ID]*job.Job
	confirmed  map[job.ID]time.Time
	outcomes   Outcomes
	executions []Execution
	journal    map[attemptKey]journalled
	logs       []entry
	lives      []life
	timeouts   int // deliveries that the broker's nodes say were open for too long
	leftovers  []string
}

// waitStep is how long a daemon may hold one answer.
const waitStep = 2 * time.Second

// waitEnd waits until a job is over.
func (c *campaign) waitEnd(ctx context.Context, id job.ID) (job.State, error) {
	for {
		reply, err := c.clients.any().States(ctx, []job.ID{id}, waitStep)
		if err == nil && len(reply.Jobs) == 1 && reply.Jobs[0].State.Terminal() {
			return reply.Jobs[0].State, nil
		}
		if stopped := pause(ctx, 100*time.Millisecond); stopped != nil {
			return "", errors.Join(fmt.Errorf("wait for job %s: %w", id, stopped), err)
		}
	}
}

// ids returns every job of the campaign, probes too.
func (c *campaign) ids() []job.ID {
	var ids []job.ID
	for _, j := range c.jobs {
		ids = append(ids, j.ID)
	}
	for _, list := range c.probes.list() {
		for _, p := range list {
			ids = append(ids, p.id)
		}
	}
	return ids
}

// drain waits until every submission is confirmed and every job over, then until
// the cluster is quiet. What takes too long is an error; the judge sees the rest.
func (c *campaign) drain(ctx context.Context, work *sync.WaitGroup, stop func()) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	defer stop()
	submitted := make(chan struct{})
	go func() { work.Wait(); close(submitted) }()
	select {
	case <-submitted:
	case <-ctx.Done():
		stop()
		<-submitted
		return errors.New("not every submission was confirmed in time")
	}
	ids := c.ids()
	for shown := time.Now(); ; {
		reply, err := c.clients.any().States(ctx, ids, 0)
		open := len(ids)
		for _, row := range reply.Jobs {
			if row.State.Terminal() {
				open--
			}
		}
		if err == nil && open == 0 {
			return nil
		}
		if time.Since(shown) > 10*time.Second {
			shown = time.Now()
			c.log.Info("waiting for the jobs to end", "open", open, "err", err)
		}
		if pause(ctx, 500*time.Millisecond) != nil {
			return errors.Join(fmt.Errorf("%d jobs did not end in time", open), err)
		}
	}
}

// harvest reads everything, and ends the daemons on the way.
func (c *campaign) harvest(ctx context.Context, dir string) (*harvest, error) {
	h := &harvest{zero: c.zero, ended: time.Now()}
	h.leftovers = c.leftovers(ctx)
	h.outcomes, h.confirmed = c.clients.confirmed()
	var err error
	if h.docs, err = c.documents(ctx); err != nil {
		return nil, err
	}
	for _, worker := range c.rig.Workers() {
		if err := c.rig.KeepDown(ctx, worker); err != nil {
			return nil, err
		}
	}
	if h.executions, err = readWitnesses(c.rig.witness); err != nil {
		return nil, err
	}
	if h.journal, err = c.rig.journals(); err != nil {
		return nil, err
	}
	if h.lives, err = readLives(filepath.Join(dir, supervisionFile), c.rig.Workers()); err != nil {
		return nil, err
	}
	for _, worker := range c.rig.Workers() {
		entries, err := readLog(c.rig.LogPath(worker), worker)
		if err != nil {
			return nil, err
		}
		h.logs = append(h.logs, entries...)
	}
	if h.timeouts, err = c.rig.countTimeouts(); err != nil {
		return nil, err
	}
	if path := c.rig.SQLitePath(); path != "" {
		left, err := leftOfHold(ctx, path)
		if err != nil {
			return nil, err
		}
		if left != "" {
			h.leftovers = append(h.leftovers, "table "+left+" of a transaction that was never committed")
		}
	}
	return h, c.keep(h)
}

// documents reads the ledger's document of every job.
func (c *campaign) documents(ctx context.Context) (map[job.ID]*job.Job, error) {
	docs := map[job.ID]*job.Job{}
	for _, id := range c.ids() {
		doc, err := c.document(ctx, id)
		if err != nil {
			return nil, err
		}
		if doc != nil {
			docs[id] = doc
		}
	}
	return docs, nil
}

// document reads one document; nil where the ledger has none.
func (c *campaign) document(ctx context.Context, id job.ID) (*job.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, quietTimeout)
	defer cancel()
	for {
		doc, err := c.clients.any().Show(ctx, id)
		switch {
		case err == nil:
			return doc, nil
		case errors.Is(err, control.ErrNotFound):
			return nil, nil
		}
		if stopped := pause(ctx, 200*time.Millisecond); stopped != nil {
			return nil, errors.Join(fmt.Errorf("read job %s: %w", id, stopped), err)
		}
	}
}

// queueRow is one queue of the broker.
type queueRow struct {
	name           string
	ready, unacked int
}

// queues lists the broker's queues with messages in them.
func (c *campaign) queues(ctx context.Context) ([]queueRow, error) {
	out, err := c.rig.Rabbit().Ctl(ctx, c.rig.Rabbit().Nodes[0],
		"-q", "--no-table-headers", "list_queues", "name", "messages_ready", "messages_unacknowledged")
	if err != nil {
		return nil, err
	}
	var rows []queueRow
	for text := range strings.Lines(out) {
		f := strings.Split(strings.TrimSpace(text), "\t")
		if len(f) != 3 {
			continue // a word of the tool's own
		}
		ready, err := strconv.Atoi(f[1])
		unacked, err2 := strconv.Atoi(f[2])
		if err := errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("list queues: %q: %w", text, err)
		}
		if ready+unacked > 0 {
			rows = append(rows, queueRow{f[0], ready, unacked})
		}
	}
	return rows, nil
}
