package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
)

// input is what gpuqd asks for on standard input, one line each: "look 7" asks for
// an inventory at once, which then says that it answers look 7. Several that come
// together are answered as one, the highest.
type input struct {
	highest atomic.Uint64
	asked   chan struct{} // capacity 1: a look was asked for
}

func newInput() *input { return &input{asked: make(chan struct{}, 1)} }

// take returns the highest look asked for so far, 0 for none, and with it answers
// all that were signalled.
func (in *input) take() uint64 {
	select {
	case <-in.asked:
	default:
	}
	return in.highest.Load()
}

// follow reads lines and returns a context that also ends when from does, as it
// does when the process at its other end dies. Its goroutine lives as long as from.
// Lines of no meaning are noted once.
func (in *input) follow(ctx context.Context, from io.Reader, note func(string, ...any)) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		noted, long := false, false
		for lines := bufio.NewReaderSize(from, 64); ; {
			line, err := lines.ReadSlice('\n')
			whole := err == nil && !long
			long = errors.Is(err, bufio.ErrBufferFull)
			if whole && in.hear(string(line)) {
				continue
			}
			if !noted && len(line) > 0 {
				noted = true
				note("a line on standard input is none that it knows: %q; further ones are passed over", line)
			}
			if err != nil && !long {
				return // an error is an end too
			}
		}
	}()
	return ctx
}

// hear takes one line in; false means that it has no meaning.
func (in *input) hear(line string) bool {
	number, ok := strings.CutPrefix(strings.TrimSpace(line), "look ")
	if !ok {
		return false
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return false
	}
	for {
		old := in.highest.Load()
		if n <= old || in.highest.CompareAndSwap(old, n) {
			break
		}
	}
	poke(in.asked)
	return true
}

// noteTo returns a function that writes notes for a person. One that cannot be
// written is lost.
func noteTo(w io.Writer) func(string, ...any) {
	return func(format string, args ...any) {
		fmt.Fprintf(w, "gpuqd-device: "+format+"\n", args...)
	}
}
