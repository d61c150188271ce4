package cluster

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress tells a person each step, one line each.
type progress struct {
	mu sync.Mutex
	to io.Writer
}

func (p *progress) say(step, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// Nobody reads it any more: no reason to stop.
	_, _ = fmt.Fprintf(p.to, "  %-14s %s\n", step, fmt.Sprintf(format, args...))
}

// took tells a step that is done.
func (p *progress) took(step, what string, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintln(p.to, progressLine(step, what, took))
}

func progressLine(step, what string, took time.Duration) string {
	return fmt.Sprintf("  %-14s %-40s %5.1f s", step, what, took.Seconds())
}
