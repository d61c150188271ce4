package sqlite_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"gpuqd/daemon/ledger"
	"gpuqd/daemon/ledger/ledgertest"
	"gpuqd/daemon/ledger/sqlite"
)

// The test binary plays other processes on the same file; these variables say
// which part and where.
const (
	roleVariable = "GPUQD_SQLITE_TEST_ROLE"
	pathVariable = "GPUQD_SQLITE_TEST_PATH"
)

var roles = map[string]func(path string) error{
	"hold":   holdLock,
	"count":  countForever,
	"hammer": hammer,
}

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(roleVariable)]
	if !ok {
		ledgertest.Main(m, openAt)
	}
	if err := role(os.Getenv(pathVariable)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// other is another process, in one of the roles.
type other struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startOther(t testing.TB, role, path string) *other {
	t.Helper()
	o := &other{cmd: exec.Command(os.Args[0], "-test.run=^$")}
	o.cmd.Env = append(os.Environ(), roleVariable+"="+role, pathVariable+"="+path)
	o.cmd.Stderr = os.Stderr
	in, err := o.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := o.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	o.in, o.out = in, bufio.NewReader(out)
	if err := o.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.kill)
	return o
}

// kill ends the process with SIGKILL, unless it is over.
func (o *other) kill() {
	if o.cmd.ProcessState == nil {
		o.cmd.Process.Kill()
		o.cmd.Wait()
	}
}

// line returns the next line that the process prints.
func (o *other) line(t testing.TB) string {
	t.Helper()
	line, err := o.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the other process: %v", err)
	}
	return line[:len(line)-1]
}

// holdLock takes the file's exclusive lock and keeps it until stdin ends.
func holdLock(path string) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("BEGIN EXCLUSIVE"); err != nil {
		return err
	}
	fmt.Println("held")
	_, err = io.Copy(io.Discard, os.Stdin)
	if _, rollbackErr := db.Exec("ROLLBACK"); err == nil {
		err = rollbackErr
	}
	return err
}

// countForever increments the document "counter" and prints each value that was
// acknowledged, until it is killed.
func countForever(path string) error {
	store, err := openAt(context.Background(), path)
	if err != nil {
		return err
	}
	for {
		doc, err := store.Update(context.Background(), ledger.Scratch, "counter", nil, ledger.Update{Inc: map[string]int64{"n": 1}})
		if err != nil {
			return err
		}
		var counter struct{ N int }
		if err := json.Unmarshal(doc, &counter); err != nil {
			return err
		}
		fmt.Println(counter.N)
	}
}

// latencies is what a hammering process reports.
type latencies struct{ Count, P50, P99, Max int } // times in microseconds

// hammer does compare-and-sets on a document of its own for a while.
func hammer(path string) error {
	const length = 3 * time.Second
	store, err := sqlite.Open(context.Background(), sqlite.Options{Path: path})
	if err != nil {
		return err
	}
	defer store.Close()
	id := strconv.Itoa(os.Getpid())
	if err := store.Insert(context.Background(), ledger.Scratch, id, []byte(`{"id":"`+id+`","n":0}`)); err != nil {
		return err
	}
	var took []int
	for start := time.Now(); time.Since(start) < length; {
		began := time.Now()
		if err := compareAndSet(store, id, len(took)); err != nil {
			return err
		}
		took = append(took, int(time.Since(began).Microseconds()))
	}
	slices.Sort(took)
	return json.NewEncoder(os.Stdout).Encode(latencies{len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1]})
}

func compareAndSet(store ledger.Store, id string, n int) error {
	_, err := store.Update(context.Background(), ledger.Scratch, id,
		[]ledger.Cond{{Field: "n", Op: ledger.Eq, Value: n}}, ledger.Update{Set: map[string]any{"n": n + 1}})
	return err
}
