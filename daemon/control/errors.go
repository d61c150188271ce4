package control

import (
	"context"
	"errors"
	"fmt"

	"gpuqd/daemon/job"
)

// Code is a kind of refusal or failure. It tells a program what to do next.
type Code string

// The codes: a closed list.
const (
	CodeBadRequest     Code = "bad_request"     // mend the request
	CodeNotFound       Code = "not_found"       // no such job, host or device
	CodeForbidden      Code = "forbidden"       // the job is another user's
	CodeConflict       Code = "conflict"        // what is there forbids it, such as another spec under the same ID
	CodeUnavailable    Code = "unavailable"     // nothing was done; try again later
	CodeUnknownOutcome Code = "unknown_outcome" // it may have been done; asking again is safe
	CodeNoHost         Code = "no_host"         // the one host that could answer does not
	CodeInternal       Code = "internal"        // a bug, or a store that broke its contract
)

// The same kinds as errors. A Handler returns one of them, wrapped, or an
// *Error; the client returns an *Error that errors.Is matches with them.
var (
	ErrBadRequest     = errors.New("bad request")
	ErrNotFound       = errors.New("not found")
	ErrForbidden      = errors.New("forbidden")
	ErrConflict       = errors.New("conflict")
	ErrUnavailable    = errors.New("unavailable")
	ErrUnknownOutcome = errors.New("outcome unknown")
	ErrNoHost         = errors.New("host out of reach")
	ErrInternal       = errors.New("internal error")
)

// codes pairs every code with its sentinel. Order counts in errorOf: an unknown
// outcome often wraps what made a store unavailable.
var codes = []struct {
	code     Code
	sentinel error
}{
	{CodeUnknownOutcome, ErrUnknownOutcome},
	{CodeBadRequest, ErrBadRequest},
	{CodeNotFound, ErrNotFound},
	{CodeForbidden, ErrForbidden},
	{CodeConflict, ErrConflict},
	{CodeNoHost, ErrNoHost},
	{CodeUnavailable, ErrUnavailable},
	{CodeInternal, ErrInternal},
}

// Codes lists every code.
func Codes() []Code {
	list := make([]Code, 0, len(codes))
	for _, c := range codes {
		list = append(list, c.code)
	}
	return list
}

// Error is a refusal or failure as it travels.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`        // what is wrong, for a person
	Hint    string `json:"hint,omitempty"` // what to do
}

// Errorf returns an error of the given code.
func Errorf(code Code, hint, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// Error implements error: the message and what to do, on one line.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + ": " + e.Hint
}

// Is makes errors.Is(e, ErrNotFound) true for an Error with CodeNotFound, and
// so on. A code of a newer daemon that is not in the list is internal.
func (e *Error) Is(target error) bool {
	for _, c := range codes {
		if c.code == e.Code {
			return target == c.sentinel
		}
	}
	return target == ErrInternal
}

// AsError returns err as it travels: an *Error in its chain as it is, else the
// code of the sentinel in its chain. Of other errors job.ErrMessage is a bad
// request, an ended context unavailable, and the rest internal.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	for _, c := range codes {
		if errors.Is(err, c.sentinel) {
			return &Error{Code: c.code, Message: err.Error()}
		}
	}
	switch {
	case errors.Is(err, job.ErrMessage):
		return &Error{Code: CodeBadRequest, Message: err.Error()}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &Error{Code: CodeUnavailable, Message: err.Error()}
	}
	return &Error{Code: CodeInternal, Message: err.Error()}
}
