package hosts

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/test/hosts/witness"
	"gpuqd/test/lab"
	"gpuqd/test/wait"
)

// execution is one execution of a job, by its own witness.
type execution struct {
	witness.Execution
	on *host // where its file is
}

// executions reads what a job's attempts have written, on all hosts.
func (s *site) executions(t *testing.T, id job.ID) []execution {
	t.Helper()
	var all []execution
	for _, h := range s.all() {
		all = append(all, h.executions(t, id)...)
	}
	return all
}

func (h *host) executions(t *testing.T, id job.ID) []execution {
	t.Helper()
	list, err := h.readWitness(t, id)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// readWitness reads the files of a job's attempts on one host.
func (h *host) readWitness(t *testing.T, id job.ID) ([]execution, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	// Each file is followed by one newline more, since it may end within a line.
	out, err := h.Output(ctx, fmt.Sprintf(`cd %s && for f in %s.*; do [ ! -e "$f" ] || { echo "= $f"; cat "$f"; echo; }; done`, witness.Dir, lab.Quote(string(id))))
	if err != nil {
		return nil, err
	}
	var list []execution
	for _, part := range strings.Split("\n"+strings.TrimSuffix(out, "\n"), "\n= ")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		x, err := witness.Parse(name, text)
		if err != nil {
			return nil, err
		}
		list = append(list, execution{x, h})
	}
	return list, nil
}

// waitWitness waits until an attempt has told its witness of its start.
func (s *site) waitWitness(t *testing.T, h *host, id job.ID, attempt int) {
	t.Helper()
	name := fmt.Sprintf("%s.%d", id, attempt)
	wait.For(t, stepTimeout, func() error {
		list, err := h.readWitness(t, id)
		if err != nil {
			return err
		}
		for _, x := range list {
			if x.Attempt == name && x.Lines > 1 {
				return nil
			}
		}
		return fmt.Errorf("attempt %s on %s has no witness of its start", name, h.role)
	})
}

// waitLines waits until an execution has written more lines than before: it runs.
func (s *site) waitLines(t *testing.T, h *host, id job.ID, before int) {
	t.Helper()
	wait.For(t, stepTimeout, func() error {
		if n := lines(h.executions(t, id)); n <= before {
			return fmt.Errorf("job %s on %s has written %d lines, as before", id, h.role, n)
		}
		return nil
	})
}

func lines(all []execution) (n int) {
	for _, x := range all {
		n += x.Lines
	}
	return n
}

// clockSlack is by how much the hosts' clocks may differ: containers share one.
const clockSlack = 50 * time.Millisecond

// expectOneResult checks that the job has succeeded with exactly one result, that
// of the one execution that came to its end, that executions did not overlap,
// and that there were as many as expected. It returns them, oldest first.
func (s *site) expectOneResult(t *testing.T, id job.ID, attempts int) []execution {
	t.Helper()
	j := s.waitEnd(t, id)
	all := s.executions(t, id)
	var plain []witness.Execution
	ended := 0
	for _, x := range all {
		plain = append(plain, x.Execution)
		if x.Ended {
			ended++
			if j.Result == nil || j.Result.Host != x.on.role || x.Attempt != fmt.Sprintf("%s.%d", id, j.Result.Attempt) {
				t.Errorf("execution %s came to its end on %s; the ledger's result is %+v", x.Attempt, x.on.role, j.Result)
			}
		}
	}
	if j.State != job.Succeeded || j.Attempt != attempts || j.Failures != 0 {
		t.Errorf("job %s is %s (%s) after attempt %d with %d failures; want succeeded, by attempt %d, without", id, j.State, j.Reason, j.Attempt, j.Failures, attempts)
	}
	if ended != 1 || len(all) != attempts {
		t.Errorf("%d executions of job %s, of which %d came to their end; want %d and 1: %+v", len(all), id, ended, attempts, plain)
	}
	if found := witness.Overlaps(plain, clockSlack); len(found) > 0 {
		t.Errorf("executions of one job at one time: %v", found)
	}
	if n := terminalRows(j); n != 1 {
		t.Errorf("job %s reached a terminal state %d times: %+v", id, n, j.History)
	}
	return all
}

func terminalRows(j *job.Job) (n int) {
	for _, row := range j.History {
		if row.State.Terminal() {
			n++
		}
	}
	return n
}

// longestPause is that between two lines of an execution.
func longestPause(all []execution) (longest time.Duration) {
	for _, x := range all {
		longest = max(longest, x.Pause)
	}
	return longest
}
