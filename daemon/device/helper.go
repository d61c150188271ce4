package device

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Defaults of Helper.
const (
	DefaultInterval = 5 * time.Second
	DefaultSilence  = 30 * time.Second // NVML may take many seconds to initialise without persistence mode
	DefaultRestart  = time.Second
)

const (
	restartMax = time.Minute
	// patienceMax is how long an inventory waits for a device that hangs alone.
	patienceMax = 5 * time.Second
	// leaveAfterDefault is how long a stop waits for a helper that was asked to end.
	leaveAfterDefault = 5 * time.Second
)

// Helper is a Source that runs gpuqd-device and reads its lines. The helper may
// hang in the driver at any time: it is never waited for without another way out
// and never sent SIGKILL, which the driver answers with worse. One that says
// nothing is asked to end and left alone; the next starts when it is gone.
type Helper struct {
	Path     string        // of gpuqd-device
	Library  string        // path of the NVML library; "" is the driver's own, where the linker finds it
	Interval time.Duration // between inventories; 0 is DefaultInterval
	// Silence is how long nothing may come before all devices are sick; 0 is
	// DefaultSilence. A helper that goes on saying nothing for as long again is
	// asked to end; one that speaks before is well again.
	Silence time.Duration
	Restart time.Duration // pause after the first end, doubled up to a minute; 0 is DefaultRestart
	// Include lists the devices by UUID that are this daemon's, where several
	// share a host; empty is all. A GPU brings its MIG instances. One that the driver
	// does not report is sick.
	Include []string
	Logger  *slog.Logger // nil is silent

	leaveAfter time.Duration // 0 is leaveAfterDefault; tests set less

	mu     sync.Mutex    // guards what follows
	wanted uint64        // the highest look asked for
	look   chan struct{} // capacity 1: wanted has grown; nil before its first use
}

var (
	_ Source = (*Helper)(nil)
	_ Looker = (*Helper)(nil)
)

// Look implements Looker. Looks that gpuqd-device has not answered when it ends are
// asked of the next one.
func (h *Helper) Look(n uint64) {
	h.mu.Lock()
	h.wanted = max(h.wanted, n)
	h.mu.Unlock()
	select {
	case h.looks() <- struct{}{}:
	default: // a signal that nobody has read yet covers this one
	}
}

// looks returns the channel that signals that wanted has grown.
func (h *Helper) looks() chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.look == nil {
		h.look = make(chan struct{}, 1)
	}
	return h.look
}

func (h *Helper) highest() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.wanted
}

// Run keeps one gpuqd-device running and delivers what it says until ctx ends.
// It never gives up. A helper that hangs when ctx ends is left behind: it ends
// by itself when it comes back, since its input and output are closed.
func (h *Helper) Run(ctx context.Context, deliver func(Report)) error {
	f := &follower{
		path:       h.Path,
		library:    h.Library,
		interval:   positive(h.Interval, DefaultInterval),
		silence:    positive(h.Silence, DefaultSilence),
		leaveAfter: positive(h.leaveAfter, leaveAfterDefault),
		include:    h.Include,
		log:        h.Logger,
		deliver:    deliver,
		reported:   map[string]bool{},
		looks:      h.looks(),
		wanted:     h.highest,
	}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.quiet = time.NewTimer(f.silence)
	defer f.quiet.Stop()
	first := positive(h.Restart, DefaultRestart)
	pause := first
	for {
		if f.follow(ctx) {
			pause = first
		}
		if !f.pause(ctx, pause) {
			return nil
		}
		pause = min(2*pause, restartMax)
	}
}

func positive(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// follower is one Run of a Helper: what it knows over all its children. One
// goroutine owns it.
type follower struct {
	path, library     string
	interval, silence time.Duration
	leaveAfter        time.Duration
	include           []string
	log               *slog.Logger
	deliver           func(Report)
	looks             <-chan struct{} // signals that wanted has grown
	wanted            func() uint64

	quiet  *time.Timer // fires when silence has passed since the last good line of any child
	failed bool        // the last report delivered was an error
	ended  string      // how the last child ended; "" since one that runs well

	answered uint64          // the highest look that any inventory answered
	reported map[string]bool // UUIDs of Include that the driver has reported
	ours     map[string]bool // UUIDs that events may name: the devices of the last inventory, and their GPUs
}

// follow starts a child and reads it to its end. It reports whether the child
// delivered an inventory.
func (f *follower) follow(ctx context.Context) (heard bool) {
	if ctx.Err() != nil {
		return false
	}
	args := []string{
		"--interval", f.interval.String(), "--heartbeat", min(time.Second, f.silence/4).String(),
		// Shorter than the silence, after which the others would be sick, too.
		"--patience", min(patienceMax, f.silence/2).String(),
	}
	if f.library != "" {
		args = append(args, "--library", f.library)
	}
	c, err := startChild(f.path, args...)
	if err != nil {
		f.fail(HelperFailed, fmt.Sprintf("%v; install the package gpuqd-device, or set the helper's path", err))
		return false
	}
	lines := c.lines
	stuck := time.NewTimer(2 * f.silence)
	defer stuck.Stop()
	garbled := false
	f.ask(c)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				lines = nil
				c.leave() // its output is closed: it is of no more use
				continue
			}
			r, err := ParseLine(line)
			switch {
			case errors.Is(err, ErrWireVersion):
				f.fail(HelperFailed, err.Error())
				lines = nil
				c.leave()
			case err != nil:
				if !garbled {
					f.log.Warn("device helper wrote a line that is none", "err", err)
				}
				garbled = true
			default:
				stuck.Reset(2 * f.silence)
				f.take(r)
				f.ask(c) // what its input had no room for
				heard = heard || r.Devices != nil
			}
		case <-f.looks:
			f.ask(c)
		case <-f.quiet.C:
			f.fallSilent(c.pid())
		case <-stuck.C:
			f.log.Warn("device helper is stuck and was asked to end", "reason", f.silentReason(c.pid()))
			lines = nil
			c.leave()
		case <-c.done:
			f.end(c)
			return heard
		case <-ctx.Done():
			f.abandon(c)
			return heard
		}
	}
}

// take delivers one good line of a child.
func (f *follower) take(r Report) {
	f.quiet.Reset(f.silence)
	switch {
	case r.Error != nil:
		f.failed = true
	case r.Heartbeat && f.failed:
		return // alive, but what it knows of the devices is still to come
	case r.Devices != nil:
		f.failed, f.ended = false, ""
		f.answered = max(f.answered, r.Look)
		r.Devices = f.filter(r.Devices)
		f.own(r.Devices)
	}
	if r.Events != nil {
		r.Events = f.filterEvents(r.Events)
		if len(r.Events) == 0 && r.Devices == nil && r.Error == nil {
			return
		}
	}
	f.deliver(r)
}

// ask asks a child for the look that is outstanding, if there is one. Where its
// input is full it is asked again after its next line.
func (f *follower) ask(c *child) {
	if n := f.wanted(); n > f.answered {
		c.look(n)
	}
}

// filter keeps the devices that are this daemon's and adds those that should be
// there and are not.
func (f *follower) filter(all []Facts) []Facts {
	if len(f.include) == 0 {
		return all
	}
	ours := make([]Facts, 0, len(f.include))
	for _, uuid := range f.include {
		before := len(ours)
		for _, d := range all {
			if d.UUID == uuid || d.ParentUUID == uuid && !slices.Contains(f.include, d.UUID) {
				ours = append(ours, d)
			}
		}
		if len(ours) > before {
			f.reported[uuid] = true
			continue
		}
		if slices.ContainsFunc(all, func(d Facts) bool { return d.ParentUUID == uuid }) {
			continue // a GPU whose instances are all named beside it
		}
		missing := unseen(uuid).facts
		missing.Sick = "it is configured as this host's, but the driver does not report it; compare with nvidia-smi -L"
		missing.Lost = f.reported[uuid]
		ours = append(ours, missing)
	}
	return ours
}

// own takes note of whom events may be about.
func (f *follower) own(devices []Facts) {
	f.ours = map[string]bool{}
	for _, d := range devices {
		f.ours[d.UUID] = true
		f.ours[d.ParentUUID] = true // "" too: an event that names nobody is everybody's
	}
}

// filterEvents keeps the events of devices that are this daemon's, those of the GPUs
// that its MIG instances are part of, and those that name nobody. Before the first
// inventory it is not known who is part of what, and all are kept.
func (f *follower) filterEvents(all []Event) []Event {
	if len(f.include) == 0 || f.ours == nil {
		return all
	}
	return slices.DeleteFunc(all, func(e Event) bool { return e.UUID != "" && !f.ours[e.UUID] })
}

// fail delivers an error that the follower itself found.
func (f *follower) fail(kind ErrorKind, message string) {
	f.failed = true
	f.deliver(Report{Version: WireVersion, Error: &ReportError{Kind: kind, Message: message}})
}

// fallSilent delivers that nothing came in time, unless something worse is known
// already. pid is the child's, or 0 between two.
func (f *follower) fallSilent(pid int) {
	if !f.failed {
		f.fail(HelperSilent, f.silentReason(pid))
	}
}

func (f *follower) silentReason(pid int) string {
	if pid == 0 || f.ended != "" {
		return fmt.Sprintf("gpuqd-device has reported nothing for %s; it keeps ending (%s)", f.silence, f.ended)
	}
	return fmt.Sprintf("gpuqd-device (process %d) has said nothing for %s; it may hang in the driver, look at the kernel log",
		pid, f.silence)
}

// end takes note of a child that ended by itself.
func (f *follower) end(c *child) {
	how := c.how()
	if how != f.ended {
		f.log.Warn("device helper ended and is started again", "err", errors.New(how))
	}
	f.ended = how
}

// abandon asks a child to end and leaves it behind when it does not.
func (f *follower) abandon(c *child) {
	c.leave()
	timer := time.NewTimer(f.leaveAfter)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
		f.log.Warn("device helper does not end and is left behind", "reason", f.silentReason(c.pid()))
	}
}

// pause waits between two children; false means that ctx has ended.
func (f *follower) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return true
		case <-f.quiet.C:
			f.fallSilent(0)
		case <-ctx.Done():
			return false
		}
	}
}
