package ledgertest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"gpuqd/daemon/ledger"
)

// OpenAt opens the store under test from another process, by an address that
// the test chose: a path, a connection string.
type OpenAt func(ctx context.Context, address string) (ledger.Store, error)

// order tells a racing process what to do; it travels in the environment.
type order struct {
	Address string
	Name    string   // of the racer
	Prizes  []string // documents of which each may be won once
	Counter string   // document whose n each racer increments
	Incs    int
}

// tally is what a racing process reports when it is done.
type tally struct{ Won []string }

const orderVariable = "GPUQD_LEDGERTEST_ORDER"

// Main is the TestMain of a package that calls RunProcesses: started again as a
// racer, the test binary does only that.
func Main(m *testing.M, open OpenAt) {
	text := os.Getenv(orderVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	if err := raceInProcess(text, open); err != nil {
		fmt.Fprintln(os.Stderr, "racer:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// raceInProcess is the life of a racer: open, say so, wait for the start, race,
// report.
func raceInProcess(text string, open OpenAt) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	store, err := open(ctx, o.Address)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.Prepare(ctx); err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return fmt.Errorf("wait for the start: %w", err)
	}
	var t tally
	for _, prize := range o.Prizes {
		switch err := grab(ctx, store, prize, o.Name); {
		case err == nil:
			t.Won = append(t.Won, prize)
		case !errors.Is(err, ledger.ErrNoMatch):
			return err
		}
	}
	for range o.Incs {
		if _, err := store.Update(ctx, ledger.Scratch, o.Counter, nil, ledger.Update{Inc: map[string]int64{"n": 1}}); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(t)
}

// RunProcesses races several processes on one store, as the daemons of one
// machine or of many do. The package's TestMain must be Main.
func RunProcesses(t *testing.T, address string, open Open) {
	const (
		processes = 4
		prizes    = 40
		incs      = 25
	)
	store := open(t)
	if err := store.Prepare(testContext(t)); err != nil {
		t.Fatal(err)
	}
	o := order{Address: address, Counter: put(t, store, `"n": 0`), Incs: incs}
	for range prizes {
		o.Prizes = append(o.Prizes, put(t, store, `"winner": null, "wins": 0`))
	}
	racers := make([]*racer, processes)
	for i := range racers {
		o.Name = fmt.Sprintf("racer-%d", i)
		racers[i] = startRacer(t, o)
	}
	for _, r := range racers {
		r.wantLine(t, "ready\n")
	}
	for _, r := range racers {
		if _, err := io.WriteString(r.in, "go\n"); err != nil {
			t.Fatal(err)
		}
	}
	winner := make(map[string]string)
	for _, r := range racers {
		for _, prize := range r.finish(t).Won {
			if winner[prize] != "" {
				t.Errorf("%s and %s both won %s", winner[prize], r.name, prize)
			}
			winner[prize] = r.name
		}
	}
	for _, prize := range o.Prizes {
		wantStored(t, store, prize, fmt.Sprintf(`"winner": %q, "wins": 1`, winner[prize]))
	}
	wantStored(t, store, o.Counter, fmt.Sprintf(`"n": %d`, processes*incs))
}

// racer is one process of RunProcesses, as its parent sees it.
type racer struct {
	name   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer // valid once the process has been waited for
}

func startRacer(t *testing.T, o order) *racer {
	t.Helper()
	slices.Sort(o.Prizes) // one order for all, so that they meet
	text := mustJSON(t, o)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), callTimeout)
	t.Cleanup(cancel)
	r := &racer{name: o.Name, cmd: exec.CommandContext(ctx, os.Args[0], "-test.run=^$")}
	r.cmd.Env = append(os.Environ(), orderVariable+"="+string(text))
	r.cmd.Stderr = &r.stderr
	r.cmd.WaitDelay = time.Second
	in, err := r.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.in, r.out = in, bufio.NewReader(out)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.cmd.ProcessState == nil { // the test gave up before finish
			r.cmd.Process.Kill()
			r.cmd.Wait()
		}
	})
	return r
}

func (r *racer) wantLine(t *testing.T, want string) {
	t.Helper()
	line, err := r.out.ReadString('\n')
	if line != want {
		waitErr := r.cmd.Wait()
		t.Fatalf("%s said %q (%v), want %q; it ended with %v: %s", r.name, line, err, want, waitErr, r.stderr.String())
	}
}

func (r *racer) finish(t *testing.T) tally {
	t.Helper()
	var result tally
	err := json.NewDecoder(r.out).Decode(&result)
	if err := errors.Join(err, r.cmd.Wait()); err != nil {
		t.Fatalf("%s: %v: %s", r.name, err, r.stderr.String())
	}
	return result
}
