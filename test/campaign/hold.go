package campaign

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // to lock the ledger's file from outside
)

// heldTable is made inside the transaction that is never committed.
const heldTable = "campaign_never_committed"

const heldLine = "held"

// HoldLedger takes the write lock of a SQLite ledger, writes, says so on stdout
// and keeps both until it is killed. It is a process of its own, so that kill -9
// leaves the lock and the half transaction to the kernel and to SQLite.
func HoldLedger(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(60000)")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, statement := range []string{
		"BEGIN EXCLUSIVE", "CREATE TABLE " + heldTable + " (filler BLOB)",
		"INSERT INTO " + heldTable + " VALUES (zeroblob(100000))",
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	fmt.Println(heldLine)
	<-ctx.Done()
	return nil
}

// holdFor lets a process hold a SQLite ledger for so long, then kills it. It
// returns when the ledger was held first.
func holdFor(ctx context.Context, program, path string, lasts time.Duration) (held time.Time, err error) {
	cmd := exec.Command(program, "hold-ledger", path)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return held, err
	}
	if err := cmd.Start(); err != nil {
		return held, err
	}
	defer cmd.Wait()         //nolint:errcheck // killed: always an error
	defer cmd.Process.Kill() //nolint:errcheck // ended meanwhile: as good
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	word, err := bufio.NewReader(out).ReadString('\n')
	if strings.TrimSpace(word) != heldLine {
		return held, fmt.Errorf("hold the ledger: it said %q: %w", word, err)
	}
	held = time.Now()
	return held, pause(ctx, lasts)
}

// leftOfHold says what a killed holder left in a SQLite ledger; "" for nothing.
func leftOfHold(ctx context.Context, path string) (string, error) {
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(60000)")
	if err != nil {
		return "", err
	}
	defer db.Close()
	var name string
	err = db.QueryRowContext(ctx, "SELECT name FROM sqlite_master WHERE name = ?", heldTable).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return name, err
}

// pause lets time pass: how long a fault lasts is part of it.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
