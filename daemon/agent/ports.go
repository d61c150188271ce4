package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
)

// Broker is what the agent needs of RabbitMQ; *broker.Client is it.
type Broker interface {
	DeclareShape(ctx context.Context, queue string) error
	Publish(ctx context.Context, m broker.Message) error
	PublishRetry(ctx context.Context, step time.Duration, m broker.Message) error
	PublishDead(ctx context.Context, d broker.DeadLetter) error
	Depth(ctx context.Context, queue string) (int, error)
	Take(ctx context.Context, queue string) (*broker.Delivery, error)
	Ack(ctx context.Context, tag broker.Tag) error
	Nack(ctx context.Context, tag broker.Tag, requeue bool) error
	Ring(ctx context.Context, queue string)
	Bells() <-chan string
	ConsumeSubmit(ctx context.Context, workers int, handler broker.Handler) error
	ConsumeDead(ctx context.Context, handler broker.Handler) error
	ConsumeControl(ctx context.Context, workers int, handler broker.Handler) error
	PauseSubmit()
	ResumeSubmit()
	Reply(ctx context.Context, to *broker.Delivery, body []byte) error
	Request(ctx context.Context, exchange, routingKey string, body []byte, headers map[string]any) ([]byte, error)
	Healthy() (ok bool, why string)
}

var _ Broker = (*broker.Client)(nil)

// DoneCache remembers which jobs are over. It may forget, and it may be absent;
// it only saves time.
type DoneCache interface {
	SetLedger(id string)
	Done(ctx context.Context, id job.ID) (state job.State, hit bool)
	Store(ctx context.Context, id job.ID, state job.State)
	Healthy() (ok bool, why string)
}

// Attempt is one attempt's record on this host; *runner.Attempt documents it.
type Attempt interface {
	Key() runner.Key
	Intent() *runner.Intent
	Started() (*runner.Started, bool, error)
	Exit() (*runner.Exit, bool, error)
	Verdict() (*runner.Verdict, bool, error)
	Revoked() (*runner.Revoked, bool, error)
	Wait(ctx context.Context) (*runner.Exit, error)
	Revoke() error
	RecordLost(reason string) error
	RequestStop(s runner.Stop) error
	MarkCommitted(commitID string) error
	MarkDiscarded(reason string) error
	ReadLog(offset int64, max int) ([]byte, error)
	LogTail(max int) ([]byte, error)
}

var _ Attempt = (*runner.Attempt)(nil)

// Runner keeps and starts the attempts of this host. Disk is it.
type Runner interface {
	Begin(in runner.Intent) (Attempt, error)
	Start(ctx context.Context, a Attempt) error
	Kill(ctx context.Context, a Attempt) error
	Get(key runner.Key) (Attempt, error)
	List() ([]Attempt, error)
	Sweep(keep time.Duration, bytesMax int64) (removed int, err error)
	WriteDeadline(d runner.Deadline) error
	ReadDeadline(session string) (runner.Deadline, error)
	// DropDeadlines removes the deadline files of all sessions but one.
	DropDeadlines(keep string)
	DeadlinePath(session string) string
}

// Disk is the Runner over a journal on disk and a starter.
type Disk struct {
	Journal *runner.Journal
	Starter runner.Starter
}

var _ Runner = Disk{}

// Begin implements Runner.
func (d Disk) Begin(in runner.Intent) (Attempt, error) {
	a, err := d.Journal.Begin(in)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Start implements Runner.
func (d Disk) Start(ctx context.Context, a Attempt) error {
	return d.Starter.Start(ctx, a.(*runner.Attempt))
}

// Kill implements Runner.
func (d Disk) Kill(ctx context.Context, a Attempt) error {
	return d.Starter.Kill(ctx, a.(*runner.Attempt))
}

// Get implements Runner.
func (d Disk) Get(key runner.Key) (Attempt, error) {
	a, err := d.Journal.Get(key)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// List implements Runner.
func (d Disk) List() ([]Attempt, error) {
	list, err := d.Journal.List()
	attempts := make([]Attempt, len(list))
	for i, a := range list {
		attempts[i] = a
	}
	return attempts, err
}

// Sweep implements Runner.
func (d Disk) Sweep(keep time.Duration, bytesMax int64) (int, error) {
	return d.Journal.Sweep(keep, bytesMax)
}

// WriteDeadline implements Runner.
func (d Disk) WriteDeadline(deadline runner.Deadline) error {
	return runner.WriteDeadline(d.Journal.DeadlinePath(deadline.Session), deadline)
}

// ReadDeadline implements Runner.
func (d Disk) ReadDeadline(session string) (runner.Deadline, error) {
	return runner.ReadDeadline(d.Journal.DeadlinePath(session))
}

// DropDeadlines implements Runner. What cannot be removed now is tried again
// with the next session.
func (d Disk) DropDeadlines(keep string) {
	files, _ := filepath.Glob(d.Journal.DeadlinePath("*"))
	for _, path := range files {
		if path != d.Journal.DeadlinePath(keep) {
			_ = os.Remove(path)
		}
	}
}

// DeadlinePath implements Runner.
func (d Disk) DeadlinePath(session string) string { return d.Journal.DeadlinePath(session) }

// Clock is the time of one host.
type Clock interface {
	Now() time.Time          // wall clock with the monotonic reading
	Boottime() time.Duration // CLOCK_BOOTTIME: goes on while the host is suspended
}

// SystemClock is the kernel's.
type SystemClock struct{}

// Now implements Clock.
func (SystemClock) Now() time.Time { return time.Now() }

// Boottime implements Clock.
func (SystemClock) Boottime() time.Duration { return runner.Boottime() }

// fatal marks an error that no waiting mends: the daemon must end and say so.
type fatal struct{ error }

func (f fatal) Unwrap() error { return f.error }

func isFatal(err error) bool { return errors.As(err, &fatal{}) }
