package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gpuqd/daemon/job"

	"github.com/spf13/cobra"
)

type showCmd struct {
	*app
	json bool
}

func newShow(a *app) *cobra.Command {
	c := &showCmd{app: a}
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show all that is known of a job",
		Long: `Show prints a job's state and its reason, owner, spec, result and history. With
--json it is the ledger's document: id, state, reason, attempt, fence, owner,
spec, result {outcome, class, exit_code, ...}, history and more.`,
		Example: `  gpuqctl show 0192f0c1-6d2e-7000-8000-00c0ffee0001
  gpuqctl show --json 0192f0c1-6d2e-7000-8000-00c0ffee0001 | jq .result.exit_code`,
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	cmd.Flags().BoolVar(&c.json, "json", false, "print the ledger's document")
	cmd.ValidArgsFunction = a.completeOne(jobIDs(nil))
	return cmd
}

func (c *showCmd) run(ctx context.Context, args []string) error {
	id, err := oneID(args)
	if err != nil {
		return err
	}
	client, err := c.connect()
	if err != nil {
		return err
	}
	j, err := client.Show(ctx, id)
	if err != nil {
		return fmt.Errorf("show: %w", err)
	}
	if c.json {
		return c.printJSON(j)
	}
	return c.printf("%s", c.jobText(j))
}

// oneID checks the argument of a verb that takes one job.
func oneID(args []string) (job.ID, error) {
	if len(args) != 1 {
		return "", usagef("want one job ID, as gpuqctl submit prints it, but %d are given", len(args))
	}
	id, err := job.ParseID(args[0])
	if err != nil {
		return "", usagef("%w", err)
	}
	return id, nil
}

// sheet is lines of "label  value"; empty values are left out.
type sheet struct {
	strings.Builder
	colours bool
}

// mark is line with a value that is set off.
func (s *sheet) mark(label, value string, st style) {
	fmt.Fprintf(s, "%-13s %s\n", label, paint(s.colours, st, clean(value)))
}

func (s *sheet) line(label, format string, args ...any) {
	if value := clean(fmt.Sprintf(format, args...)); value != "" {
		fmt.Fprintf(s, "%-13s %s\n", label, value)
	}
}

// jobText is all that is known of a job, for people.
func (a *app) jobText(j *job.Job) string {
	s := sheet{colours: a.colours()}
	s.line("ID", "%s", j.ID)
	s.line("Name", "%s", j.Spec.Name)
	s.mark("State", string(j.State), stateStyle(j.State))
	s.line("Reason", "%s", j.Reason)
	if k := j.Kill; k != nil {
		s.line("Kill", "asked for by %s, %s%s", k.Who, clock(k.At), prefixed(": ", k.Reason))
	}
	if h := j.Hold; h != nil {
		s.line("Hold", "by %s, %s%s", h.Who, clock(h.At), prefixed(": ", h.Reason))
	}
	s.line("Submitter", "%s", j.Submitter)
	s.line("Submitted", "%s", a.moment(j.SubmittedAt))
	s.line("Not before", "%s", clock(j.NotBefore))
	s.line("Expires", "%s", clock(j.ExpiresAt))
	s.line("Requeue of", "%s", j.RequeueOf)
	s.line("Attempt", "%s", attemptText(j))
	if o := j.Owner; o != nil {
		s.line("Owner", "%s%s", o.Host, prefixed(", devices ", strings.Join(o.Devices, ", ")))
		s.line("Running", "%s", a.moment(o.Running))
	}
	specText(&s, j)
	resultText(&s, j.Result)
	s.WriteString("\n")
	s.WriteString(historyTable(j).render(a.width, a.colours()))
	return s.String()
}

// moment is a time with its age.
func (a *app) moment(t job.Time) string {
	switch text := age(a.now(), t); text {
	case "":
		return ""
	case "now":
		return clock(t) + " (now)"
	default:
		return clock(t) + " (" + text + " ago)"
	}
}

func attemptText(j *job.Job) string {
	if j.Attempt == 0 {
		return "none yet"
	}
	text := fmt.Sprintf("%d (fence %d), %d of %d failed", j.Attempt, j.Fence, j.Failures, j.Spec.MaxAttempts)
	if j.Requeues > 0 {
		text += fmt.Sprintf(", %d lost through no fault of the job", j.Requeues)
	}
	return text
}

func specText(s *sheet, j *job.Job) {
	spec := j.Spec
	s.line("Command", "%s", shellLine(spec.Command))
	s.line("Queue", "%s", j.Queue)
	s.line("GPUs", "%d%s", spec.GPUs, prefixed(", ", devicesText(spec)))
	s.line("Workdir", "%s", spec.Workdir)
	s.line("Key", "%s", spec.Key)
	if spec.TimeLimit > 0 {
		s.line("Time limit", "%s", spec.TimeLimit)
	}
	s.line("Grace", "%s", spec.Grace)
	s.line("Limits", "%s", limitsText(spec))
	if spec.MaxAttempts > 1 {
		s.line("Backoff", "%s", joinDurations(spec.Backoff))
		s.line("Retry on", "%s", strings.Trim(fmt.Sprint(spec.RetryOn), "[]"))
	}
	s.line("Env", "%s", pairs(spec.Env))
	s.line("Labels", "%s", pairs(spec.Labels))
}

// devicesText says what the job asks of its GPUs beside their number; "" for nothing.
func devicesText(spec job.Spec) string {
	var parts []string
	if spec.GPUMemory > 0 {
		parts = append(parts, size(uint64(spec.GPUMemory))+" of it, shared with others")
	}
	if spec.GPUModel != "" {
		parts = append(parts, "model "+spec.GPUModel)
	}
	if spec.MinGPUMemory > 0 {
		parts = append(parts, "at least "+size(uint64(spec.MinGPUMemory)))
	}
	if spec.MinComputeCapability != "" {
		parts = append(parts, "compute capability "+spec.MinComputeCapability+" or later")
	}
	return strings.Join(parts, ", ")
}

// limitsText names what the job bounds itself to; "" for nothing.
func limitsText(spec job.Spec) string {
	var parts []string
	if spec.MemoryMax > 0 {
		parts = append(parts, size(uint64(spec.MemoryMax))+" of memory")
	}
	if spec.TasksMax > 0 {
		parts = append(parts, fmt.Sprintf("%d tasks", spec.TasksMax))
	}
	if spec.CPUWeight > 0 {
		parts = append(parts, fmt.Sprintf("CPU weight %d", spec.CPUWeight))
	}
	return strings.Join(parts, ", ")
}

func resultText(s *sheet, r *job.Result) {
	if r == nil {
		return
	}
	s.line("Result", "%s", resultLine(r))
	if r.StartedAt.IsZero() {
		return // nothing ran, so nothing was used
	}
	s.line("On", "%s%s", r.Host, prefixed(", devices ", strings.Join(r.Devices, ", ")))
	s.line("Ran", "%s, from %s to %s", length(r.EndedAt.Sub(r.StartedAt.Time)), clock(r.StartedAt), clock(r.EndedAt))
	s.line("Used", "%.1f GPU seconds, %.1f CPU seconds, %s of memory at most", r.GPUSeconds, r.CPUSeconds, size(uint64(max(r.MemoryBytesMax, 0))))
	if r.LogDroppedBytes > 0 {
		s.line("Output", "%s were not kept", size(uint64(r.LogDroppedBytes)))
	}
	if r.JournalDroppedLines > 0 {
		s.line("Journal", "%s of the output did not get there", count(int(r.JournalDroppedLines), "line"))
	}
}

// resultLine says each thing once: a class that is the outcome's own name, or an
// exit code of a command that never ran, says nothing.
func resultLine(r *job.Result) string {
	var facts []string
	switch {
	case r.Signal != "":
		facts = append(facts, "ended by "+r.Signal)
	case !r.StartedAt.IsZero() && r.ExitCode >= 0:
		facts = append(facts, fmt.Sprintf("exit code %d", r.ExitCode))
	}
	if r.Class != "" && string(r.Class) != string(r.Outcome) {
		facts = append(facts, "class "+string(r.Class))
	}
	line := string(r.Outcome)
	if r.Attempt > 0 {
		line = fmt.Sprintf("attempt %d %s", r.Attempt, r.Outcome)
	}
	return line + prefixed(": ", strings.Join(facts, ", ")) + prefixed(": ", r.Reason)
}

// historyTable has a row per transition. Each claim begins an attempt.
func historyTable(j *job.Job) *table {
	t := newTable("TIME", "STATE", "ATTEMPT", "HOST", "CLASS", "REASON").
		alignRight("ATTEMPT").mayCut("REASON").mayDrop("CLASS")
	attempt := 0
	for _, h := range j.History {
		if h.State == job.Claimed {
			attempt++
		}
		number := ""
		if attempt > 0 {
			number = strconv.Itoa(attempt)
		}
		t.add(clock(h.At), string(h.State), number, h.Host, string(h.Class), h.Reason)
		t.style("STATE", stateStyle(h.State))
	}
	return t
}

// prefixed returns text after a prefix, or "" where there is none.
func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

func pairs(m map[string]string) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, name+"="+shellWord(m[name]))
	}
	return strings.Join(list, " ")
}

// shellLine returns a command as it could be typed.
func shellLine(command []string) string {
	words := make([]string, 0, len(command))
	for _, w := range command {
		words = append(words, shellWord(w))
	}
	return strings.Join(words, " ")
}

func shellWord(w string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,@%+", r)
	}
	if w != "" && !strings.ContainsFunc(w, func(r rune) bool { return !safe(r) }) {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}
