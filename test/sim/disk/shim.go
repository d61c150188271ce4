package disk

import (
	"slices"
	"time"

	"gpuqd/daemon/runner"
	"gpuqd/test/sim/world"
)

// shim is one run of gpuqd-shim. One goroutine is it; a second one lives while the
// reason of a stop is on its way to the disk.
type shim struct {
	d        *Disk
	e        *entry
	proc     *world.Process
	answer   chan answer   // capacity 1: it has one word to say
	bell     chan struct{} // capacity 1: look again at what is due
	boot     string
	offset   time.Duration // from the world's time to CLOCK_BOOTTIME, in this boot
	answered bool

	// What follows is guarded by the world's instant.
	pid       int
	tree      *tree // nil before the fork
	released  bool
	began     time.Duration // all of the world
	beganWall time.Time
	ended     time.Duration
	endedWall time.Time // zero: not noticed

	stepped  time.Duration // the loop's last turn; the next tick is a Tick later
	reader   time.Duration // one of the reader's ticks
	readAt   time.Duration // the reader's last look out of turn
	judged   leaseState    // at the last turn
	due      time.Duration // when a turn can change something
	lastStop runner.Stop   // the request that was read last

	frozen      bool
	frozenSince time.Duration
	frozenTotal time.Duration

	stop     *runner.Stop // the first one
	grace    time.Duration
	wrote    bool // the stop reason is on disk, which the loop has not heard yet
	stopping bool // signals may be sent
	killAt   time.Duration
}

// never is a time that does not come.
const never = time.Duration(1<<63 - 1)

// launch starts a shim. Not within Do.
func (d *Disk) launch(e *entry) *shim {
	s := &shim{d: d, e: e, answer: make(chan answer, 1), bell: make(chan struct{}, 1), due: never, killAt: never}
	s.proc = d.host.Start("shim", s.died)
	d.world.Do(func() {
		if !s.proc.Gone() {
			d.shims = append(d.shims, s)
		}
	})
	go s.run()
	return s
}

// died is what the kernel does at the shim's end: the command ends with it, what
// the command has forked does not.
func (s *shim) died() {
	var t *tree
	s.d.world.Do(func() {
		s.d.shims = slices.DeleteFunc(s.d.shims, func(o *shim) bool { return o == s })
		s.d.crash()
		if t = s.tree; t != nil && !(t.begun && t.what.Forks) {
			t.kill()
		}
	})
	if t != nil {
		t.bury()
	}
}

// crash ends every payload where the host is down: its processes die in no order.
// Within Do.
func (d *Disk) crash() {
	for !d.host.Up() && len(d.trees) > 0 {
		d.trees[0].kill()
	}
}

// ring makes the loop look again at what is due.
func (s *shim) ring() {
	select {
	case s.bell <- struct{}{}:
	default:
	}
}

// nudge is SIGUSR1: the reader looks at once. Within Do.
func (s *shim) nudge() {
	s.readAt = s.d.world.Now()
	s.ring()
}

// release lets the command go, and starts the clocks. Within Do.
func (s *shim) release() {
	now := s.d.world.Now()
	s.released, s.began, s.stepped, s.readAt = true, now, now, now
	s.reader = now + s.d.world.Between(1, Tick, s.d.host.Name(), "reader", s.e.name)
	s.e.log = Witness(s.e.key.JobID, s.e.key.Attempt, s.d.host.Name())
	s.tree.begin(now)
	if s.e.stop != nil { // requested during the start
		s.ring()
	}
}

// tickFrom returns the first tick at or after t, but after the last turn.
func (s *shim) tickFrom(t time.Duration) time.Duration {
	return s.stepped + max((t-s.stepped+Tick-1)/Tick, 1)*Tick
}

// readFrom returns the reader's first tick at or after t.
func (s *shim) readFrom(t time.Duration) time.Duration {
	if t <= s.reader {
		return s.reader
	}
	return s.reader + (t-s.reader+Tick-1)/Tick*Tick
}

// lastRead returns when the reader looked last.
func (s *shim) lastRead(now time.Duration) time.Duration {
	if now < s.reader {
		return s.readAt
	}
	return max(s.readAt, s.reader+(now-s.reader)/Tick*Tick)
}

// leaseState is what the session's deadline file says to the attempt.
type leaseState int

const (
	leaseLive    leaseState = iota // it may run
	leaseLate                      // past the deadline, or no word for it: stand still
	leaseExpired                   // the session is over: end
)

func (s leaseState) String() string {
	return [...]string{"live", "its deadline has passed, or its deadline file is missing or another session's", "the session has expired"}[s]
}

func (s *shim) file() *deadlineFile { return s.d.files[s.e.in.DeadlineFile] }

func (s *shim) newestWord() runner.Deadline { return s.file().newest().word }

// judge says what a word of the deadline file means at an instant.
func (s *shim) judge(word runner.Deadline, now time.Duration) leaseState {
	in := &s.e.in
	switch {
	case in.DeadlineFile == "":
		return leaseLive
	case word.Session == in.Session && word.BootID == s.boot && word.State == runner.SessionExpired:
		return leaseExpired
	case word.Live(in.Session, s.boot, now+s.offset):
		return leaseLive
	}
	return leaseLate
}
