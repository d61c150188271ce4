package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Way is one way to a daemon: a socket, or the broker.
type Way interface {
	// Name tells it from the others, for a person.
	Name() string
	// Ask sends one request and returns the response, both as they travel.
	// errSent, wrapped, says that the request left and no answer came; after any
	// other error it has not been carried out.
	Ask(ctx context.Context, verb Verb, request []byte) ([]byte, error)
	// Close ends what Ask has opened.
	Close()
}

// errSent marks the error of a request that may have been carried out.
var errSent = errors.New("no answer came")

// Client asks daemons. It tries its ways in order, so that a daemon that is
// gone, or was killed over the request, is passed over. Every request may be
// carried out twice without harm: a submission has its UUID, a kill is a flag.
// Its methods may be called by several goroutines at once, and return *Error
// where the daemon refused or none answered.
type Client struct {
	ways []Way
	// Patience is how long Submit and Kill repeat a request that no way has
	// answered; the other methods try every way once.
	Patience time.Duration
	// AttemptTimeout bounds one request one way.
	AttemptTimeout time.Duration
	// Notice, if set, is told once per request that it is being repeated.
	Notice func(text string)
}

// Defaults of a Client.
const (
	PatienceDefault       = 30 * time.Second
	AttemptTimeoutDefault = 15 * time.Second
)

// The wait before every way is tried again.
const (
	repeatPauseMin = 100 * time.Millisecond
	repeatPauseMax = 2 * time.Second
)

// NewClient returns a client that tries these ways in this order.
func NewClient(ways ...Way) *Client {
	return &Client{ways: ways, Patience: PatienceDefault, AttemptTimeout: AttemptTimeoutDefault}
}

// Close ends the client's connections.
func (c *Client) Close() {
	for _, w := range c.ways {
		w.Close()
	}
}

// question is one request on its way.
type question struct {
	verb    Verb
	changes bool          // repeat until answered, and tell an unknown outcome from none
	hold    time.Duration // how long the daemon may hold the answer
	what    string        // in the words of an error: "submission of …"
	verify  string        // what tells whether it was carried out

	sent   bool     // one attempt may have been carried out
	failed []string // why each way failed in the last round
	answer *Error   // a daemon's own word that it cannot answer now
}

// ask sends a request until it has an answer, decoded into reply.
func (c *Client) ask(ctx context.Context, q question, args, reply any) error {
	request, err := encodeRequest(q.verb, args)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(c.Patience)
	for pause := repeatPauseMin; ; pause = min(2*pause, repeatPauseMax) {
		data, err := c.round(ctx, &q, request)
		if err != nil {
			return err
		}
		if data != nil {
			if err := json.Unmarshal(data, reply); err != nil {
				return Errorf(CodeInternal, "use a gpuqctl of the daemon's version", "the answer to %s is not understood: %v", q.verb, err)
			}
			return nil
		}
		if !q.changes || ctx.Err() != nil || time.Now().Add(pause).After(deadline) {
			return q.exhausted(ctx)
		}
		if c.Notice != nil && pause == repeatPauseMin {
			c.Notice(fmt.Sprintf("no daemon has answered the %s yet (%s); trying again for up to %s",
				q.what, strings.Join(q.failed, "; "), c.Patience))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

func encodeRequest(verb Verb, args any) ([]byte, error) {
	raw, err := json.Marshal(args)
	if err != nil {
		return nil, Errorf(CodeBadRequest, "", "encode the %s request: %v", verb, err)
	}
	body, err := json.Marshal(Request{Schema: Schema, Verb: verb, Args: raw})
	if err != nil {
		return nil, Errorf(CodeBadRequest, "", "encode the %s request: %v", verb, err)
	}
	if len(body) > RequestBytesMax {
		return nil, errOversized
	}
	return body, nil
}

// round tries every way once. It returns the data of an answer, the error of a
// refusal, or neither when no way gave an answer that settles it.
func (c *Client) round(ctx context.Context, q *question, request []byte) (json.RawMessage, error) {
	q.failed, q.answer = nil, nil
	for _, way := range c.ways {
		if ctx.Err() != nil {
			return nil, nil
		}
		res, err := c.attempt(ctx, way, q, request)
		switch {
		case err != nil:
			q.sent = q.sent || errors.Is(err, errSent)
			q.failed = append(q.failed, oneLine(way.Name()+": "+err.Error()))
		case res.Error == nil:
			return res.Data, nil
		case res.Error.Code == CodeUnavailable, res.Error.Code == CodeUnknownOutcome && q.changes:
			// Another daemon may reach what this one does not.
			q.sent = q.sent || res.Error.Code == CodeUnknownOutcome
			q.failed = append(q.failed, oneLine(way.Name()+": "+res.Error.Message))
			q.answer = res.Error
		case res.Error.Code == CodeForbidden && q.answer != nil:
			// This way alone knows the caller as less than the one whose answer that was,
			// which took the request on.
			q.failed = append(q.failed, oneLine(way.Name()+": "+res.Error.Message))
		default:
			return nil, res.Error
		}
	}
	return nil, nil
}

// oneLine joins the lines of an error that has several, such as one per node.
func oneLine(text string) string { return strings.ReplaceAll(text, "\n", ", ") }

func (c *Client) attempt(ctx context.Context, way Way, q *question, request []byte) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, c.AttemptTimeout+q.hold)
	defer cancel()
	body, err := way.Ask(ctx, q.verb, request)
	if err != nil {
		return Response{}, err
	}
	var res Response
	if err := json.Unmarshal(body, &res); err != nil {
		return Response{}, fmt.Errorf("%w that can be understood: %w", errSent, err)
	}
	if res.Schema != Schema {
		return Response{}, fmt.Errorf("%w that can be understood: it has schema version %d, this gpuqctl speaks %d", errSent, res.Schema, Schema)
	}
	if res.Error == nil && res.Data == nil {
		return Response{}, fmt.Errorf("%w that can be understood: it has neither data nor an error", errSent)
	}
	return res, nil
}

// exhausted says on one line what was tried and what to do.
func (q *question) exhausted(ctx context.Context) *Error {
	tried := strings.Join(q.failed, "; ")
	if ctx.Err() != nil {
		tried = "it was interrupted"
	}
	if q.changes && q.sent {
		return Errorf(CodeUnknownOutcome, q.verify, "whether the %s was carried out is not known (%s)", q.what, tried)
	}
	if q.answer != nil && len(q.failed) == 1 {
		return q.answer
	}
	if ctx.Err() != nil {
		return Errorf(CodeUnavailable, "", "the %s was interrupted and not sent", q.what)
	}
	if tried == "" {
		return Errorf(CodeUnavailable, "name the socket of a local gpuqd, or the broker, in the configuration", "there is no way to a daemon")
	}
	return Errorf(CodeUnavailable, "see whether gpuqd runs on this host, or name another way in the configuration",
		"no daemon answered (%s)", tried)
}
