package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

// runExample submits the example's sweep, waits for its jobs and prints what
// they found. The jobs have keys: a second run submits nothing new.
func (u *up) runExample(ctx context.Context) error {
	began := time.Now()
	sweep := filepath.Join(u.example, "sweep.py")
	specs, err := output(ctx, nil, "python3", sweep, "--keyed", "--name", "make-up", "--epochs", strconv.Itoa(u.epochs))
	if err != nil {
		return fmt.Errorf("list the example's jobs: %w", err)
	}
	client, err := u.client()
	if err != nil {
		return err
	}
	defer client.Close()
	fmt.Printf("\nThe example: %s --keyed | gpuqctl submit -f -\n", sweep)
	printed, err := u.gpuqctl(ctx, specs, "submit", "-f", "-")
	if err != nil {
		return fmt.Errorf("submit the example: %w", err)
	}
	ids, err := readIDs(printed)
	if err != nil {
		return err
	}
	if err := await(ctx, client, ids); err != nil {
		return err
	}
	logs, err := printResults(ctx, client, ids)
	if err != nil {
		return err
	}
	best, err := output(ctx, logs, "python3", sweep, "best")
	if err != nil {
		return fmt.Errorf("compare the example's results: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(best)), "\n")
	fmt.Printf("\n%s\n%d jobs, %.1f s\n", lines[len(lines)-1], len(ids), time.Since(began).Seconds())
	return nil
}

// client returns a client that finds the cluster as gpuqctl does.
func (u *up) client() (*control.Client, error) {
	cfg, err := config.LoadClient(filepath.Join(u.dir, "gpuqctl.toml"))
	if err != nil {
		return nil, err
	}
	return control.Dial(cfg), nil
}

// gpuqctl runs gpuqctl on this cluster. What it says beside its result is in the
// error, if it fails.
func (u *up) gpuqctl(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(u.bin, "gpuqctl"), args...)
	cmd.Env = append(os.Environ(), "GPUQCTL_CONFIG="+filepath.Join(u.dir, "gpuqctl.toml"))
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return out, err
}

// output runs a program and returns its stdout; its stderr is the person's.
func output(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), os.Stderr
	return cmd.Output()
}

// readIDs reads the IDs that gpuqctl submit printed, one per line.
func readIDs(printed []byte) ([]job.ID, error) {
	var ids []job.ID
	for _, word := range strings.Fields(string(printed)) {
		id, err := job.ParseID(word)
		if err != nil {
			return nil, fmt.Errorf("read what gpuqctl submit printed: %w", err)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// waitStep is how long one question may wait for a job's end.
const waitStep = 2 * time.Second

// await waits until all jobs have ended, and shows how many have.
func await(ctx context.Context, client *control.Client, ids []job.ID) error {
	left := slices.Clone(ids)
	for shown := -1; len(left) > 0; {
		reply, err := client.States(ctx, left, waitStep)
		if err != nil {
			return fmt.Errorf("wait for the example: %w", err)
		}
		running := 0
		for _, row := range reply.Jobs {
			if row.State.Terminal() {
				left = slices.DeleteFunc(left, func(id job.ID) bool { return id == row.ID })
			} else if row.State == job.Running {
				running++
			}
		}
		if ended := len(ids) - len(left); ended != shown {
			shown = ended
			fmt.Printf("  %d of %d jobs have ended, %d are running\n", ended, len(ids), running)
		}
	}
	return nil
}

// printResults prints a line per job, and returns the tails of their logs. A job
// that did not succeed is an error, after the table.
func printResults(ctx context.Context, client *control.Client, ids []job.ID) ([]byte, error) {
	var logs bytes.Buffer
	var failed []string
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "JOB\tNAME\tHOST\tATTEMPT\tSTATE\tSECONDS\tRESULT")
	for _, id := range ids {
		j, err := client.Show(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("read job %s: %w", id, err)
		}
		if j.State != job.Succeeded || j.Result == nil {
			failed = append(failed, string(id))
		}
		r := j.Result
		if r == nil {
			r = &job.Result{}
		}
		logs.WriteString(r.LogTail + "\n")
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%.1f\t%s\n", id, j.Spec.Name, r.Host, r.Attempt, j.State,
			r.EndedAt.Sub(r.StartedAt.Time).Seconds(), figures(r.LogTail))
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	if len(failed) > 0 {
		return nil, fmt.Errorf("%d jobs of the example did not succeed: see bin/gpuqctl show %s", len(failed), failed[0])
	}
	return logs.Bytes(), nil
}

// figures returns the figures in a job's result line.
func figures(log string) string {
	for line := range strings.Lines(log) {
		if found, ok := strings.CutPrefix(line, "result "); ok {
			words := strings.Fields(found)
			return strings.Join(words[:min(2, len(words))], " ")
		}
	}
	return "-"
}
