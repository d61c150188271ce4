package runnertest

import (
	"errors"
	"strings"

	"gpuqd/daemon/runner"
)

// killedWithShim: the shim leaves no exit, whatever it could have seen of its
// command's end, and nothing of the tree outlives it.
func killedWithShim(b *Bench) {
	begun := b.Begin(b.Intent("true"))
	if err := begun.KillWithShim(b.ctx()); !errors.Is(err, runner.ErrNotStarted) {
		b.Errorf("before the start: %v, want ErrNotStarted", err)
	}
	b.Must(begun.Revoke())

	pids := b.File("pids")
	a := b.Start(b.Intent(stubborn(pids) + "echo $$ >> " + pids + "; sleep 1000"))
	all := b.PIDs(pids, 4)
	b.Must(a.KillWithShim(b.ctx()))
	if alive := Alive(append(all, b.Started(a).ShimPID)); len(alive) > 0 {
		b.Errorf("%v are alive", alive)
	}
	if e, ended, err := a.Exit(); err != nil || ended {
		b.Errorf("the shim recorded %+v (%v)", e, err)
	}
	if _, err := a.Wait(b.ctx()); !errors.Is(err, runner.ErrLost) {
		b.Errorf("Wait: %v, want ErrLost", err)
	}
	b.Must(a.RecordLost("its host died"))
	if e := b.Wait(a); !e.Lost || !strings.HasPrefix(e.Reason, "its host died") {
		b.Errorf("got %+v", e)
	}
}
