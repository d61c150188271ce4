package world

// Step is one step of the protocol as it happens: a call that a process is about
// to make, or one that has just taken effect, unknown to its caller.
type Step struct {
	Process *Process
	Host    string
	Name    string // of the call: "ledger claim"
	Nth     int    // of this name on this host, from 1
	After   bool   // it has taken effect
}

type step struct {
	host, name string
}

// OnStep has f called at every step, outside of any instant. f may kill the
// process or crash the host there: a crash at a numbered step.
func (w *World) OnStep(f func(Step)) { w.onStep = f }

// step announces a step. It reports whether the process died of it.
func (p *Process) step(name string, after bool) bool {
	w := p.host.world
	if w.onStep == nil {
		return false
	}
	key := step{p.host.name, name}
	var nth int
	w.Do(func() {
		if !after {
			w.steps[key]++
		}
		nth = w.steps[key]
	})
	w.onStep(Step{Process: p, Host: p.host.name, Name: name, Nth: nth, After: after})
	var gone bool
	w.Do(func() { gone = p.gone })
	return gone
}
