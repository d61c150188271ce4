package control

import (
	"context"
	"slices"
	"time"
)

// OK stands beside the codes of failure in what Options.Observe is told.
const OK = "ok"

// unknownVerb is what Options.Observe is told of a verb that is none, so that
// the names stay few whatever clients send.
const unknownVerb = "unknown"

// Verbs lists every verb, sorted.
func Verbs() []Verb {
	list := make([]Verb, 0, len(verbs))
	for v := range verbs {
		list = append(list, v)
	}
	slices.Sort(list)
	return list
}

// dispatch is Dispatch for the server's own handler. It tells of the outcome.
func (s *Server) dispatch(ctx context.Context, c Caller, req Request) Response {
	began := time.Now()
	r := Dispatch(ctx, s.handler, c, req)
	if s.opts.Observe == nil {
		return r
	}
	verb, code := string(req.Verb), OK
	if _, known := verbs[req.Verb]; !known {
		verb = unknownVerb
	}
	if r.Error != nil {
		code = string(r.Error.Code)
	}
	s.opts.Observe(verb, code, time.Since(began))
	return r
}
