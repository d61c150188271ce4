package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/config"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/runner"

	"github.com/google/uuid"
)

// watcher is what this host itself has seen of the other hosts' renewals, on
// its own monotonic clock. Nobody's wall clock counts.
type watcher struct {
	self     string
	renew    time.Duration // between two reads, and two renewals of its own
	lastRead time.Time
	orphans  map[string]time.Time // own claims that nothing here knows of, by when that was first seen
	seen     map[string]sighting  // by host
}

type sighting struct {
	session string
	seq     int64
	since   time.Time // when this renewal was first seen
}

func newWatcher(self string, l config.Lease) *watcher {
	return &watcher{self: self, renew: l.Renew.Std(), seen: map[string]sighting{}, orphans: map[string]time.Time{}}
}

// gapMax is how long this host may have been without reads or renewals of its
// own before it distrusts what it has seen of a session: the ledger may have
// been out of everybody's reach.
func (w *watcher) gapMax(ttl time.Duration) time.Duration { return max(ttl/3, 2*w.renew) }

// observe takes in one read of all hosts and returns those whose live session
// has not been renewed for its TTL and grace, as far as this host can tell.
func (w *watcher) observe(now, renewed time.Time, hosts []*ledger.Host) (overdue []*ledger.Host) {
	blind := max(now.Sub(w.lastRead), now.Sub(renewed))
	w.lastRead = now
	known := make(map[string]sighting, len(hosts))
	for _, h := range hosts {
		if h.Name == w.self || h.Session.State != ledger.Live {
			continue
		}
		gap := blind > w.gapMax(h.Session.TTL.Std())
		s, ok := w.seen[h.Name]
		if !ok || gap || s.session != h.Session.ID || s.seq != h.Session.RenewSeq {
			s = sighting{session: h.Session.ID, seq: h.Session.RenewSeq, since: now}
		}
		known[h.Name] = s
		grace := config.Lease{TTL: h.Session.TTL}.Grace()
		if bugged(WallClockTakeover) {
			s.since = h.Session.RenewedAt.Time
		}
		if now.Sub(s.since) >= h.Session.TTL.Std()+grace {
			overdue = append(overdue, h)
		}
	}
	w.seen = known
	return overdue
}

// watchLoop compares the ledger with what it knows, every renewal interval: it
// expires sessions that are not renewed, takes over what sessions that are not
// live hold, and looks after this host's own jobs. Expiry and takeover are apart:
// it does not matter who expired a session, or whether he crashed right after.
func (a *Agent) watchLoop(ctx context.Context) error {
	w := newWatcher(a.host, a.cfg.Lease)
	return a.every(ctx, "watch", a.cfg.Lease.Renew.Std(), func(ctx context.Context) {
		if err := a.watchOnce(ctx, w); err != nil {
			a.ledgerFailed(err)
		}
	})
}

func (a *Agent) watchOnce(ctx context.Context, w *watcher) error {
	hosts, err := a.ledger.HostList(ctx)
	if err != nil {
		return err
	}
	beat(ctx)
	a.hosts.Store(&hosts)
	live := ledger.LiveSessions(hosts)
	for _, h := range w.observe(a.clock.Now(), a.lease.lastRenewal(), hosts) {
		beat(ctx)
		if a.expire(ctx, h) {
			delete(live, h.Session.ID)
		}
	}
	session, before := a.lease.current(), a.runs.all()
	held, err := a.ledger.Held(ctx)
	if err != nil {
		return err
	}
	beat(ctx)
	a.checkOwn(ctx, w, session, held, before)
	if err := a.takeOver(ctx, held, live); err != nil {
		return err
	}
	a.tallyJobs(ctx, hosts)
	return nil
}

// checkOwn compares the jobs that the ledger says this session holds with those
// that this daemon worked on before they were read.
func (a *Agent) checkOwn(ctx context.Context, w *watcher, session string, held []*job.Job, before []*run) {
	listed := make(map[string]bool, len(held))
	orphans := map[string]time.Time{}
	for _, j := range held {
		if j.Owner == nil || j.Owner.Session != session {
			continue
		}
		listed[j.Owner.ClaimID] = true
		if a.passKill(j) {
			continue
		}
		since, seen := w.orphans[j.Owner.ClaimID]
		if !seen {
			since = a.clock.Now()
		}
		orphans[j.Owner.ClaimID] = since
		if a.clock.Now().Sub(since) > a.cfg.Take.ClaimTimeout.Std() && a.isOrphan(j) {
			a.releaseOrphan(ctx, j, broker.Tag{})
		}
	}
	w.orphans = orphans
	for _, r := range before {
		beat(ctx)
		if !listed[r.hold.ClaimID] {
			a.checkFence(ctx, r)
		}
	}
}

// passKill tells the run of an own job that somebody asked to kill it. It reports
// whether this daemon knows of the job's claim at all.
func (a *Agent) passKill(j *job.Job) (known bool) {
	known = a.runs.knows(j.Owner.ClaimID)
	if r := a.runs.byClaim(j.Owner.ClaimID); r != nil && j.Kill != nil {
		r.kill(*j.Kill)
	}
	return known
}

// checkFence stops a run whose job the ledger has given to somebody else.
func (a *Agent) checkFence(ctx context.Context, r *run) {
	j, err := a.ledger.Job(ctx, r.hold.JobID)
	if err != nil || r.owned(j) || r.committing() {
		return
	}
	a.log.Warn("job is no longer this host's; stopping its attempt", "job_id", j.ID, "attempt", r.number,
		"fence", r.hold.Fence, "state_to", j.State)
	r.stop(runner.Stop{Reason: runner.StopFenced, Detail: "the job was given to another host", Grace: -1})
}

// expire marks a session as over, unless it was renewed after all. It reports
// whether it did.
func (a *Agent) expire(ctx context.Context, h *ledger.Host) bool {
	err := a.ledger.EndSession(ctx, h.Name, h.Session.ID, h.Session.RenewSeq, ledger.Expired, a.host)
	if err != nil {
		if !errors.Is(err, ledger.ErrNoMatch) {
			a.ledgerFailed(err)
		}
		return false
	}
	a.metrics.sessionsExpired.Inc()
	a.log.Warn("session of another host expired", "host", h.Name, "session", h.Session.ID)
	a.recordEvent(ctx, "expire_session", "gpuqd", h.Name,
		fmt.Sprintf("session %s was not renewed for %s and grace", h.Session.ID, h.Session.TTL))
	return true
}

// takeOver requeues every held job whose session is not live. A session that was
// live when the jobs were read may be missing from an older list, so those that
// are missing are looked up once more: after the jobs, they are over, not to come.
func (a *Agent) takeOver(ctx context.Context, held []*job.Job, live map[string]bool) error {
	suspects := slices.DeleteFunc(held, func(j *job.Job) bool { return j.Owner == nil || live[j.Owner.Session] })
	if len(suspects) == 0 {
		return nil
	}
	hosts, err := a.ledger.HostList(ctx)
	if err != nil {
		return err
	}
	live = ledger.LiveSessions(hosts)
	for _, j := range suspects {
		if live[j.Owner.Session] {
			continue
		}
		beat(ctx)
		if err := a.contain(j.ID, func() error { return a.takeOverJob(ctx, j) }); err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) takeOverJob(ctx context.Context, j *job.Job) error {
	after, err := a.ledger.Takeover(ctx, j, a.host, "takeover-"+uuid.NewString(), a.now())
	if errors.Is(err, ledger.ErrNoMatch) {
		return nil // somebody else was first, or its host has committed
	}
	if err != nil {
		return err
	}
	a.metrics.takeovers.Inc()
	a.log.Warn("job taken over from a session that is not live", "job_id", j.ID, "attempt", j.Attempt,
		"fence", j.Fence, "state_from", j.State, "state_to", after.State, "reason", after.Reason)
	if after.State == job.Queued {
		a.publishAgain(ctx, after)
	} else if after.State.Terminal() {
		a.done.Store(ctx, after.ID, after.State)
	}
	return nil
}
