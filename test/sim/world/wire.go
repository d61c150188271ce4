package world

import (
	"context"
	"errors"
	"time"
)

// Link is the state of the wire between a host and a part.
type Link int

// The states of a wire.
const (
	Up      Link = iota
	Refused      // the part answers that it is not there: nothing is sent
	Cut          // what is sent gets lost, both ways, and nobody is told
	Frozen       // the part stands still: what is sent arrives when it goes on
)

// Everyone is the host of a wire between all hosts and a part.
const Everyone = "*"

type wire struct{ host, part string }

// Rates are how often a part fails by itself, and how long it takes.
type Rates struct {
	Fast, Slow time.Duration // one way of a call lasts at least Fast and less than Slow
	LoseAsk    float64       // the request gets lost
	LoseAnswer float64       // the request takes effect, the answer gets lost
	Late       float64       // the request takes effect long after the caller gave up
}

// SetRates sets how a part behaves from now on.
func (w *World) SetRates(part string, r Rates) {
	w.Do(func() { w.rates[part] = r })
}

// SetLink sets a wire. What a frozen part was sent arrives when its wire leaves
// that state.
func (w *World) SetLink(host, part string, l Link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := wire{host, part}
	w.links[key] = l
	if l == Frozen {
		return
	}
	for _, arrive := range w.held[key] {
		arrive()
	}
	delete(w.held, key)
}

// link returns the worst of a host's own wire to a part and everyone's.
func (w *World) link(host, part string) (wire, Link) {
	own, all := wire{host, part}, wire{Everyone, part}
	if w.links[all] != Up {
		return all, w.links[all]
	}
	return own, w.links[own]
}

// LinkOf returns the state of the wire between a host and a part. Call it within
// Do.
func (w *World) LinkOf(host, part string) Link {
	_, l := w.link(host, part)
	return l
}

// What can become of a call. Parts turn them into errors of their own.
var (
	// ErrRefused: nothing was sent.
	ErrRefused = errors.New("simulated: connection refused")
	// ErrNoAnswer: it was sent, and may have taken effect, or may yet.
	ErrNoAnswer = errors.New("simulated: no answer in time")
	// ErrDead: the process that called is dead; nobody hears of the error.
	ErrDead = errors.New("simulated: this process is dead")
)

// Call is one request of a process to a part.
type Call struct {
	Part    string
	Step    string        // its name in histories: "ledger claim"
	Key     string        // what it is about; tells its chances from others'
	Timeout time.Duration // the caller gives up after it
	Effect  func()        // what it does, at one instant; at most once
	// Arrived, where set, is asked at the instant of the effect whether the part
	// takes it at all; if not the call goes unanswered.
	Arrived func() bool
	// OneWay has no answer to wait for: the call returns when it is sent.
	OneWay bool
	// Lost, where set, is told within Do that the request got lost on its way; a
	// frozen part has not lost what it was sent.
	Lost func()
}

// lose counts a request that got lost. Within Do.
func (w *World) lose(c Call) {
	w.lost++
	if c.Lost != nil {
		c.Lost()
	}
}

// Do makes a call for a process and waits for its answer.
func (p *Process) Do(ctx context.Context, c Call) error {
	w := p.host.world
	if err := p.enter(ctx); err != nil {
		return err
	}
	if p.step(c.Step, false) {
		return ErrDead
	}
	if err := p.enter(ctx); err != nil {
		return err // it was frozen at the step
	}
	var link Link
	var rates Rates
	w.Do(func() { _, link = w.link(p.host.name, c.Part); rates = w.rates[c.Part] })
	fate := w.Draw(p.host.name, c.Step, c.Key, "fate")
	chance := float64(fate>>11) / (1 << 53)
	there := w.Between(rates.Fast, rates.Slow, p.host.name, c.Step, c.Key, "there")
	sent := time.Now()
	switch {
	case link == Refused:
		time.Sleep(there)
		return p.after(ctx, ErrRefused)
	case link == Cut:
		return p.giveUp(ctx, c, sent)
	case chance < rates.LoseAsk:
		w.Do(func() { w.lose(c) })
		return p.giveUp(ctx, c, sent)
	case chance < rates.LoseAsk+rates.Late && c.Timeout > 0:
		w.Do(func() { w.lost++ })
		delay := c.Timeout + w.Between(0, c.Timeout, p.host.name, c.Step, c.Key, "late")
		time.AfterFunc(delay, func() { w.arrive(p.host.name, c) })
		return p.giveUp(ctx, c, sent)
	}
	time.Sleep(there)
	if !w.arrive(p.host.name, c) {
		return p.giveUp(ctx, c, sent)
	}
	if p.step(c.Step, true) {
		return ErrDead
	}
	if c.OneWay {
		return p.after(ctx, nil)
	}
	if chance > 1-rates.LoseAnswer {
		w.Do(func() { w.lost++ })
		return p.giveUp(ctx, c, sent)
	}
	time.Sleep(w.Between(rates.Fast, rates.Slow, p.host.name, c.Step, c.Key, "back"))
	w.Do(func() { _, link = w.link(p.host.name, c.Part) })
	if link == Cut || link == Frozen {
		return p.giveUp(ctx, c, sent)
	}
	return p.after(ctx, nil)
}

// arrive lets a request take effect where it can, or keeps it for a frozen part.
// It reports whether it took effect now.
func (w *World) arrive(host string, c Call) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	key, link := w.link(host, c.Part)
	switch link {
	case Cut, Refused:
		return false
	case Frozen:
		w.held[key] = append(w.held[key], func() {
			if c.Arrived == nil || c.Arrived() {
				c.Effect()
			}
		})
		return false
	}
	if c.Arrived != nil && !c.Arrived() {
		return false
	}
	c.Effect()
	return true
}

// giveUp waits until the caller has had enough.
func (p *Process) giveUp(ctx context.Context, c Call, sent time.Time) error {
	if c.OneWay {
		return p.after(ctx, nil)
	}
	var timeout <-chan time.Time
	if c.Timeout > 0 {
		// Not to the instant: two calls of one instant must not give up at one.
		more := p.host.world.Between(0, time.Millisecond, p.host.name, c.Step, c.Key, "give up")
		timer := time.NewTimer(c.Timeout - time.Since(sent) + more)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-timeout:
	case <-ctx.Done():
		return ctx.Err()
	case <-p.dead:
		return ErrDead
	}
	return p.after(ctx, ErrNoAnswer)
}

// after gives the process its answer, once it can hear it.
func (p *Process) after(ctx context.Context, err error) error {
	if gone := p.enter(ctx); gone != nil {
		return gone
	}
	return err
}
