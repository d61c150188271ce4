package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/runner/proctree"
)

// ProcessStarter runs attempts as ordinary processes of the daemon's own user,
// each shim in a session of its own. It needs nothing of the host; but when the
// daemon and a shim die together, what the command has forked runs on until the
// daemon is back. An intent's Limits and DeviceNodes hold nobody here. It must not
// be used under gpuqd.service, whose stop would end all attempts.
type ProcessStarter struct {
	// NoCgroup makes no cgroups: the attempts' processes are then known by their
	// descent from the shim alone. Set it before the first Start.
	NoCgroup bool

	shim   string // path of gpuqd-shim
	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup // one per child that is not reaped yet
}

var _ Starter = (*ProcessStarter)(nil)

// NewProcessStarter returns a starter that runs the shim at path.
func NewProcessStarter(path string) (*ProcessStarter, error) {
	if err := unix.Access(path, unix.X_OK); err != nil {
		return nil, fmt.Errorf("use shim %s: %w; install gpuqd-shim beside gpuqd, or set its path", path, err)
	}
	cgroup, err := os.ReadFile("/proc/self/cgroup")
	if err == nil && inOwnUnit(string(cgroup)) {
		return nil, errors.New("the process starter cannot be used under gpuqd.service: stopping the unit would end its jobs; set the starter to systemd")
	}
	s := &ProcessStarter{shim: path}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// inOwnUnit reports whether the text of /proc/<pid>/cgroup names gpuqd.service.
func inOwnUnit(cgroup string) bool {
	for line := range strings.Lines(cgroup) {
		if slices.Contains(strings.Split(strings.TrimSpace(line), "/"), "gpuqd.service") {
			return true
		}
	}
	return false
}

// Name returns "process".
func (s *ProcessStarter) Name() string { return "process" }

// Start implements Starter.
func (s *ProcessStarter) Start(ctx context.Context, a *Attempt) error {
	if err := s.start(ctx, a); err != nil {
		return fmt.Errorf("start attempt %s: %w", a.key, err)
	}
	return nil
}

func (s *ProcessStarter) start(ctx context.Context, a *Attempt) error {
	if dir := a.intent.Workdir; dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	answer, err := s.launch(a)
	if err != nil {
		return err
	}
	defer answer.Close()
	stop := context.AfterFunc(ctx, func() { _ = answer.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	text, err := io.ReadAll(io.LimitReader(answer, 4096))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	switch word {
	case AnswerStarted:
		return nil
	case AnswerRefused:
		return fmt.Errorf("%w: %s", ErrRefused, rest)
	}
	return fmt.Errorf("the shim ended without an answer (%q); see %s", text, a.path("shim.log"))
}

// launch starts the shim and returns the pipe that its answer comes through.
func (s *ProcessStarter) launch(a *Attempt) (*os.File, error) {
	log, err := os.OpenFile(a.path("shim.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	answer, word, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer word.Close()
	args := []string{"gpuqd-shim", "run", "--answer-fd=3"}
	if s.NoCgroup {
		args = append(args, "--no-cgroup")
	}
	proc, err := os.StartProcess(s.shim, append(args, a.dir), &os.ProcAttr{
		Dir: "/",
		// Nothing of the daemon's environment: it may hold secrets.
		Env:   ShimEnviron,
		Files: []*os.File{null, log, log, word},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, errors.Join(err, answer.Close())
	}
	s.reap(proc)
	return answer, nil
}

// reap waits for the shim in the background, so that it leaves no zombie while
// the daemon lives. Once the daemon is gone, init does it.
func (s *ProcessStarter) reap(proc *os.Process) {
	stat, err := proctree.ReadStat(proc.Pid)
	s.wait.Go(func() {
		if err == nil {
			err = proctree.WaitGone(s.ctx, stat.Process)
		}
		if s.ctx.Err() != nil {
			_ = proc.Release() // closing: it runs on
			return
		}
		_, _ = proc.Wait() // its result is in the exit record
	})
}

// Kill implements Starter.
func (s *ProcessStarter) Kill(_ context.Context, a *Attempt) error { return a.KillLeftovers() }

// Close implements Starter. Shims run on.
func (s *ProcessStarter) Close() error {
	s.cancel()
	s.wait.Wait()
	return nil
}

// ShimEnviron is the environment that a starter gives the shim. The shim idles
// nearly all its life: one processor and an eager collector keep it small. Its
// loops are short, so that nothing need be preempted, by a signal to each thread.
var ShimEnviron = []string{"GOMAXPROCS=1", "GOGC=20", "GODEBUG=asyncpreemptoff=1"}

// The first word of a shim's answer to its starter, on the descriptor named by
// --answer-fd or the FIFO named by --answer. A reason follows AnswerRefused.
const (
	AnswerStarted = "started"
	AnswerRefused = "refused"
)
