// Command gpuq-simulate runs a range of seeds of the simulation on all cores. It
// can be ended at any time: what a build of the simulation has passed it does not
// run again.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// chunk is how many seeds one process runs, and what is run again at most after
// an end in between.
const chunk = 1000

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gpuq-simulate:", err)
		os.Exit(1)
	}
}

// campaign is a range of seeds on the way.
type campaign struct {
	binary string // of the simulation's tests
	book   string // file of the chunks that passed

	mu     sync.Mutex
	passed map[uint64]bool // by first seed
	begun  time.Time
	seeds  uint64 // passed in this run
	total  uint64 // of the whole range
	done   uint64 // of the whole range, earlier runs included
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("gpuq-simulate", flag.ContinueOnError)
	binary := flags.String("binary", "bin/simulate.test", "the simulation, as `go test -c ./test/sim` builds it")
	state := flags.String("state", ".simulated", "directory that remembers what has passed")
	from := flags.Uint64("from", 0, "first seed")
	to := flags.Uint64("to", 1_000_000, "seed after the last")
	workers := flags.Int("workers", runtime.NumCPU(), "processes at a time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *from%chunk != 0 || *to%chunk != 0 || *to <= *from {
		return fmt.Errorf("seeds %d to %d: want multiples of %d, the second larger", *from, *to, chunk)
	}
	c, err := open(*binary, *state)
	if err != nil {
		return err
	}
	return c.run(ctx, *from, *to, *workers)
}

// open reads what this very build has passed.
func open(binary, state string) (*campaign, error) {
	file, err := os.Open(binary)
	if err != nil {
		return nil, fmt.Errorf("%w: make simulate builds it", err)
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(state, 0o755); err != nil {
		return nil, err
	}
	c := &campaign{
		binary: binary, book: filepath.Join(state, fmt.Sprintf("%x", hash.Sum(nil)[:8])), passed: map[uint64]bool{},
	}
	text, err := os.ReadFile(c.book)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for lines := bufio.NewScanner(strings.NewReader(string(text))); lines.Scan(); {
		if first, err := strconv.ParseUint(lines.Text(), 10, 64); err == nil {
			c.passed[first] = true
		}
	}
	return c, nil
}

func (c *campaign) run(ctx context.Context, from, to uint64, workers int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.begun, c.total = time.Now(), to-from
	todo := make(chan uint64)
	var work sync.WaitGroup
	for range workers {
		work.Go(func() {
			for first := range todo {
				if err := c.chunk(ctx, first); err != nil {
					cancel(err)
				}
			}
		})
	}
	for first := from; first < to && ctx.Err() == nil; first += chunk {
		if c.passed[first] {
			c.done += chunk
			continue
		}
		select {
		case todo <- first:
		case <-ctx.Done():
		}
	}
	close(todo)
	work.Wait()
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("%w; %d of %d histories have passed, the same command goes on", err, c.done, c.total)
	}
	fmt.Printf("all %d histories from seed %d to %d passed; %d of them now, in %s\n", c.total, from, to, c.seeds,
		time.Since(c.begun).Round(time.Second))
	return nil
}

// chunk runs the seeds from first on, and remembers that they passed.
func (c *campaign) chunk(ctx context.Context, first uint64) error {
	out, err := c.simulate(ctx, first, first+chunk)
	if ctx.Err() != nil {
		return nil // the other end's reason counts
	}
	if err != nil && !strings.Contains(out, "breaks") {
		// It ended in the middle of a history, without a word: which?
		out, _ = c.simulate(ctx, first, first+chunk, "-sim.seeds")
	}
	if err != nil {
		return fmt.Errorf("seeds %d to %d: %w\n%s", first, first+chunk, err, tail(out))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seeds += chunk
	c.done += chunk
	if c.seeds%(10*chunk) == 0 {
		fmt.Printf("%d of %d histories passed, %.0f a second\n", c.done, c.total, float64(c.seeds)/time.Since(c.begun).Seconds())
	}
	return c.remember(first)
}

func (c *campaign) remember(first uint64) error {
	book, err := os.OpenFile(c.book, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(book, first)
	return errors.Join(err, book.Close())
}

func (c *campaign) simulate(ctx context.Context, from, to uint64, more ...string) (string, error) {
	args := append([]string{
		"-test.run", "^TestSimulate$", "-test.timeout", "30m",
		"-sim.from", strconv.FormatUint(from, 10), "-sim.to", strconv.FormatUint(to, 10),
	}, more...)
	out, err := exec.CommandContext(ctx, c.binary, args...).CombinedOutput()
	return string(out), err
}

// tail leaves of a long report what fits a screen or two.
func tail(out string) string {
	const most = 12_000
	if len(out) > most {
		return out[:most/2] + "\n[…]\n" + out[len(out)-most/2:]
	}
	return out
}
