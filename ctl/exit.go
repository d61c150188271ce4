package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"gpuqd/daemon/control"
)

// Exit codes of gpuqctl itself.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitUnavailable = 3
	exitNotFound    = 4
	exitForbidden   = 5
	exitConflict    = 6
	exitUnknown     = 7
	exitInterrupted = 130 // 128 + SIGINT, as shells have it
)

// Exit codes of wait and submit --wait for jobs whose command gives none.
const (
	exitDead      = 120
	exitKilled    = 121
	exitLost      = 122
	exitTimeLimit = 124 // as timeout(1)
	exitNoOutcome = 125 // as env(1), timeout(1) and container runners for a failure of their own
)

// exitTable documents every code, in the order of the help.
var exitTable = []struct {
	code    string
	meaning string
}{
	{"0", "done"},
	{"1", "another error than those below"},
	{"2", "the command line, or a spec, is wrong; nothing was done"},
	{"3", "no daemon, or not the one host that could, answers; nothing was done"},
	{"4", "no such job, host, device, attempt or message"},
	{"5", "the job is another user's, or the verb is for operators"},
	{"6", "what is there forbids it, such as another spec under the same key"},
	{"7", "whether it was done is not known; doing it again as the message says is safe"},
	{"130", "interrupted; jobs go on"},
}

// waitExitTable is added to it by wait and submit --wait.
var waitExitTable = []struct {
	code    string
	meaning string
}{
	{"0", "every job succeeded"},
	{"N", "the exit code of the first job, in the order given, that did not succeed"},
	{"126", "its command is no program, and 127: there is no such command"},
	{"128+N", "its command was ended by signal N"},
	{"124", "it reached its time limit"},
	{"120", "it is dead: it expired, was refused, or took hosts down"},
	{"121", "a person killed it"},
	{"122", "it failed without an exit code of its command: its hosts or devices were lost"},
	{"125", "gpuqctl cannot tell what became of it, or could not submit it"},
	{"2", "the command line, or the spec, is wrong"},
	{"130", "interrupted; jobs go on"},
}

func exitCodesHelp() string { return codesHelp("Exit codes:", exitTable) }

func waitCodesHelp() string {
	return codesHelp("Exit codes (a command may use any of them itself; the last line on stderr tells):", waitExitTable)
}

func codesHelp(title string, table []struct{ code, meaning string }) string {
	var b strings.Builder
	b.WriteString(title)
	for _, row := range table {
		fmt.Fprintf(&b, "\n  %5s  %s", row.code, row.meaning)
	}
	return b.String()
}

// exitError ends gpuqctl with a code of its own choice; without err nothing is
// printed any more.
type exitError struct {
	code int
	err  error
}

// Error implements error.
func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

// Unwrap gives the cause to errors.Is.
func (e *exitError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// exitCode returns the code that an error ends gpuqctl with.
func exitCode(ctx context.Context, err error) int {
	var exit *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return exit.code
	case errors.Is(err, control.ErrUnknownOutcome):
		return exitUnknown
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.Is(err, control.ErrBadRequest):
		return exitUsage
	case errors.Is(err, control.ErrUnavailable), errors.Is(err, control.ErrNoHost):
		return exitUnavailable
	case errors.Is(err, control.ErrNotFound):
		return exitNotFound
	case errors.Is(err, control.ErrForbidden):
		return exitForbidden
	case errors.Is(err, control.ErrConflict):
		return exitConflict
	}
	return exitFailure
}
