package cluster

import (
	"bytes"
	"context"
	"iter"
	"sync"
)

// history keeps the lines written to it, so that who comes late sees them all.
type history struct {
	mu      sync.Mutex
	lines   []string
	closed  bool
	changed chan struct{} // closed and replaced at each change
}

func newHistory() *history { return &history{changed: make(chan struct{})} }

// Write adds whole lines.
func (h *history) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for line := range bytes.Lines(p) {
		h.lines = append(h.lines, string(bytes.TrimSuffix(line, []byte("\n"))))
	}
	h.tell()
	return len(p), nil
}

// close says that no more lines will come.
func (h *history) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.tell()
}

func (h *history) tell() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// follow yields all lines, those to come too, until close or ctx's end.
func (h *history) follow(ctx context.Context) iter.Seq[string] {
	return func(yield func(string) bool) {
		for next := 0; ; {
			h.mu.Lock()
			lines, closed, changed := h.lines[next:], h.closed, h.changed
			h.mu.Unlock()
			for _, line := range lines {
				if !yield(line) {
					return
				}
			}
			next += len(lines)
			if closed {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}
