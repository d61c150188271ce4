package campaign

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner/proctree"
	"gpuqd/test/services"
)

// blow is one fault as it was done.
type blow struct {
	Fault
	began, ended time.Time // equal where it was over at once
	target       string    // what it hit
	hosts        []string  // whose work it can have stopped
	job          job.ID    // whose attempt it hit, if one
	err          error     // it could not be done, or not undone

	onHit func() // told once it has begun; nil tells nobody
}

// strike does a fault and returns when it is over.
func (r *rig) strike(ctx context.Context, b *blow) {
	b.hosts = r.Workers()
	do := map[Class]func(context.Context, *blow) error{
		DaemonKilled: r.killDaemon, ShimKilled: r.killShim, TreeKilled: r.killTree, HostKilled: r.killHost,
		DaemonFrozen: r.freezeDaemon, BrokerKilled: r.killNode, BrokerFrozen: r.freezeNode, RedisKilled: r.killRedis,
		LedgerLost: r.loseLedger, DiskAlarm: r.alarm, DiskFull: r.fillDisk, EverythingKilled: r.killEverything,
	}[b.Class]
	if do == nil {
		b.err = fmt.Errorf("there is no class %s", b.Class)
		return
	}
	b.err = do(ctx, b)
	if b.ended.IsZero() {
		b.ended = b.began
	}
}

// hit notes that the fault has begun, at a time right before it was done.
func (b *blow) hit(target string, at time.Time) {
	b.target, b.began = target, at
	if b.onHit != nil {
		b.onHit()
	}
}

func (b *blow) over() { b.ended = time.Now() }

// onUnit reserves a unit of those named and does the fault to it.
func (r *rig) onUnit(ctx context.Context, b *blow, names []string, do func(unit string) error) error {
	unit, err := r.reserve(ctx, b.Pick, names)
	if err != nil {
		return err
	}
	defer r.release(unit)
	if r.isWorker(unit) {
		b.hosts = []string{unit}
	}
	return do(unit)
}

func (r *rig) killDaemon(ctx context.Context, b *blow) error {
	return r.onUnit(ctx, b, r.Workers(), func(unit string) error {
		return r.killUnit(ctx, b, unit)
	})
}

// killUnit kills a unit that runs. One that is just being started again, after
// another fault, is waited for.
func (r *rig) killUnit(ctx context.Context, b *blow, unit string) error {
	if err := r.StartUnit(ctx, unit); err != nil {
		return err
	}
	at := time.Now()
	if err := r.Kill(unit); err != nil {
		return err
	}
	b.hit(unit, at)
	return nil
}

// victimPatience bounds the wait for an attempt to be hit.
const victimPatience = time.Minute

// victim waits for a living attempt and picks one.
func (r *rig) victim(ctx context.Context, pick int) (living, error) {
	deadline := time.Now().Add(victimPatience)
	for {
		list, err := r.attempts()
		if err != nil {
			return living{}, err
		}
		if len(list) > 0 {
			return list[pick%len(list)], nil
		}
		if time.Now().After(deadline) {
			return living{}, errors.New("there was no attempt to hit")
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return living{}, err
		}
	}
}

func (r *rig) killShim(ctx context.Context, b *blow) error {
	v, err := r.victim(ctx, b.Pick)
	if err != nil {
		return err
	}
	at := time.Now()
	if err := proctree.Signal(v.shim, syscall.SIGKILL); err != nil {
		return err
	}
	b.hosts, b.job = []string{v.worker}, v.key.JobID
	b.hit("a shim on "+v.worker, at)
	return nil
}

func (r *rig) killTree(ctx context.Context, b *blow) error {
	for deadline := time.Now().Add(victimPatience); ; {
		v, err := r.victim(ctx, b.Pick)
		if err != nil {
			return err
		}
		tree, err := v.tree()
		if err != nil {
			return err
		}
		killed, at := 0, time.Now()
		for _, p := range tree {
			if p != v.shim && proctree.Signal(p, syscall.SIGKILL) == nil {
				killed++
			}
		}
		if killed > 0 {
			b.hosts, b.job = []string{v.worker}, v.key.JobID
			b.hit("a command on "+v.worker, at)
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("there was no command to kill")
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func (r *rig) killHost(ctx context.Context, b *blow) error {
	return r.onUnit(ctx, b, r.Workers(), func(unit string) error {
		at := time.Now()
		err := r.KillHost(ctx, unit)
		if err == nil {
			b.hit(unit, at)
			err = pause(ctx, b.Lasts)
		}
		b.over()
		return errors.Join(err, r.StartUnit(ctx, unit))
	})
}

// freeze stops a unit for as long as the fault lasts. It may be killed meanwhile
// by another one.
func (r *rig) freeze(ctx context.Context, b *blow, unit string) error {
	if err := r.StartUnit(ctx, unit); err != nil {
		return err
	}
	at := time.Now()
	if err := r.Signal(unit, syscall.SIGSTOP); err != nil {
		return err
	}
	b.hit(unit, at)
	err := pause(ctx, b.Lasts)
	b.over()
	_ = r.Signal(unit, syscall.SIGCONT) // killed meanwhile: its successor is not frozen
	return err
}

func (r *rig) freezeDaemon(ctx context.Context, b *blow) error {
	return r.onUnit(ctx, b, r.Workers(), func(unit string) error { return r.freeze(ctx, b, unit) })
}

func (r *rig) freezeNode(ctx context.Context, b *blow) error {
	return r.onUnit(ctx, b, r.RabbitNodes(), func(unit string) error { return r.freeze(ctx, b, unit) })
}

// keepDown kills a unit and keeps it down for as long as the fault lasts.
func (r *rig) keepDown(ctx context.Context, b *blow, unit string) error {
	at := time.Now()
	err := r.KillAndKeepDown(ctx, unit)
	if err == nil {
		b.hit(unit, at)
		err = pause(ctx, b.Lasts)
	}
	b.over()
	return errors.Join(err, r.StartUnit(ctx, unit))
}

func (r *rig) killNode(ctx context.Context, b *blow) error {
	return r.onUnit(ctx, b, r.RabbitNodes(), func(unit string) error { return r.keepDown(ctx, b, unit) })
}

func (r *rig) killRedis(ctx context.Context, b *blow) error {
	return r.onUnit(ctx, b, []string{"redis"}, func(unit string) error { return r.keepDown(ctx, b, unit) })
}

func (r *rig) loseLedger(ctx context.Context, b *blow) error {
	if unit := r.ledgerUnit(); unit != "" {
		return r.onUnit(ctx, b, []string{unit}, func(unit string) error { return r.keepDown(ctx, b, unit) })
	}
	return r.onUnit(ctx, b, []string{"ledger.db"}, func(unit string) error {
		held, err := holdFor(ctx, r.self, r.SQLitePath(), b.Lasts)
		b.hit(unit, held)
		b.over()
		return err
	})
}

// diskLimit is Erlang for a free limit that no disk meets, or for the node's own.
func diskLimit(alarm bool) string {
	if alarm {
		return `rabbit_disk_monitor:set_disk_free_limit("900TB").`
	}
	return `rabbit_disk_monitor:set_disk_free_limit("64MB").`
}

func (r *rig) alarm(ctx context.Context, b *blow) error {
	return r.onUnit(ctx, b, r.RabbitNodes(), func(unit string) error {
		if err := r.StartUnit(ctx, unit); err != nil {
			return err
		}
		node, at := r.node(unit), time.Now()
		if _, err := r.Rabbit().Eval(ctx, node, diskLimit(true)); err != nil {
			return err
		}
		b.hit(unit, at)
		err := pause(ctx, b.Lasts)
		_, cleared := r.Rabbit().Eval(ctx, node, diskLimit(false))
		b.over()
		if cleared != nil {
			// It was killed meanwhile, and starts without an alarm.
			cleared = r.StartUnit(ctx, unit)
		}
		return errors.Join(err, cleared)
	})
}

func (r *rig) node(unit string) *services.RabbitNode {
	for i, name := range r.RabbitNodes() {
		if name == unit {
			return r.Rabbit().Nodes[i]
		}
	}
	return nil
}

func (r *rig) fillDisk(ctx context.Context, b *blow) error {
	return r.onUnit(ctx, b, r.Workers(), func(unit string) error {
		disk, ok := r.disks[unit]
		if !ok {
			return ErrNoNamespace
		}
		lasts, cancel := context.WithTimeout(ctx, b.Lasts)
		defer cancel()
		b.hit(unit, time.Now())
		err := disk.keepFull(lasts)
		b.over()
		return err
	})
}

// killEverything kills all nodes and daemons at the same time, whatever else is
// being done to them. What is down already is left so.
func (r *rig) killEverything(_ context.Context, b *blow) error {
	var group sync.WaitGroup
	at := time.Now()
	for _, unit := range append(r.RabbitNodes(), r.Workers()...) {
		group.Go(func() { _ = r.Kill(unit) })
	}
	group.Wait()
	b.hit("all nodes and daemons", at)
	return nil
}
