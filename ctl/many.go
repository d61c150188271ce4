package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

const (
	// finishGrace lets requests that are under way finish after Ctrl-C.
	finishGrace = 5 * time.Second
	// finishQuiet is how long a person who pressed it is not told of that.
	finishQuiet = 300 * time.Millisecond
)

// finishing returns a context for requests under way: it outlives ctx by
// finishGrace, so that what they came to is known.
func (a *app) finishing(ctx context.Context) (finish context.Context, cancel func()) {
	finish, end := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		sleep(finish, finishQuiet)
		if finish.Err() == nil {
			a.say("waiting for the answer to what is under way; Ctrl-C again ends gpuqctl at once")
		}
		sleep(finish, finishGrace-finishQuiet)
		end(context.Cause(ctx))
	})
	return finish, func() {
		stop()
		end(nil)
	}
}

// eachJob does one thing to one job after the other, as each does.
func (a *app) eachJob(ctx context.Context, verb, participle string, args []string, do func(context.Context, *control.Client, job.ID) error) error {
	ids, err := parseIDs(args)
	if err != nil {
		return err
	}
	client, err := a.connect()
	if err != nil {
		return err
	}
	return each(ctx, a, verb, participle, ids, func(ctx context.Context, id job.ID) error { return do(ctx, client, id) })
}

// each does one thing to one ID after the other. What fails is said, and the
// rest is done all the same. Ctrl-C lets the one under way finish, and the error
// names those that were not done; participle is what they were not.
func each[ID ~string](ctx context.Context, a *app, verb, participle string, ids []ID, do func(context.Context, ID) error) error {
	finish, cancel := a.finishing(ctx)
	defer cancel()
	var left []string
	var first error
	for _, id := range ids {
		if ctx.Err() != nil {
			left = append(left, string(id))
			continue
		}
		err := do(finish, id)
		switch {
		case err == nil:
		case ctx.Err() != nil && errors.Is(err, control.ErrUnavailable):
			left = append(left, string(id))
		default:
			a.say("%s %s: %v", verb, id, err)
			if first == nil {
				first = err
			}
		}
	}
	switch {
	case len(left) > 0:
		return &exitError{code: exitInterrupted, err: fmt.Errorf("%w: not %s: %s", context.Cause(ctx), participle, shortList(left))}
	case first != nil:
		return &exitError{code: exitCode(ctx, first)}
	}
	return nil
}

// printState prints a job with the state it is in now.
func (a *app) printState(id job.ID, state job.State) error {
	return a.printf("%s %s\n", id, a.paint(stateStyle(state), string(state)))
}

func shortIDs(ids []job.ID) string {
	names := make([]string, 0, len(ids))
	for _, id := range ids {
		names = append(names, string(id))
	}
	return shortList(names)
}

// confirm asks the person at the terminal, on stderr. Without one, or on Ctrl-C,
// it is an error: nothing has been done then.
func (a *app) confirm(ctx context.Context, format string, args ...any) error {
	question := clean(fmt.Sprintf(format, args...))
	if !a.asks {
		return usagef("%s: nobody is at a terminal to say so: add --yes", question)
	}
	fmt.Fprintf(a.err, "gpuqctl: %s? [y/N] ", question)
	answer := make(chan string, 1)
	go func() { // ends with its input, or with the program
		line, _ := bufio.NewReader(a.in).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.err)
		return &exitError{code: exitInterrupted, err: fmt.Errorf("%w: nothing was done", context.Cause(ctx))}
	case line := <-answer:
		if line == "y" || line == "yes" {
			return nil
		}
		return &exitError{code: exitFailure, err: errors.New("nothing was done: only y or yes does it")}
	}
}
