package site

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// playTimeout bounds one run of a playbook.
const playTimeout = 15 * time.Minute

// run is what a run of a playbook has come to.
type run struct {
	Plays []struct {
		Tasks []struct {
			Task struct {
				Name     string
				Duration struct{ Start, End time.Time }
			}
			Hosts map[string]result
		}
	}
	Stats map[string]struct{ Changed, Failures, Unreachable, OK int }

	code   int
	stderr string
}

// result is what a task has come to on a host.
type result struct {
	Changed     bool
	Failed      bool
	Unreachable bool
	Msg         any
	Stderr      string
	Stdout      string
	Results     []result // of each round of a loop
}

// told is what Ansible says of it, with that of the rounds of a loop.
func (r result) told() string {
	text := strings.TrimSpace(fmt.Sprint(r.Msg, " ", r.Stdout, " ", r.Stderr))
	for _, round := range r.Results {
		if round.Failed {
			text += "; " + round.told()
		}
	}
	return text
}

// each calls do for every task on every host.
func (r run) each(do func(task, host string, got result)) {
	for _, play := range r.Plays {
		for _, task := range play.Tasks {
			for host, got := range task.Hosts {
				do(task.Task.Name, host, got)
			}
		}
	}
}

// changes lists what was changed, or would have been, as "host: task".
func (r run) changes() []string {
	var all []string
	r.each(func(task, host string, got result) {
		if got.Changed {
			all = append(all, host+": "+task)
		}
	})
	slices.Sort(all)
	return all
}

// slowest tells where the time of a run went: its longest tasks, of those with one
// name together.
func (r run) slowest(count int) string {
	took := map[string]time.Duration{}
	for _, play := range r.Plays {
		for _, task := range play.Tasks {
			took[task.Task.Name] += max(0, task.Task.Duration.End.Sub(task.Task.Duration.Start))
		}
	}
	names := slices.SortedFunc(maps.Keys(took), func(a, b string) int { return cmp.Compare(took[b], took[a]) })
	var all []string
	for _, name := range names[:min(count, len(names))] {
		all = append(all, fmt.Sprintf("%.0f s %s", took[name].Seconds(), name))
	}
	return strings.Join(all, ", ")
}

// failures lists what has failed, with what Ansible says of it.
func (r run) failures() []string {
	var all []string
	r.each(func(task, host string, got result) {
		if got.Failed || got.Unreachable {
			all = append(all, fmt.Sprintf("%s: %s: %s", host, task, got.told()))
		}
	})
	slices.Sort(all)
	return all
}

// tryPlay runs a playbook of ansible/, and returns how it went.
func (s *site) tryPlay(t *testing.T, playbook string, args ...string) run {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), playTimeout)
	defer cancel()
	began := time.Now()
	cmd := exec.CommandContext(ctx, "ansible-playbook", append([]string{"-i", filepath.Join(s.inventory, "hosts.yml"), playbook}, args...)...)
	cmd.Dir = filepath.Join(root, "ansible")
	cmd.Env = append(os.Environ(), "ANSIBLE_STDOUT_CALLBACK=ansible.posix.json", "ANSIBLE_NOCOLOR=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	r := run{code: cmd.ProcessState.ExitCode(), stderr: errs.String()}
	if ctx.Err() != nil {
		t.Fatalf("%s %v did not end within %s", playbook, args, playTimeout)
	}
	// Warnings of Ansible's own come before the object.
	text := out.Bytes()
	if at := bytes.IndexByte(text, '{'); at > 0 {
		text = text[at:]
	}
	if json.Unmarshal(text, &r) != nil {
		t.Fatalf("%s %v: %v: %s%s", playbook, args, err, out.String(), errs.String())
	}
	t.Logf("%s %v: exit code %d, %d changes, %.0f s; of these %s", playbook, args, r.code, len(r.changes()), time.Since(began).Seconds(), r.slowest(6))
	return r
}

// play runs a playbook that has to succeed.
func (s *site) play(t *testing.T, playbook string, args ...string) run {
	t.Helper()
	r := s.tryPlay(t, playbook, args...)
	if r.code != 0 {
		t.Fatalf("%s %v: exit code %d:\n%s\n%s", playbook, args, r.code, strings.Join(r.failures(), "\n"), r.stderr)
	}
	return r
}

// expectNoChange fails the test if a run changed something, or would have.
func expectNoChange(t *testing.T, r run) {
	t.Helper()
	if found := r.changes(); len(found) > 0 {
		t.Errorf("%d tasks changed something:\n%s", len(found), strings.Join(found, "\n"))
	}
}

// expectStopped checks that a run ended before it changed anything, for a reason
// that has these words.
func expectStopped(t *testing.T, r run, words ...string) {
	t.Helper()
	if r.code == 0 {
		t.Error("it went through")
	}
	expectNoChange(t, r)
	said := strings.Join(r.failures(), "\n")
	for _, word := range words {
		if !strings.Contains(said, word) {
			t.Errorf("it does not speak of %q: %s", word, said)
		}
	}
}
