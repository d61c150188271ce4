package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Witness is what systemd saw of the end of an attempt's unit: a second witness
// beside the shim, for attempts that it left without an exit record.
//
// Source: systemd.exec(5), $SERVICE_RESULT, $EXIT_CODE and $EXIT_STATUS.
type Witness struct {
	Result       string    `json:"result"`      // success, signal, exit-code, oom-kill, timeout ...
	ExitCode     string    `json:"exit_code"`   // of the shim: exited, killed or dumped
	ExitStatus   string    `json:"exit_status"` // a number, or a signal's name without SIG
	InvocationID string    `json:"invocation_id"`
	Time         time.Time `json:"time"`
}

// WriteWitness writes the witness down, whole or not at all, and on disk. One of
// another start of the unit than the attempt's own is dropped: it tells of a
// shim that found the attempt started, and ran nothing.
func (a *Attempt) WriteWitness(w Witness) error {
	started, ok, err := a.Started()
	if err != nil {
		return err
	}
	if !ok || started.InvocationID != w.InvocationID {
		return nil
	}
	w.Result, w.ExitCode, w.ExitStatus = clip(w.Result, 100), clip(w.ExitCode, 100), clip(w.ExitStatus, 100)
	w.Time = time.Now().UTC()
	data, err := seal(w)
	if err == nil {
		err = a.syncs.writeFile(a.path("witness"), data)
	}
	if err != nil {
		return fmt.Errorf("write witness of attempt %s: %w", a.key, err)
	}
	return nil
}

// Witness returns what systemd saw of the end of the attempt's unit; false where
// it saw nothing, or the shim died with the host.
func (a *Attempt) Witness() (*Witness, bool, error) {
	data, err := os.ReadFile(a.path("witness"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	w := new(Witness)
	ok := false
	if err == nil {
		ok, err = unseal(data, w)
	}
	if err != nil {
		return nil, false, fmt.Errorf("read witness of attempt %s: %w", a.key, err)
	}
	return w, ok, nil
}

// String says for people how the unit ended.
func (w *Witness) String() string {
	switch {
	case w.Result == "oom-kill":
		return "the kernel ended it for want of memory"
	case w.ExitCode == "killed" || w.ExitCode == "dumped":
		return "it was ended by SIG" + w.ExitStatus
	case w.ExitCode == "exited":
		return "it exited with status " + w.ExitStatus
	}
	return "systemd says " + w.Result
}
