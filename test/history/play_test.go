package history

import (
	"fmt"
	"time"

	"gpuqd/daemon/job"
)

// play makes legal histories at random: a small site that keeps the protocol,
// with a few jobs and hosts, whose acks may stay under way for any time. Whatever
// Check finds in them is a mistake of Check.
type play struct {
	*tale
	choose func(n int) int // from 0 up to n-1
	lives  []*life
	hosts  []*machine
}

// life is what the site knows of one job.
type life struct {
	id       job.ID
	queue    int // messages in its queue
	gpus     int
	turns    []*turn
	unborn   bool
	wakes    bool // a retry is due
	codes    []int
	republic int // times that it was published anew
}

// turn is one claim, from the take on.
type turn struct {
	host    *machine
	id      job.ID
	mine    *job.Job
	tag     Tag
	devices []string
	phase   phase
	frozen  bool
	lost    bool // taken over; its host does not know yet
}

type phase int

const (
	claimed phase = iota
	begun
	finished
	closed
)

// machine is one host. What it has sent to the broker arrives in order, or is
// lost with the connection.
type machine struct {
	name    string
	drained bool
	free    []string
	sent    []func()
	held    map[Tag]*life
}

func newPlay(jobs, hosts int, choose func(n int) int) *play {
	p := &play{tale: begin(), choose: choose}
	for i := range jobs {
		p.lives = append(p.lives, &life{id: job.ID(fmt.Sprintf("job-%02d", i)), unborn: true, gpus: choose(3), codes: []int{choose(2), 0}})
	}
	for i := range hosts {
		p.hosts = append(p.hosts, &machine{name: fmt.Sprintf("host-%d", i), free: []string{"g0", "g1"}, held: map[Tag]*life{}})
	}
	return p
}

// run acts n steps at random, with whatever may happen, and then, without faults,
// until every job is over and nothing is under way.
func (p *play) run(n int) *play {
	for range n {
		p.act(true)
	}
	for p.act(false) {
	}
	return p
}

// act does one thing that may happen now. It returns false where nothing may.
func (p *play) act(faults bool) bool {
	var may []func()
	for _, l := range p.lives {
		may = append(may, p.acts(l, faults)...)
	}
	for _, m := range p.hosts {
		if len(m.sent) > 0 {
			may = append(may, func() { m.arrive() })
		}
		if m.drained {
			may = append(may, func() { m.drained = false; p.undrains(m.name) })
		} else if faults && p.choose(8) == 0 {
			may = append(may, func() { m.drained = true; p.tale.drains(m.name) })
		}
		if faults && p.choose(6) == 0 {
			may = append(may, func() { p.drop(m) }, func() { p.crash(m) }, func() { p.cut(m) })
		}
	}
	if len(may) == 0 {
		return false
	}
	may[p.choose(len(may))]()
	return true
}

func (m *machine) arrive() {
	first := m.sent[0]
	m.sent = m.sent[1:]
	first()
}

// acts are the things that may happen to one job.
func (p *play) acts(l *life, faults bool) (may []func()) {
	if l.unborn {
		return append(may, func() { l.unborn = false; l.queue++; p.submitted(l.id) })
	}
	state := p.doc(l.id).State
	if state == job.Waiting {
		may = append(may, func() { p.asksRelease(l.id).isUnparked(l.id); p.put(l, p.hosts[0]) })
	}
	if state == job.Retrying && !l.wakes {
		may = append(may, func() { l.wakes = true })
	}
	if l.queue > 0 {
		for _, m := range p.hosts {
			may = append(may, func() { p.take(l, m) })
		}
	}
	waits := state == job.Queued || state == job.Retrying && l.wakes
	if waits && l.queue == 0 && len(p.holders(l)) == 0 || faults && waits && l.republic < 3 {
		may = append(may, func() { l.republic++; p.isRepublished("host-0", l.id); p.put(l, p.hosts[0]) })
	}
	if faults && waits && p.choose(10) == 0 {
		may = append(may, func() { p.isKilled(l.id) }, func() { p.isParked(l.id).isHeld(l.id) })
	}
	for _, t := range l.turns {
		if t.phase != closed {
			may = append(may, p.steps(l, t)...)
		}
	}
	return may
}

// holders are the deliveries of a job that hosts hold.
func (p *play) holders(l *life) (n []*machine) {
	for _, m := range p.hosts {
		for _, of := range m.held {
			if of == l {
				n = append(n, m)
			}
		}
	}
	return n
}

func (p *play) put(l *life, by *machine) {
	l.queue++
	p.publishes(by.name, l.id)
}

// take is a delivery, and what its host makes of it at once.
func (p *play) take(l *life, m *machine) {
	l.queue--
	p.takes(m.name, l.id)
	tag := p.tags[m.name+string(l.id)]
	m.held[tag] = l
	if t := l.turnOn(m); t != nil && t.phase != finished {
		if t.tag.Generation == tag.Generation && t.tag != (Tag{}) {
			p.sendAck(l, m, tag)
		} else {
			t.tag = tag
		}
		return
	}
	doc := p.doc(l.id)
	switch {
	case doc.State == job.Queued, doc.State == job.Retrying && l.wakes:
		if m.drained || len(m.free) < l.gpus || l.turnOn(m) != nil {
			p.sendBack(l, m, tag)
			return
		}
		devices := m.free[:l.gpus:l.gpus]
		m.free = m.free[l.gpus:]
		l.wakes = false
		p.claims(m.name, l.id, devices...)
		l.turns = append(l.turns, &turn{host: m, id: l.id, mine: p.mine[m.name+string(l.id)], tag: tag, devices: devices})
	case doc.State == job.Retrying:
		p.put(l, m)
		p.sendAck(l, m, tag)
	case doc.State.Terminal(), doc.State == job.Waiting, doc.Owner.Host != m.name:
		p.sendAck(l, m, tag)
	default:
		p.sendBack(l, m, tag)
	}
}

// turnOn returns the turn of the job that is not closed on a host.
func (l *life) turnOn(m *machine) *turn {
	for _, t := range l.turns {
		if t.host == m && t.phase != closed {
			return t
		}
	}
	return nil
}

func (p *play) sendAck(l *life, m *machine, tag Tag) {
	m.sent = append(m.sent, func() {
		if m.held[tag] == l {
			delete(m.held, tag)
			p.acksTag(m.name, l.id, tag)
		}
	})
}

func (p *play) sendBack(l *life, m *machine, tag Tag) {
	m.sent = append(m.sent, func() { p.back(l, m, tag) })
}

func (p *play) back(l *life, m *machine, tag Tag) {
	if m.held[tag] == l {
		delete(m.held, tag)
		l.queue++
		p.add(Event{Kind: Returned, Job: l.id, Host: m.name, Tag: tag})
	}
}

// steps are the next steps of a turn.
func (p *play) steps(l *life, t *turn) []func() {
	m, id := t.host.name, l.id
	p.mine[m+string(id)] = t.mine
	if t.lost {
		return []func(){func() { p.discard(l, t) }}
	}
	switch {
	case t.frozen:
		return []func(){func() { t.frozen = false; p.thaws(m, id) }}
	case t.phase == claimed:
		return []func(){
			func() { t.phase = begun; p.begins(m, id) },
			func() { t.free(); p.releases(m, id); p.handOver(l, t) },
		}
	case t.phase == begun && p.doc(id).State == job.Claimed:
		return []func(){func() { p.started(m, id) }, func() { p.finish(l, t) }}
	case t.phase == begun:
		return []func(){func() { p.finish(l, t) }}
	}
	return []func(){func() { p.commit(l, t) }}
}

func (t *turn) free() {
	t.host.free = append(t.host.free, t.devices...)
	t.devices = nil
}

func (p *play) finish(l *life, t *turn) {
	t.phase = finished
	p.mine[t.host.name+string(l.id)] = t.mine
	p.ends(t.host.name, l.id, l.code(t))
	t.free()
}

func (l *life) code(t *turn) int { return l.codes[min(t.mine.Attempt, len(l.codes))-1] }

func (p *play) commit(l *life, t *turn) {
	m, id := t.host.name, l.id
	p.mine[m+string(id)] = t.mine
	if l.code(t) == 0 {
		p.commits(m, id, job.Succeeded, "", 0)
		p.close(l, t)
		return
	}
	p.commits(m, id, job.Retrying, job.ClassUser, l.code(t))
	p.handOver(l, t)
}

// handOver publishes the job, and closes the turn that did.
func (p *play) handOver(l *life, t *turn) {
	p.put(l, t.host)
	p.close(l, t)
}

func (p *play) close(l *life, t *turn) {
	t.phase = closed
	if t.tag != (Tag{}) {
		p.sendAck(l, t.host, t.tag)
	}
}

// discard ends what is left of a turn that was taken over.
func (p *play) discard(l *life, t *turn) {
	p.mine[t.host.name+string(l.id)] = t.mine
	if t.phase == begun {
		p.dies(t.host.name, l.id)
	}
	t.free()
	t.phase = closed
	if t.tag != (Tag{}) {
		p.sendBack(l, t.host, t.tag)
	}
}

// drop breaks the connection of a host.
func (p *play) drop(m *machine) {
	p.breaks("drop_broker", m.name)
	m.sent = nil
	for _, l := range p.lives {
		generation := p.next[m.name].Generation
		for n := range p.next[m.name].Delivery {
			p.back(l, m, Tag{generation, n + 1})
		}
		if t := l.turnOn(m); t != nil {
			t.tag = Tag{}
		}
	}
	p.next[m.name] = Tag{Generation: p.next[m.name].Generation + 1}
}

// crash ends a host's payloads. What it held is taken over; it may go on at once.
func (p *play) crash(m *machine) {
	p.breaks("crash_host", m.name)
	p.drop(m)
	for _, l := range p.lives {
		t := l.turnOn(m)
		if t == nil {
			continue
		}
		p.mine[m.name+string(l.id)] = t.mine
		if t.phase == begun {
			p.dies(m.name, l.id)
		}
		t.free()
		t.phase = closed
		if !t.lost {
			p.takeOver(l, m)
		}
	}
}

func (p *play) takeOver(l *life, m *machine) {
	p.isTakenOver(l.id, m.name)
	p.put(l, p.hosts[0])
}

// cut takes a host from the ledger until its jobs have been frozen and, some of
// them, taken over; the host learns of that later.
func (p *play) cut(m *machine) {
	p.breaks("cut_wire", m.name)
	p.now = p.now.Add(time.Minute)
	for _, l := range p.lives {
		t := l.turnOn(m)
		if t == nil || t.lost || t.phase == finished {
			continue
		}
		p.mine[m.name+string(l.id)] = t.mine
		if t.phase == begun && !t.frozen {
			t.frozen = true
			p.freezes(m.name, l.id)
		}
		if p.choose(2) == 0 {
			t.lost = true
			p.takeOver(l, m)
		}
	}
}
