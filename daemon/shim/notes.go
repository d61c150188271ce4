package main

import (
	"os"
	"sync"
	"time"
)

// notebook writes lines to stderr apart from whoever has something to say: the
// shim's log is on the disk that may just be what hangs.
type notebook struct {
	start sync.Once
	lines chan entry
}

// entry is a line, or the end of a flush.
type entry struct {
	line    string
	written chan struct{} // closed once what came before is written; nil for a line
}

// notesWaiting bounds the lines that wait for the disk.
const notesWaiting = 64

// flushWait bounds the wait for them at the end.
const flushWait = time.Second

var notes = &notebook{lines: make(chan entry, notesWaiting)}

func (n *notebook) add(line string) {
	n.start.Do(func() { go n.write() })
	select {
	case n.lines <- entry{line: line}:
	default:
	}
}

func (n *notebook) write() {
	for e := range n.lines {
		if e.written != nil {
			close(e.written)
			continue
		}
		_, _ = os.Stderr.WriteString(e.line) // there is nowhere else to complain
	}
}

// flush waits for what was said, but not for a disk that hangs.
func (n *notebook) flush() {
	n.start.Do(func() { go n.write() })
	end := entry{written: make(chan struct{})}
	timeout := time.After(flushWait)
	select {
	case n.lines <- end:
	case <-timeout:
		return
	}
	select {
	case <-end.written:
	case <-timeout:
	}
}
