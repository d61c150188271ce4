package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"gpuqd/test/history"
)

// Report tells a broken history to a person: what is broken, the plan to run
// again, and the job's own story with what the daemons logged about it.
func Report(t *testing.T, p Plan, broken history.Invariant) string {
	log := &lines{}
	out := Run(t, p, log)
	var b strings.Builder
	for _, v := range out.Violations {
		fmt.Fprintf(&b, "broken: %s: job %s %s: %s\n", v.Invariant, v.Job, v.Host, v.Detail)
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		panic("a plan is plain data: " + err.Error())
	}
	fmt.Fprintf(&b, "plan:\n%s\n", text)
	for _, v := range out.Violations {
		if v.Invariant == broken {
			fmt.Fprintf(&b, "story of job %s:\n%s\n", v.Job, history.Story(out.Events, v.Job))
			break
		}
	}
	fmt.Fprintf(&b, "the daemons' log:\n%s", strings.Join(log.all, "\n"))
	return b.String()
}

// lines is a slog.Handler that keeps its lines.
type lines struct {
	attrs []slog.Attr
	all   []string
	root  *lines
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) WithGroup(string) slog.Handler            { return l }

func (l *lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &lines{attrs: append(append([]slog.Attr{}, l.attrs...), attrs...), root: l.top()}
}

func (l *lines) top() *lines {
	if l.root != nil {
		return l.root
	}
	return l
}

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-5s", time.Now().Format("04:05.000"), r.Level)
	for _, a := range l.attrs {
		fmt.Fprintf(&b, " %s", a.Value)
	}
	fmt.Fprintf(&b, " %s", r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
		return true
	})
	top := l.top()
	top.all = append(top.all, b.String())
	return nil
}
