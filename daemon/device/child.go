package device

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// child is one gpuqd-device process. Its goroutine reads its lines until its
// output closes, then waits for its end, however long that takes.
type child struct {
	cmd    *exec.Cmd
	stdin  *os.File // takes looks; its end tells the child that its parent is gone
	asked  uint64   // the highest look that was written; the follower's alone
	stdout *os.File
	lines  chan []byte   // closed when the child's output is
	left   chan struct{} // closed when nobody reads lines any more
	done   chan struct{} // closed when the process has ended
	stderr tail
	once   sync.Once

	readErr, waitErr error // valid once done is closed
}

// startChild starts a helper in a process group of its own, so that a Ctrl-C in
// the daemon's terminal is the daemon's to handle.
func startChild(path string, args ...string) (*child, error) {
	c := &child{
		cmd:   exec.Command(path, args...),
		lines: make(chan []byte),
		left:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	// Not StdinPipe and StdoutPipe: Wait would close them under their users.
	theirIn, stdin, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start gpuqd-device: %w", err)
	}
	defer theirIn.Close()
	stdout, theirOut, err := os.Pipe()
	if err != nil {
		stdin.Close()
		return nil, fmt.Errorf("start gpuqd-device: %w", err)
	}
	defer theirOut.Close()
	c.stdin, c.stdout = stdin, stdout
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = theirIn, theirOut, &c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.cmd.WaitDelay = time.Second // for stderr, should somebody else hold it; it kills nothing here
	if err := c.cmd.Start(); err != nil {
		stdin.Close()
		stdout.Close()
		return nil, fmt.Errorf("start gpuqd-device: %w", err)
	}
	go c.read()
	return c, nil
}

func (c *child) read() {
	defer close(c.done)
	scanner := bufio.NewScanner(c.stdout)
	scanner.Buffer(make([]byte, 0, 64<<10), LineBytesMax)
	for scanner.Scan() && c.send(bytes.Clone(scanner.Bytes())) {
	}
	c.readErr = scanner.Err()
	close(c.lines)
	c.waitErr = c.cmd.Wait()
	c.stdin.Close()
	c.stdout.Close()
}

func (c *child) send(line []byte) bool {
	select {
	case c.lines <- line:
		return true
	case <-c.left:
		return false
	}
}

// look asks for a look once. It never waits: a pipe that a hanging process has let
// fill up takes no more, and look may be called again. What it writes is less than
// PIPE_BUF, so all of it goes or nothing (pipe(7)).
func (c *child) look(n uint64) {
	if n <= c.asked {
		return
	}
	raw, err := c.stdin.SyscallConn()
	if err != nil {
		return // it was closed: the process ends or has ended
	}
	_ = raw.Write(func(fd uintptr) bool {
		// Go has made this end of the pipe non-blocking.
		if _, err := syscall.Write(int(fd), fmt.Appendf(nil, "look %d\n", n)); err == nil {
			c.asked = n
		}
		return true // full, or closed at the other end: no reason to wait
	})
}

// leave asks the process to end, in every way that does it no harm, and stops
// reading it. It does not wait.
func (c *child) leave() {
	c.once.Do(func() {
		close(c.left)
		_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
		c.stdin.Close()
		c.stdout.Close()
	})
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// how says in one line how the process ended. done must be closed.
func (c *child) how() string {
	how := c.cmd.ProcessState.String()
	if c.readErr != nil {
		how += "; its output: " + c.readErr.Error()
	}
	if last := c.stderr.last(); last != "" {
		how += "; it said: " + last
	}
	return how
}

// tail keeps the end of what was written to it.
type tail struct {
	mu  sync.Mutex
	end []byte
}

// tailBytesMax is enough for one line that a person would read.
const tailBytesMax = 512

// Write implements io.Writer; it never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, p[max(0, len(p)-tailBytesMax):]...)
	t.end = t.end[max(0, len(t.end)-tailBytesMax):]
	return len(p), nil
}

// last returns the last line.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := bytes.TrimSpace(t.end)
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}
