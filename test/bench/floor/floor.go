package floor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"gpuqd/daemon/dedup"
	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

// Config says what the floor runs on and what it does.
type Config struct {
	URL      string `json:"url"`  // of the broker's node, with the account of a host
	User     string `json:"user"` // of that account
	Redis    string `json:"redis"`
	Password string `json:"password"` // of Redis

	Dir     string   `json:"dir"`     // ledger and attempts; used again by the next run
	Shim    string   `json:"shim"`    // path of gpuq-floor-shim
	Cgroups string   `json:"cgroups"` // where cgroups can be made; "" for none
	Command []string `json:"command"` // with a full path
	Spec    job.Spec `json:"spec"`    // the documents'

	Jobs   int    `json:"jobs"`
	Slots  int    `json:"slots"` // how many run at a time
	Idle   bool   `json:"idle"`  // one job after the other, each from its intake on
	Recipe Recipe `json:"recipe"`
}

// Outcome is what came of it.
type Outcome struct {
	Jobs int `json:"jobs"`
	// SpanSeconds is from the start of the first command to the last commit, less
	// its write: what the documents of gpuqd's jobs tell.
	SpanSeconds float64    `json:"span_seconds"`
	Operations  Operations `json:"operations"` // all that was done, intake included
	// Submitted are, of idle runs, the times before each intake, in nanoseconds.
	Submitted map[job.ID]int64 `json:"submitted,omitempty"`

	IntakeSeconds   float64 `json:"intake_seconds"`   // of processor, before the span
	SelfSeconds     float64 `json:"self_seconds"`     // of processor, in the span
	ChildrenSeconds float64 `json:"children_seconds"` // of the shims and commands
}

// floor is one run.
type floor struct {
	Config
	book  *book
	mq    *exchange
	cache *redis.Client
	slots chan struct{} // a place per command that runs
	work  sync.WaitGroup

	mu          sync.Mutex // guards what follows
	out         Outcome
	first, last time.Time
	err         error
}

// Run runs jobs and returns what that took.
func Run(ctx context.Context, c Config) (out Outcome, err error) {
	f := &floor{Config: c, slots: make(chan struct{}, c.Slots)}
	f.out = Outcome{Jobs: c.Jobs, Operations: Operations{}, Submitted: map[job.ID]int64{}}
	if err := os.MkdirAll(f.attempts(), 0o700); err != nil {
		return out, err
	}
	if f.book, err = openBook(ctx, filepath.Join(c.Dir, "ledger.db")); err != nil {
		return out, fmt.Errorf("open the floor's ledger: %w", err)
	}
	defer func() { err = errors.Join(err, f.book.close()) }()
	if f.mq, err = openExchange(c.URL, c.User); err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, f.mq.close()) }()
	f.cache = redis.NewClient(&redis.Options{Addr: c.Redis, Password: c.Password, DisableIdentity: true, MaxRetries: -1})
	defer func() { err = errors.Join(err, f.cache.Close()) }()
	if c.Idle {
		err = f.oneByOne(ctx)
	} else {
		err = f.batch(ctx)
	}
	return f.out, err
}

func (f *floor) attempts() string { return filepath.Join(f.Dir, "attempts") }

// oneByOne takes each job from its intake to its end before the next; the bell
// starts it.
func (f *floor) oneByOne(ctx context.Context) error {
	for range f.Jobs {
		j := job.New(job.NewID(), f.User, f.Spec, job.At(time.Now()))
		f.out.Submitted[j.ID] = time.Now().UnixNano()
		intake := make(chan error, 1)
		go func() { intake <- f.intake(ctx, j) }() // the bell may be faster than its end
		select {
		case _, open := <-f.mq.bells:
			if !open {
				return errors.New("the floor's bell is gone")
			}
		case err := <-intake:
			if err != nil {
				return err
			}
			intake <- nil
			<-f.mq.bells
		}
		f.slots <- struct{}{}
		if ok := f.next(ctx); !ok || f.failed() != nil {
			return errors.Join(errors.New("the floor's message was not there"), f.failed())
		}
		f.work.Wait()
		if err := errors.Join(<-intake, f.failed()); err != nil {
			return err
		}
	}
	return nil
}

// intakeAtOnce is how many submissions are under way together, as with gpuqctl
// submit -f.
const intakeAtOnce = 16

// batch takes all jobs in, then runs them.
func (f *floor) batch(ctx context.Context) error {
	began := cpuOf()
	go func() {
		for range f.mq.bells { // heard, and no news; it ends with the connection
		}
	}()
	var group sync.WaitGroup
	places := make(chan struct{}, intakeAtOnce)
	for range f.Jobs {
		places <- struct{}{}
		group.Go(func() {
			f.note(f.intake(ctx, job.New(job.NewID(), f.User, f.Spec, job.At(time.Now()))))
			<-places
		})
	}
	group.Wait()
	if err := f.failed(); err != nil {
		return err
	}
	before := cpuOf()
	for f.failed() == nil {
		f.slots <- struct{}{}
		if !f.next(ctx) {
			break
		}
	}
	f.work.Wait()
	after := cpuOf()
	f.out.IntakeSeconds = before[0] - began[0]
	f.out.SelfSeconds, f.out.ChildrenSeconds = after[0]-before[0], after[1]-before[1]
	f.out.SpanSeconds = f.last.Sub(f.first).Seconds()
	return f.failed()
}

// cpuOf returns the processor time of this process and of its children that have
// been waited for, in seconds.
func cpuOf() (seconds [2]float64) {
	for i, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var ru syscall.Rusage
		_ = syscall.Getrusage(who, &ru) // cannot fail
		seconds[i] = time.Duration(ru.Utime.Nano() + ru.Stime.Nano()).Seconds()
	}
	return seconds
}

func (f *floor) intake(ctx context.Context, j *job.Job) error {
	if err := f.book.submit(ctx, j); err != nil {
		return err
	}
	f.count(LedgerInsert, 1)
	f.count(Publish, 1)
	f.count(Bell, 1)
	return f.mq.publish(ctx, j)
}

// next takes a message and runs its job, in a slot that the caller has taken and
// the end of the command frees. It returns false where there is no message.
func (f *floor) next(ctx context.Context) bool {
	d, looked, ok, err := f.mq.take(f.Recipe.Depths)
	f.count(Depth, looked)
	f.count(Get, 1)
	if err != nil || !ok {
		f.note(err)
		<-f.slots
		return false
	}
	f.work.Go(func() {
		free := sync.OnceFunc(func() { <-f.slots })
		defer free()
		err := f.run(ctx, d.Body, free)
		if err == nil {
			f.count(Ack, 1)
			err = f.mq.ack(d)
		}
		f.note(err)
	})
	return true
}

// run takes one job from its message to its commit.
func (f *floor) run(ctx context.Context, body []byte, free func()) error {
	ticket, err := job.ParseTicket(body)
	if err != nil {
		return err
	}
	id, key := ticket.ID, "gpuq:done:floor:"+string(ticket.ID)
	f.count(CacheGet, 1)
	if err := f.cache.Get(ctx, key).Err(); !errors.Is(err, redis.Nil) {
		return fmt.Errorf("the floor's job %s is done before it ran: %w", id, err)
	}
	owner := job.Owner{
		Host: "worker_1", Session: uuid.NewString(), ClaimID: uuid.NewString(), ClaimedAt: job.At(time.Now()),
		Devices: []string{"GPU-sim-" + uuid.NewString()},
	}
	f.count(LedgerUpdate, 1)
	if err := f.book.claimed(ctx, id, owner); err != nil {
		return err
	}
	for range f.Recipe.LedgerGets {
		f.count(LedgerGet, 1)
		if err := f.book.read(ctx, id); err != nil {
			return err
		}
	}
	a, synced, err := begin(f.attempts(), f.intent(id, owner), f.Recipe.JournalSyncs)
	f.count(JournalSync, synced)
	if err != nil {
		return err
	}
	f.count(Start, 1)
	proc, err := a.launch(f.Config, id)
	if err != nil {
		return err
	}
	started := time.Now()
	f.count(LedgerUpdate, 1)
	marked := f.book.running(ctx, id, owner)
	state, err := proc.Wait()
	free()
	if err := errors.Join(marked, err); err != nil {
		return err
	}
	if !state.Success() {
		said, _ := os.ReadFile(filepath.Join(a.dir, "shim.log"))
		return fmt.Errorf("the floor's shim: %s: %s", state, said)
	}
	return f.commit(ctx, id, owner, a, started, key)
}

func (f *floor) commit(ctx context.Context, id job.ID, owner job.Owner, a *attempt, started time.Time, key string) error {
	tail, err := a.tail()
	if err != nil {
		return err
	}
	ended := time.Now()
	f.mu.Lock()
	if f.first.IsZero() || started.Before(f.first) {
		f.first = started
	}
	f.last = ended
	f.mu.Unlock()
	f.count(LedgerUpdate, 1)
	err = f.book.commit(ctx, id, owner, job.Result{
		Attempt: 1, Host: owner.Host, Outcome: job.Succeeded, StartedAt: job.At(started), EndedAt: job.At(ended),
		GPUSeconds: ended.Sub(started).Seconds(), CPUSeconds: 0.012345, MemoryBytesMax: 5 << 20, Devices: owner.Devices, LogTail: tail,
	})
	if err != nil {
		return err
	}
	synced, err := a.settle("commit-" + owner.ClaimID)
	f.count(JournalSync, synced)
	if err != nil {
		return err
	}
	f.count(CacheSet, 1)
	if err := f.cache.Set(ctx, key, string(job.Succeeded), dedup.DefaultTTL).Err(); err != nil {
		return err
	}
	_ = os.Remove(f.workdir(id)) // nothing is in it
	return nil
}

func (f *floor) workdir(id job.ID) string { return filepath.Join(f.Dir, "work", string(id)) }

// intent is what gpuqd would write for the job.
func (f *floor) intent(id job.ID, owner job.Owner) runner.Intent {
	doc := job.New(id, f.User, f.Spec, owner.ClaimedAt)
	doc.Owner, doc.History = &owner, nil
	return runner.Intent{
		Schema: runner.Schema, JobID: id, Attempt: 1, Fence: 1, ClaimID: owner.ClaimID, Session: owner.Session,
		Host: owner.Host, Submitter: f.User, Queue: doc.Queue, Command: f.Command, Workdir: f.workdir(id), Devices: owner.Devices,
		Grace: f.Spec.Grace.Std(), LeaseLoss: runner.LeaseFreeze, DeadlineFile: f.Dir + "/sessions/" + owner.Session + ".deadline",
		ClaimedAt: owner.ClaimedAt.Time, Spec: []byte(text(doc)),
	}
}

func (f *floor) count(name string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.out.Operations[name] += float64(n)
}

// note keeps the first error, which ends the run.
func (f *floor) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *floor) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}
