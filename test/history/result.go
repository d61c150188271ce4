package history

import (
	"strconv"
	"strings"
	"time"

	"gpuqd/daemon/job"
)

// Exit codes of commands that could not be executed: no payload, no witness.
const (
	codeCannotExecute = 126
	codeNotFound      = 127
)

// resultDiffers: what the ledger keeps of a finished job is what its payload saw.
// Where the payload was stopped for a reason of the system (a time limit, a kill),
// the reason decides, and its exit code says nothing.
func (b *book) resultDiffers(t *trace) {
	doc := b.end.Jobs[t.id]
	if doc == nil {
		return
	}
	switch r := doc.Result; {
	case doc.State == job.Succeeded && r == nil:
		b.report(ResultDiffers, t, "", []*Event{t.ended()}, "it succeeded, and has no result")
	case doc.State == job.Succeeded:
		b.witnessed(t, doc, 0, true)
	case doc.State == job.Failed && r != nil && r.Class == job.ClassUser:
		b.witnessed(t, doc, r.ExitCode, false)
	}
	b.tailDiffers(t, doc)
}

// witnessed reports a result whose execution did not end with the code, before
// the job did; by its own last instruction where complete is set.
func (b *book) witnessed(t *trace, doc *job.Job, code int, complete bool) {
	r, end := doc.Result, t.ended()
	if end != nil && end.Attempt != r.Attempt {
		b.report(ResultDiffers, t, r.Host, []*Event{end}, "it is %s as attempt %d, and its result is of attempt %d", doc.State, end.Attempt, r.Attempt)
		return
	}
	run := t.runOf(r.Attempt, r.Host)
	switch {
	case run == nil && !complete && (code == codeCannotExecute || code == codeNotFound):
	case run == nil:
		b.report(ResultDiffers, t, r.Host, []*Event{end}, "attempt %d on %s is said to have ended with code %d, and never began", r.Attempt, r.Host, r.ExitCode)
	case run.finished.Event == nil || end != nil && run.finished.At.After(end.At):
		b.report(ResultDiffers, t, r.Host, []*Event{run.began.Event, end, run.finished.Event}, "the result was stored before the payload's end")
	case run.finished.Code != code || r.ExitCode != code || complete && !run.finished.Complete:
		b.report(ResultDiffers, t, r.Host, []*Event{run.finished.Event, end}, "it is %s with code %d; the payload ended with code %d, complete %t",
			doc.State, r.ExitCode, run.finished.Code, run.finished.Complete)
	}
}

// runOf returns the last execution of an attempt on a host, nil where there is
// none.
func (t *trace) runOf(attempt int, host string) *execution {
	for i := len(t.runs) - 1; i >= 0; i-- {
		if r := &t.runs[i]; r.began.Attempt == attempt && r.began.Host == host {
			return r
		}
	}
	return nil
}

// tailDiffers reports output of another payload than that of the result: a
// witness writes "witness <job> <attempt> <host>" lines.
func (b *book) tailDiffers(t *trace, doc *job.Job) {
	const mark = "witness "
	if doc.Result == nil {
		return
	}
	for rest := doc.Result.LogTail; ; {
		i := strings.Index(rest, mark)
		if i < 0 {
			return
		}
		line := rest[i+len(mark):]
		rest = line
		if n := strings.IndexByte(line, '\n'); n >= 0 {
			line = line[:n]
		}
		if !isWitness(line, t.id, doc.Result.Attempt, doc.Result.Host) {
			b.report(ResultDiffers, t, doc.Result.Host, []*Event{t.ended()}, "the result of attempt %d on %s has the output of another: %q",
				doc.Result.Attempt, doc.Result.Host, line)
			return
		}
	}
}

func isWitness(line string, id job.ID, attempt int, host string) bool {
	var room [20]byte
	line, ok := strings.CutPrefix(line, string(id))
	if !ok || !strings.HasPrefix(line, " ") {
		return false
	}
	number, name, ok := strings.Cut(line[1:], " ")
	return ok && number == string(strconv.AppendInt(room[:0], int64(attempt), 10)) && strings.TrimSpace(name) == host
}

// leftOver: at the end nothing runs, waits or holds a device.
func (b *book) leftOver() {
	for _, what := range b.end.Leftovers {
		b.report(LeftOver, nil, "", nil, "%s", what)
	}
	for _, t := range b.traces {
		for _, r := range t.runs {
			if r.finished.Event == nil {
				b.report(LeftOver, t, r.began.Host, []*Event{r.began.Event}, "attempt %d runs at the end, on devices %v", r.began.Attempt, r.began.Devices)
			}
		}
	}
}

// slowRecovery: when nothing is broken or drained any more, every confirmed job
// that nobody holds ends within a bound. One that does not end at all is lost.
func (b *book) slowRecovery(t *trace) {
	end := t.ended()
	if b.rules.Recovery == 0 || b.calm.IsZero() || t.submitted == nil || end == nil {
		return
	}
	from := latest(b.calm, t.submitted.At)
	if n := len(t.holds); n > 0 && t.holds[n-1].to.Event != nil {
		from = latest(from, t.holds[n-1].to.At)
	}
	if took := end.At.Sub(from); took > b.rules.Recovery {
		b.report(SlowRecovery, t, end.Host, []*Event{t.submitted, end}, "it ended %s after the last fault or drain, its confirmation and its release, want %s at most",
			took.Round(time.Millisecond), b.rules.Recovery)
	}
}
