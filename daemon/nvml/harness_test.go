package main

import (
	"bufio"
	"bytes"
	"io"
	"os/exec"
	"sync"
	"testing"
	"time"

	"gpuqd/daemon/device"
	"gpuqd/test/scriptednvml"
	"gpuqd/test/wait"
)

// process is a gpuqd-device whose lines are kept as they come.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{}

	mu     sync.Mutex
	lines  []device.Report
	stderr bytes.Buffer
	read   int // lines that next has returned or passed over
}

func startProcess(t *testing.T, library string, args ...string) *process {
	t.Helper()
	path := scriptednvml.BuildHelper(t)
	p := &process{t: t, cmd: exec.Command(path, append(args, "--library", library)...), ended: make(chan struct{})}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = locked{&p.mu, &p.stderr}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			line, err := device.ParseLine(lines.Bytes())
			if err != nil {
				t.Errorf("%s: %v", lines.Bytes(), err)
			}
			p.mu.Lock()
			p.lines = append(p.lines, line)
			p.mu.Unlock()
		}
		_ = p.cmd.Wait() // the exit code is looked at by ends
	}()
	t.Cleanup(func() {
		p.stdin.Close()
		select {
		case <-p.ended:
		case <-time.After(patience):
			_ = p.cmd.Process.Kill() // a scripted driver does not mind
			<-p.ended
		}
	})
	return p
}

// locked writes under a mutex.
type locked struct {
	mu *sync.Mutex
	io.Writer
}

func (l locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Writer.Write(b)
}

func (p *process) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lines)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

// next waits for the next line of which want is true.
func (p *process) next(what string, want func(device.Report) bool) device.Report {
	p.t.Helper()
	var found device.Report
	wait.Until(p.t, what, func() (ok bool) {
		found, ok = p.scan(want)
		return ok
	})
	return found
}

// scan looks for such a line among those that are there.
func (p *process) scan(want func(device.Report) bool) (device.Report, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.read < len(p.lines) {
		p.read++
		if r := p.lines[p.read-1]; want(r) {
			return r, true
		}
	}
	return device.Report{}, false
}

// ask writes a line to standard input.
func (p *process) ask(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) ends(want int) {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatal("it does not end")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != want {
		p.t.Errorf("exit code %d, want %d; it said: %s", code, want, p.said())
	}
}

// silent waits until nothing is written for many heartbeats.
func (p *process) silent() {
	p.t.Helper()
	const heartbeats = 30
	wait.Until(p.t, "it falls silent", func() bool {
		before := p.count()
		time.Sleep(heartbeats * quick) // heartbeats that must not come
		return p.count() == before
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.read = len(p.lines)
}
