package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/runner"
	"gpuqd/test/sim/world"

	"golang.org/x/sys/unix"
)

// Runner is the disk as one run of the daemon has it.
type Runner struct {
	d *Disk
	p *world.Process
}

var _ agent.Runner = (*Runner)(nil)

// Open returns the disk for a run of the daemon. When that is dead, every call
// returns world.ErrDead and changes nothing.
func (d *Disk) Open(p *world.Process) *Runner { return &Runner{d, p} }

// look reads or changes the disk at one instant, without a sync.
func (r *Runner) look(f func() error) (err error) {
	if err := r.p.Wait(); err != nil {
		return err
	}
	r.d.world.Do(func() {
		if r.p.Gone() {
			err = world.ErrDead
			return
		}
		err = f()
	})
	return err
}

// sync makes a synced write that may fail.
func (r *Runner) sync(step, key string, effect func() error) error {
	var failed error
	err := r.d.write(r.p, step, key, func() { failed = effect() })
	return errors.Join(err, failed)
}

// Begin implements agent.Runner.
func (r *Runner) Begin(in runner.Intent) (agent.Attempt, error) {
	e, err := newEntry(in)
	if err == nil {
		err = r.sync("disk begin", e.name, func() error {
			switch {
			case r.d.full:
				return unix.ENOSPC
			case !r.d.giveWay(e):
				return runner.ErrExists
			}
			r.d.entries[e.key] = e
			r.d.order = append(r.d.order, e)
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("begin attempt %s: %w", in.Key(), err)
	}
	return &Attempt{r, e}, nil
}

// giveWay makes room for an attempt where what is in its place is settled, and of
// another claim. It reports whether there is room.
func (d *Disk) giveWay(e *entry) bool {
	old := d.entries[e.key]
	if old == nil {
		return true
	}
	if old.in.ClaimID == e.in.ClaimID || old.settledAt().IsZero() || old.held() {
		return false
	}
	d.remove(old)
	return true
}

// remove deletes an attempt's directory.
func (d *Disk) remove(e *entry) {
	e.removed = true
	delete(d.entries, e.key)
	d.order = slices.DeleteFunc(d.order, func(o *entry) bool { return o == e })
}

func newEntry(in runner.Intent) (*entry, error) {
	key := in.Key()
	e := &entry{key: key, name: key.String(), in: in}
	if _, err := runner.ParseKey(e.name); err != nil {
		return nil, err
	}
	if len(in.Command) == 0 || in.Command[0] == "" {
		return nil, errors.New("the command is empty")
	}
	e.in.Schema, e.in.ClaimedAt = runner.Schema, in.ClaimedAt.Round(0)
	if e.in.LeaseLoss == "" {
		e.in.LeaseLoss = runner.LeaseFreeze
	}
	if e.in.LogBytesMax <= 0 {
		e.in.LogBytesMax = runner.DefaultLogBytesMax
	}
	return e, nil
}

// Get implements agent.Runner.
func (r *Runner) Get(key runner.Key) (agent.Attempt, error) {
	var e *entry
	err := r.look(func() error {
		if e = r.d.entries[key]; e == nil {
			return runner.ErrNotFound
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open attempt %s: %w", key, err)
	}
	return &Attempt{r, e}, nil
}

// List implements agent.Runner.
func (r *Runner) List() (list []agent.Attempt, err error) {
	err = r.look(func() error {
		list = make([]agent.Attempt, len(r.d.order))
		for i, e := range r.d.order {
			list[i] = &Attempt{r, e}
		}
		return nil
	})
	return list, err
}

// Kill implements agent.Runner.
func (r *Runner) Kill(_ context.Context, a agent.Attempt) error {
	return r.killLeftovers(a.(*Attempt).e)
}

// killLeftovers ends what is left of an attempt.
func (r *Runner) killLeftovers(e *entry) error {
	var t *tree
	err := r.look(func() error {
		if t = e.tree; t != nil {
			t.kill()
		}
		return nil
	})
	if t != nil {
		t.bury()
	}
	return err
}

// entryBytes is what one attempt takes on the disk: the record, and a block each
// for the intent, the logs and the directory.
const entryBytes = 10 * 4096

// Sweep implements agent.Runner.
func (r *Runner) Sweep(keep time.Duration, bytesMax int64) (removed int, err error) {
	now := r.d.stamp()
	lookErr := r.look(func() error {
		settled := slices.DeleteFunc(slices.Clone(r.d.order), func(e *entry) bool { return e.settledAt().IsZero() })
		slices.SortStableFunc(settled, func(x, y *entry) int { return x.settledAt().Compare(y.settledAt()) })
		total := int64(len(settled)) * entryBytes
		for _, e := range settled {
			if now.Sub(e.settledAt()) <= keep && (bytesMax == 0 || total <= bytesMax) {
				break
			}
			if e.held() {
				err = errors.Join(err, fmt.Errorf("remove attempt %s: %w", e.name, runner.ErrBusy))
				continue
			}
			r.d.remove(e)
			total -= entryBytes
			removed++
		}
		return nil
	})
	return removed, errors.Join(err, lookErr)
}

func (e *entry) settledAt() time.Time {
	switch {
	case e.verdict != nil:
		return e.verdict.Time
	case e.revoked != nil:
		return e.revoked.Time
	}
	return time.Time{}
}

// DeadlinePath implements agent.Runner.
func (r *Runner) DeadlinePath(session string) string {
	return "/var/lib/gpuqd/sessions/" + session + ".deadline"
}

// WriteDeadline implements agent.Runner. Only the first of a session takes space,
// and is synced.
func (r *Runner) WriteDeadline(deadline runner.Deadline) error {
	path, there := r.DeadlinePath(deadline.Session), false
	err := r.look(func() error {
		there = !r.d.files[path].newest().gone
		return nil
	})
	put := func() { r.d.putDeadline(path, version{word: deadline}) }
	switch {
	case err != nil:
	case there:
		err = r.d.at(r.p, "disk deadline", "", put)
	default:
		err = r.sync("disk deadline", "", func() error {
			if r.d.full {
				return unix.ENOSPC
			}
			put()
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("write deadline: %w", err)
	}
	return nil
}

// ReadDeadline implements agent.Runner.
func (r *Runner) ReadDeadline(session string) (deadline runner.Deadline, err error) {
	err = r.look(func() error {
		v := r.d.files[r.DeadlinePath(session)].newest()
		if v.gone {
			return fs.ErrNotExist
		}
		deadline = v.word
		return nil
	})
	if err != nil {
		return runner.Deadline{}, fmt.Errorf("read deadline: %w", err)
	}
	return deadline, nil
}

// DropDeadlines implements agent.Runner.
func (r *Runner) DropDeadlines(keep string) {
	kept := r.DeadlinePath(keep)
	_ = r.look(func() error { // only death is an error here
		for path, f := range r.d.files { // in any order: the shims wake at ticks of their own
			if path != kept && !f.newest().gone {
				r.d.putDeadline(path, version{gone: true})
			}
		}
		return nil
	})
}
