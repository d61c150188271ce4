package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"

	"golang.org/x/sync/errgroup"
)

const (
	// submitsAtOnce is how many submissions of a file are under way together.
	// The ledger writes them one by one on a small installation, and groups
	// them on a large one; more would only wait there.
	submitsAtOnce = 16
	// progressEvery is the time between two lines of progress.
	progressEvery = 2 * time.Second
)

// batch is the submission of a file.
type batch struct {
	cmd    *submitCmd
	client *control.Client
	specs  []placedSpec

	mu      sync.Mutex // guards what follows
	replies []control.SubmitReply
	errs    []error
	settled []bool
	printed int // replies[:printed] are on stdout, or failed
	done    int
	out     error // why stdout takes no more
}

func (c *submitCmd) runFile(ctx context.Context) error {
	specs, err := c.readFile()
	if err != nil {
		return &exitError{code: exitUsage, err: fmt.Errorf("nothing was submitted: %w", err)}
	}
	client, err := c.connect()
	if err != nil {
		return c.waitError(ctx, err)
	}
	b := &batch{
		cmd: c, client: client, specs: specs,
		replies: make([]control.SubmitReply, len(specs)), errs: make([]error, len(specs)), settled: make([]bool, len(specs)),
	}
	b.submitAll(ctx)
	if err := b.verdict(ctx); err != nil || !c.wait {
		return err
	}
	ids := make([]job.ID, 0, len(specs))
	for _, r := range b.replies {
		ids = append(ids, r.ID)
	}
	return c.waitError(ctx, c.await(ctx, client, ids, func(row control.JobRow) error {
		if c.json {
			return c.printLine(row)
		}
		return nil
	}))
}

func (c *submitCmd) readFile() ([]placedSpec, error) {
	var in io.Reader = c.in
	if c.file != "-" {
		f, err := os.Open(c.file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	return readSpecs(in)
}

// submitAll submits every spec until ctx ends; what is under way then may finish.
func (b *batch) submitAll(ctx context.Context) {
	finish, cancel := b.cmd.finishing(ctx)
	defer cancel()
	stop := b.progress()
	defer stop()
	var group errgroup.Group
	group.SetLimit(submitsAtOnce)
	for i := range b.specs {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			reply, err := b.client.Submit(finish, submission(b.specs[i].spec))
			b.settle(i, reply, err)
			return nil
		})
	}
	_ = group.Wait() // each error is kept with its spec
}

// settle records one outcome, and prints what is next in the order of the file.
func (b *batch) settle(i int, reply control.SubmitReply, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.replies[i], b.errs[i], b.settled[i] = reply, err, true
	b.done++
	for b.printed < len(b.specs) && b.settled[b.printed] {
		b.print(b.printed)
		b.printed++
	}
}

func (b *batch) print(i int) {
	where := b.specs[i].where + ": "
	if b.errs[i] != nil {
		b.cmd.say("%s%v", where, b.errs[i])
		return
	}
	if err := b.cmd.report(b.replies[i], where); err != nil && b.out == nil {
		b.out = err
	}
}

// progress says now and then how far it is; the function it returns ends that.
func (b *batch) progress() (stop func()) {
	tick := time.NewTicker(progressEvery)
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-tick.C:
				b.mu.Lock()
				b.cmd.say("%d of %d submitted", b.done, len(b.specs))
				b.mu.Unlock()
			case <-over:
				return
			}
		}
	})
	return func() {
		tick.Stop()
		close(over)
		wg.Wait()
	}
}

// verdict sums up: nil when every job is confirmed and printed.
func (b *batch) verdict(ctx context.Context) error {
	var confirmed, open, once []string // once: a repeat would be another job
	var first error
	for i, s := range b.specs {
		done := b.settled[i] && b.errs[i] == nil
		if s.spec.Key == "" && (done || errors.Is(b.errs[i], control.ErrUnknownOutcome)) {
			once = append(once, s.where)
		}
		if done {
			confirmed = append(confirmed, s.where)
			continue
		}
		open = append(open, s.where)
		if first == nil {
			first = b.errs[i]
		}
	}
	if len(open) == 0 {
		b.cmd.say("%d of %d jobs confirmed", len(confirmed), len(b.specs))
		return b.out
	}
	b.printRest()
	lines := []string{fmt.Sprintf("%d of %d jobs confirmed; not: %s", len(confirmed), len(b.specs), shortList(open))}
	if len(once) == 0 {
		lines = append(lines, "submit the file again: what is confirmed has a key and stays one job")
	} else {
		lines = append(lines, "do not submit these again, they have no key and may run twice: "+shortList(once))
	}
	err := errors.New(strings.Join(lines, "\n"))
	switch {
	case ctx.Err() != nil:
		return &exitError{code: exitInterrupted, err: err}
	case b.cmd.wait:
		return &exitError{code: exitNoOutcome, err: err}
	}
	return &exitError{code: exitCode(ctx, first), err: err}
}

// printRest prints the confirmed jobs behind one that never settled.
func (b *batch) printRest() {
	for i := b.printed; i < len(b.specs); i++ {
		if b.settled[i] {
			b.print(i)
		}
	}
	b.printed = len(b.specs)
}

// shortList names the first few.
func shortList(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
