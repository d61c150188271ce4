package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/job"
)

// farEnd is the far end of a socket, as a daemon in trouble leaves it: act gets
// each connection with the request that came on it.
func farEnd(t *testing.T, act func(nc net.Conn, request []byte)) string {
	t.Helper()
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(nc).ReadBytes('\n')
			act(nc, line)
			_ = nc.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return path
}

func hangUp(net.Conn, []byte) {}

func answer(body string) func(net.Conn, []byte) {
	return func(nc net.Conn, _ []byte) { _, _ = nc.Write([]byte(body + "\n")) }
}

func TestClientPassesOverADaemon(t *testing.T) {
	living := serve(t, newRecorder(), nil).opts.Socket
	frozen := make(chan struct{})
	defer close(frozen)
	for name, first := range map[string]string{
		"ThatIsNotThere":          socketPath(t),
		"ThatHangsUp":             farEnd(t, hangUp),
		"ThatAnswersHalf":         farEnd(t, answer(`{"schema":1,`)),
		"ThatAnswersNothing":      farEnd(t, answer(`{"schema":1}`)),
		"OfAnotherVersion":        farEnd(t, answer(`{"schema":9,"data":{}}`)),
		"ThatIsStopping":          farEnd(t, answer(string(encode(fail(errStopping))))),
		"ThatRefusesConnections":  farEndThatDoesNotRead(t, encode(fail(errStopping))),
		"ThatIsFrozen":            farEnd(t, func(net.Conn, []byte) { <-frozen }),
		"ThatDoesNotKnowTheEnd":   farEnd(t, answer(string(encode(fail(Errorf(CodeUnknownOutcome, "", "the ledger is gone")))))),
		"WithAnEndlessAnswerLine": farEnd(t, func(nc net.Conn, _ []byte) { endless(nc) }),
	} {
		t.Run(name, func(t *testing.T) {
			c := clientOf(first, living)
			c.AttemptTimeout = 2 * time.Second
			sub := submissionOf("true")
			r, err := c.Submit(t.Context(), sub)
			if err != nil || r.ID != sub.ID || !r.Created {
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
}

// endless writes one line until the reader has had enough.
func endless(nc net.Conn) {
	chunk := []byte(strings.Repeat("x", 1<<20))
	for {
		if _, err := nc.Write(chunk); err != nil {
			return
		}
	}
}

// farEndThatDoesNotRead answers before a request has come, and hangs up.
func farEndThatDoesNotRead(t *testing.T, body []byte) string {
	t.Helper()
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = nc.Write(append(body, '\n'))
			_ = nc.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return path
}

func TestRefusalIsNotTakenToAnotherDaemon(t *testing.T) {
	other := newRecorder()
	second := serve(t, other, nil).opts.Socket
	for _, code := range []Code{CodeBadRequest, CodeNotFound, CodeForbidden, CodeConflict, CodeNoHost, CodeInternal} {
		first := farEnd(t, answer(string(encode(fail(Errorf(code, "", "no"))))))
		_, err := clientOf(first, second).Submit(t.Context(), submissionOf("true"))
		if AsError(err).Code != code || other.submits != 0 {
			t.Errorf("%s: got %v, and the other daemon %d submissions", code, err, other.submits)
		}
	}
}

// The broker knows a person by another name than the socket does, and as no operator.
func TestRefusalAfterADaemonThatTookTheRequestOnIsNoAnswer(t *testing.T) {
	first := farEnd(t, answer(string(encode(fail(Errorf(CodeUnknownOutcome, "", "host h has not answered"))))))
	second := farEnd(t, answer(string(encode(fail(Errorf(CodeForbidden, "", "only operators may"))))))
	c := clientOf(first, second)
	c.Patience = time.Millisecond
	_, err := c.Drain(t.Context(), DrainArgs{Host: "h", Reason: "r"})
	if e := wantErr(t, err, ErrUnknownOutcome); !strings.Contains(e.Error(), "host h has not answered") || !strings.Contains(e.Error(), "only operators may") {
		t.Errorf("got %v", e)
	}
	_, err = clientOf(second, first).Drain(t.Context(), DrainArgs{Host: "h", Reason: "r"})
	wantErr(t, err, ErrForbidden)
}

func TestSubmissionIsRepeatedAsTheSameJob(t *testing.T) {
	var ids []job.ID
	h := newRecorder()
	living := NewServer(h, Options{})
	defer living.Stop()
	flaky := farEnd(t, func(nc net.Conn, request []byte) {
		var req Request
		var sub job.Submission
		if json.Unmarshal(request, &req) == nil && json.Unmarshal(req.Args, &sub) == nil {
			ids = append(ids, sub.ID)
		}
		reply := living.ServeDelivery(t.Context(), "ada", request)
		if len(ids) == 3 { // the answers before are lost with the connection
			_, _ = nc.Write(append(reply, '\n'))
		}
	})
	c := clientOf(flaky)
	c.Patience = time.Minute
	var notices []string
	c.Notice = func(text string) { notices = append(notices, text) }
	sub := submissionOf("true")
	r, err := c.Submit(t.Context(), sub)
	if err != nil || r.ID != sub.ID || r.Created {
		t.Fatalf("got %+v, %v: want the job, taken in before", r, err)
	}
	if len(ids) != 3 || ids[0] != sub.ID || ids[1] != sub.ID || ids[2] != sub.ID || len(h.jobs) != 1 {
		t.Errorf("sent as %v, %d jobs", ids, len(h.jobs))
	}
	if len(notices) != 1 || !strings.Contains(notices[0], string(sub.ID)) {
		t.Errorf("the person was told %q", notices)
	}
}

func TestNoAnswer(t *testing.T) {
	nowhere, deaf := socketPath(t), farEnd(t, hangUp)
	ask := func(c *Client) error {
		_, err := c.Submit(t.Context(), submissionOf("true"))
		return err
	}
	t.Run("NotSent", func(t *testing.T) {
		e := wantErr(t, ask(clientOf(nowhere)), ErrUnavailable)
		if !strings.Contains(e.Error(), nowhere+": connect: no such file or directory") {
			t.Errorf("got %v", e)
		}
	})
	t.Run("SentIsUnknown", func(t *testing.T) {
		e := wantErr(t, ask(clientOf(deaf, nowhere)), ErrUnknownOutcome)
		text := e.Error()
		if !strings.Contains(text, deaf) || !strings.Contains(text, nowhere) || !strings.Contains(text, "gpuqctl show") || strings.Contains(text, "\n") {
			t.Errorf("got %q: want one line that names both ways and what to do", text)
		}
	})
	t.Run("SentOnceStaysUnknown", func(t *testing.T) {
		// The first round reaches a daemon that hangs up; then it is gone.
		var l net.Listener
		path := socketPath(t)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if nc, err := l.Accept(); err == nil {
				_, _ = bufio.NewReader(nc).ReadBytes('\n')
				_ = l.Close()
				_ = nc.Close()
			}
		}()
		c := clientOf(path)
		c.Patience = 500 * time.Millisecond
		wantErr(t, ask(c), ErrUnknownOutcome)
		<-done
	})
	t.Run("KeyedSaysToSubmitAgain", func(t *testing.T) {
		sub := submissionOf("true")
		sub.ID, sub.Spec.Key = "", "nightly"
		_, err := clientOf(deaf).Submit(t.Context(), sub)
		if e := wantErr(t, err, ErrUnknownOutcome); !strings.Contains(e.Error(), "submit it again with the same key") {
			t.Errorf("got %v", e)
		}
	})
	t.Run("ReadIsUnavailable", func(t *testing.T) {
		_, err := clientOf(deaf).Hosts(t.Context())
		wantErr(t, err, ErrUnavailable)
	})
	t.Run("NoWay", func(t *testing.T) {
		e := wantErr(t, ask(clientOf()), ErrUnavailable)
		if !strings.Contains(e.Error(), "there is no way to a daemon: name the socket") {
			t.Errorf("got %v", e)
		}
	})
	t.Run("OwnWordOfTheOnlyDaemon", func(t *testing.T) {
		path := farEnd(t, answer(string(encode(fail(Errorf(CodeUnavailable, "wait for it", "the ledger is out of reach"))))))
		_, err := clientOf(path).Hosts(t.Context())
		if e := wantErr(t, err, ErrUnavailable); e.Error() != "the ledger is out of reach: wait for it" {
			t.Errorf("got %v", e)
		}
	})
}

func TestReadIsNotRepeated(t *testing.T) {
	var asked atomic.Int32
	path := farEnd(t, func(net.Conn, []byte) { asked.Add(1) })
	c := clientOf(path)
	c.Patience = time.Minute
	_, err := c.Hosts(t.Context())
	wantErr(t, err, ErrUnavailable)
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestInterrupt(t *testing.T) {
	t.Run("EndsAnAttemptAtOnce", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		path := farEnd(t, func(net.Conn, []byte) { cancel(); <-over })
		defer close(over)
		began := time.Now()
		_, err := clientOf(path).Submit(ctx, submissionOf("true"))
		wantErr(t, err, ErrUnknownOutcome)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %s", took)
		}
	})
	t.Run("BeforeTheFirstAttemptNothingIsSent", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		h := newRecorder()
		_, err := clientOf(serve(t, h, nil).opts.Socket).Submit(ctx, submissionOf("true"))
		if wantErr(t, err, ErrUnavailable); len(h.callers) != 0 {
			t.Errorf("the daemon heard of %v", h.callers)
		}
	})
}

func TestDialUsesTheSettings(t *testing.T) {
	first, second := serve(t, newRecorder(), nil), serve(t, newRecorder(), nil)
	first.Stop()
	c := Dial(config.Client{
		Sockets: []string{first.opts.Socket, second.opts.Socket}, Timeout: job.Duration(7 * time.Second),
		Broker: config.ClientBroker{URLs: []string{"amqp://127.0.0.1:1/"}, User: "ada", PasswordFile: "/nonexistent/password"},
	})
	defer c.Close()
	if c.AttemptTimeout != 7*time.Second {
		t.Errorf("an attempt may take %s", c.AttemptTimeout)
	}
	if _, err := c.Hosts(t.Context()); err != nil {
		t.Errorf("the second socket: %v", err)
	}
	second.Stop()
	_, err := c.Hosts(t.Context())
	e := wantErr(t, err, ErrUnavailable)
	for _, want := range []string{first.opts.Socket, second.opts.Socket, "broker, as ada: read the password"} {
		if !strings.Contains(e.Error(), want) || strings.Contains(e.Error(), "\n") {
			t.Errorf("%q does not name %q on its one line", e, want)
		}
	}
}

func TestEveryErrorIsClosed(t *testing.T) {
	for _, code := range Codes() {
		e := Errorf(code, "hint", "message")
		if errors.Is(e, ErrInternal) != (code == CodeInternal) || AsError(e) != e || e.Error() != "message: hint" {
			t.Errorf("%s: %v", code, e)
		}
	}
}
