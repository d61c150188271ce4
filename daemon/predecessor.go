package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gpuqd/daemon/durable"
)

// end is how the daemon before this one ended, as far as its state directory tells.
type end string

const (
	endNone    end = "none"      // there was none
	endOrdered end = "ordered"   // it was told to stop, and did
	endDied    end = "died"      // it did not get to its end: killed, crashed, or gave up with an error
	endHost    end = "host_lost" // nor did it, and the host has booted since
)

// ends lists every one.
var ends = []end{endNone, endOrdered, endDied, endHost}

// endedInOrder is what the mark of a daemon says that has ended in order; before that
// it is the boot that the daemon runs in.
const endedInOrder = "ended"

// mark is the file by which the next daemon learns how this one ended.
type mark struct{ path string }

// begin reads how the last daemon ended and marks that this one runs. It tells as much
// as it could read, also with an error. The caller holds the state directory's lock.
func (m mark) begin(bootID string) (end, error) {
	text, err := os.ReadFile(m.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read how the last daemon ended: %w", err)
	}
	last := endNone
	switch was := strings.TrimSpace(string(text)); {
	case err != nil:
	case was == endedInOrder:
		last = endOrdered
	case was == bootID:
		last = endDied
	default:
		last = endHost
	}
	return last, m.write(bootID)
}

// ended marks that this daemon has ended in order.
func (m mark) ended() error { return m.write(endedInOrder) }

func (m mark) write(text string) error {
	if err := durable.Replace(m.path, []byte(text+"\n")); err != nil {
		return fmt.Errorf("mark how this daemon fares: %w", err)
	}
	return nil
}

// markIn is the mark in a state directory.
func markIn(stateDir string) mark { return mark{filepath.Join(stateDir, "daemon")} }
