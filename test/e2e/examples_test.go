package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"gpuqd/daemon/job"
	"gpuqd/test/wait"
)

// said collects what a program prints.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// feeder is a running examples/feed.
type feeder struct {
	cmd      *exec.Cmd
	in       io.WriteCloser
	out, err said
}

func (e *env) startFeed(t *testing.T, args ...string) *feeder {
	t.Helper()
	script, err := filepath.Abs("../../examples/feed/feed.py")
	if err != nil {
		t.Fatal(err)
	}
	f := &feeder{cmd: exec.CommandContext(t.Context(), "/usr/bin/python3", append([]string{script}, args...)...)}
	f.cmd.Env = append(os.Environ(), "GPUQCTL_CONFIG="+e.ClientConfigPath())
	f.cmd.Stdout, f.cmd.Stderr = &f.out, &f.err
	if f.in, err = f.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = f.cmd.Process.Kill() // it has ended, unless the test failed
		if t.Failed() {
			t.Logf("the feed said:\n%s", f.err.String())
		}
	})
	return f
}

// ids returns the jobs that it has confirmed, by whole lines.
func (f *feeder) ids() []string {
	text := f.out.String()
	return strings.Fields(text[:strings.LastIndexByte(text, '\n')+1])
}

// end waits for its end and compares how it ended.
func (f *feeder) end(t *testing.T, code int, says ...string) {
	t.Helper()
	_ = f.in.Close()
	_ = f.cmd.Wait() // the code tells
	if got := f.cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("the feed ended with %d, want %d", got, code)
	}
	for _, text := range says {
		if !strings.Contains(f.err.String(), text) {
			t.Errorf("the feed does not say %q", text)
		}
	}
}

// A feed of a hundred lines goes on while a node of the broker is down; fed once
// more, it is the same hundred jobs.
func testFeed(t *testing.T, e *env) {
	const lines, ahead = 100, 20
	e.forgetFinished(t)
	w, name := newWitness(t), "feed-"+string(job.NewID())
	args := append([]string{"--name", name, "--ahead", fmt.Sprint(ahead), "--"}, w.script(`echo "$0"; sleep 0.2`)...)
	var input strings.Builder
	for i := range lines {
		fmt.Fprintf(&input, "image %d.png\n", i)
	}
	f := e.startFeed(t, args...)
	go func() { // it blocks: the feed reads no faster than jobs end
		_, _ = io.WriteString(f.in, input.String())
		_ = f.in.Close()
	}()
	within := func() error {
		ids := f.ids() // first: jobs that end meanwhile make the difference smaller
		ends := 0
		for _, x := range w.read(t) {
			if x.event == "end" {
				ends++
			}
		}
		if len(ids)-ends > ahead {
			t.Errorf("%d jobs are confirmed and %d over, want at most %d between", len(ids), ends, ahead)
		}
		if ends < lines {
			return fmt.Errorf("%d of %d jobs are over", ends, lines)
		}
		return nil
	}
	w.waitProgress(t, 15)
	node := e.RabbitNodes()[0]
	e.takeDown(t, node, e.KillAndKeepDown)
	w.waitProgress(t, 50)
	e.bringUp(t, node)
	wait.For(t, 2*jobTimeout, within)
	f.end(t, 0, fmt.Sprintf("%d jobs confirmed, 0 of them were known before; 0 lines refused; the next line is %d", lines, lines+1))

	again := e.startFeed(t, args...)
	if _, err := io.WriteString(again.in, input.String()); err != nil {
		t.Fatal(err)
	}
	again.end(t, 0, fmt.Sprintf("%d jobs confirmed, %d of them were known before", lines, lines))
	if !slices.Equal(f.ids(), again.ids()) || len(f.ids()) != lines {
		t.Errorf("the first feed gave %d jobs, the second %d, want the same %d", len(f.ids()), len(again.ids()), lines)
	}
	for _, id := range f.ids() {
		if j := e.waitEnd(t, job.ID(id)); j.State != job.Succeeded {
			t.Errorf("job %s is %s: %s", id, j.State, j.Reason)
		}
	}
	starts := w.starts(t)
	for _, id := range f.ids() {
		if starts[job.ID(id)] != 1 {
			t.Errorf("job %s ran %d times, want once", id, starts[job.ID(id)])
		}
	}
	if len(starts) != lines {
		t.Errorf("%d jobs ran, want %d", len(starts), lines)
	}
}

// A feed that is interrupted says where to go on, and what it says is confirmed is.
func testFeedInterrupted(t *testing.T, e *env) {
	name := "feed-" + string(job.NewID())
	f := e.startFeed(t, "--name", name)
	for i := range 3 {
		if _, err := fmt.Fprintf(f.in, `{"command":["echo","spec %d"]}`+"\n", i); err != nil {
			t.Fatal(err)
		}
	}
	wait.Until(t, "three jobs are confirmed", func() bool { return len(f.ids()) == 3 })
	if err := f.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	f.end(t, 130, "interrupted: 3 jobs confirmed", "the next line is 4")
	rest := e.startFeed(t, "--name", name, "--first", "4")
	if _, err := io.WriteString(rest.in, `{"command":["echo","spec 3"]}`+"\n{\"comand\":[]}\n[1]\nno JSON\n"); err != nil {
		t.Fatal(err)
	}
	rest.end(t, 1, "1 jobs confirmed, 0 of them were known before; 3 lines refused; the next line is 8",
		"line 5 refused", "line 6 refused", "line 7 refused")
	ids := append(f.ids(), rest.ids()...)
	if len(ids) != 4 {
		t.Fatalf("jobs %q, want 4", ids)
	}
	for i, id := range ids {
		j := e.waitEnd(t, job.ID(id))
		if j.Spec.Key != fmt.Sprintf("%s/%d", name, i+1) || j.Result.LogTail != fmt.Sprintf("spec %d\n", i) {
			t.Errorf("job %d has the key %q and said %q", i, j.Spec.Key, j.Result.LogTail)
		}
	}
}

// testAMQP submits with examples/amqp: plainly, past a node that is down, and
// over a connection that breaks once the job has been sent.
func testAMQP(t *testing.T, e *env) {
	program := filepath.Join(t.TempDir(), "amqp")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "gpuqd/examples/amqp").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	urls, err := e.UserURLs()
	if err != nil {
		t.Fatal(err)
	}
	var nodes []string
	var password string
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		password, _ = u.User.Password()
		u.User = nil
		nodes = append(nodes, u.String())
	}
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(t *testing.T, code int, nodes []string, command ...string) (stdout, stderr string) {
		t.Helper()
		args := append([]string{"-url", strings.Join(nodes, ","), "-user", e.User(), "-password-file", secret}, command...)
		cmd := exec.CommandContext(t.Context(), program, args...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		_ = cmd.Run() // the code tells
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Fatalf("exit code %d, want %d: %s", got, code, errs.String())
		}
		return strings.TrimSpace(out.String()), errs.String()
	}
	ranOnce := func(t *testing.T, w witness, id string) {
		t.Helper()
		if j := e.waitEnd(t, job.ID(id)); j.State != job.Succeeded || j.Submitter != e.User() {
			t.Errorf("job is %s, of %s: %s", j.State, j.Submitter, j.Reason)
		}
		if starts := w.starts(t); starts[job.ID(id)] != 1 || len(starts) != 1 {
			t.Errorf("ran %v, want one run of %s", starts, id)
		}
	}

	t.Run("JobIsConfirmedAndRuns", func(t *testing.T) {
		w := newWitness(t)
		id, _ := run(t, 0, nodes, w.script("true")...)
		ranOnce(t, w, id)
	})
	t.Run("RefusalIsSaid", func(t *testing.T) {
		out, errs := run(t, 2, nodes, "")
		if out != "" || !strings.Contains(errs, "refused: ") {
			t.Errorf("said %q and %q", out, errs)
		}
	})
	t.Run("NodeThatIsDownIsPassedOver", func(t *testing.T) {
		w, node := newWitness(t), e.RabbitNodes()[0]
		e.takeDown(t, node, e.KillAndKeepDown)
		id, errs := run(t, 0, nodes, w.script("true")...)
		if !strings.Contains(errs, "sending the job again") {
			t.Errorf("said %q", errs)
		}
		e.bringUp(t, node)
		ranOnce(t, w, id)
	})
	t.Run("JobInDoubtIsSentAgainAndRunsOnce", func(t *testing.T) {
		w := newWitness(t)
		id, errs := run(t, 0, []string{breaking(t, nodes[0])}, w.script("true")...)
		if !strings.Contains(errs, "it is not known whether the job was taken in") {
			t.Errorf("said %q", errs)
		}
		ranOnce(t, w, id)
	})
}

// breaking returns the address of a proxy before a node. Its first connection
// passes the job's message on, and breaks before anything is answered; the
// others are left alone.
func breaking(t *testing.T, node string) string {
	t.Helper()
	u, err := url.Parse(node)
	if err != nil {
		t.Fatal(err)
	}
	far := u.Host
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		group.Wait()
	})
	group.Go(func() {
		for first := true; ; first = false {
			near, err := listener.Accept()
			if err != nil {
				return // the test is over
			}
			group.Go(func() { proxy(near, far, first) })
		}
	})
	u.Host = listener.Addr().String()
	return u.String()
}

func proxy(near net.Conn, far string, breaks bool) {
	defer near.Close()
	server, err := net.Dial("tcp", far)
	if err != nil {
		return // the client sees a connection that ends
	}
	defer server.Close()
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() {
		_, _ = io.Copy(near, server)
		_ = near.Close()
	})
	defer server.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := near.Read(buffer)
		if n > 0 && breaks && bytes.Contains(buffer[:n], []byte(`"schema":1`)) {
			_ = near.Close() // no answer comes through
			_, _ = server.Write(buffer[:n])
			return
		}
		if n > 0 {
			_, _ = server.Write(buffer[:n])
		}
		if err != nil {
			return
		}
	}
}
