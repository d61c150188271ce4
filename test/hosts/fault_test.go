package hosts

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/test/wait"
)

// everywhere does something on gpu1 to gpu3 at one time.
func (s *site) everywhere(t *testing.T, do func(*host)) {
	t.Helper()
	var all sync.WaitGroup
	for _, h := range s.gpus {
		all.Go(func() { do(h) })
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// startEverywhere starts a job on each of gpu1 to gpu3, which run until the stop
// file is there.
func (s *site) startEverywhere(t *testing.T) map[*host]job.ID {
	t.Helper()
	ids := map[*host]job.ID{}
	for _, h := range s.gpus {
		ids[h] = s.submit(t, h, "--pool", h.role, "--", payload, "--until", stopFile(t))
	}
	for _, id := range ids {
		s.waitRunning(t, id)
	}
	return ids
}

// leaseTimeout bounds what waits for the end of a lease, or for others to notice
// it: ttl, grace and two renewals, and what a busy machine adds.
const leaseTimeout = leaseTTL + leaseGrace + 2*leaseRenew + time.Minute

// expectFrozen waits until each job stands still, frozen by its cgroup, and longer
// than a lease lasts.
func (s *site) expectFrozen(t *testing.T, ids map[*host]job.ID) {
	t.Helper()
	for h, id := range ids {
		h.waitFrozen(t, id)
	}
	began := map[*host]int{}
	for h, id := range ids {
		began[h] = lines(h.executions(t, id))
	}
	hold(t, 2*leaseRenew)
	for h, id := range ids {
		if now := lines(h.executions(t, id)); now != began[h] {
			t.Errorf("job %s on %s has written %d lines since it was frozen", id, h.role, now-began[h])
		}
	}
}

// waitFrozen waits until the cgroup that the command is in says that it is frozen:
// by cgroup.events of v2, or by freezer.state of v1.
func (h *host) waitFrozen(t *testing.T, id job.ID) {
	t.Helper()
	wait.For(t, leaseTimeout, func() error {
		state := h.freezer(t, id)
		if state != "frozen" {
			return fmt.Errorf("the command of job %s on %s is %s", id, h.role, state)
		}
		return nil
	})
}

// freezer says what the command's cgroup says, and whether that is one of the
// job's unit.
func (h *host) freezer(t *testing.T, id job.ID) string {
	t.Helper()
	return h.output(t, "%s", strings.NewReplacer("{job}", string(id), "{payload}", payload).Replace(`
pid=
for p in /proc/[0-9]*; do
	[ "$(readlink $p/exe 2>/dev/null)" = {payload} ] && grep -qz GPUQ_JOB_ID={job} $p/environ && pid=${p#/proc/}
done
[ -n "$pid" ] || { echo gone; exit; }
own=$(sed -n 's/^0:://p' /proc/$pid/cgroup)
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
	case $own in */gpuqd-job-{job}.service*) ;; *) echo "outside of its unit, in $own"; exit ;; esac
	while [ "$own" != / ]; do
		case $own in */gpuqd-job-{job}.service*) ;; *) break ;; esac
		grep -q 'frozen 1' "/sys/fs/cgroup$own/cgroup.events" && echo frozen && exit
		own=$(dirname "$own")
	done
else
	freezer=$(sed -n 's/^[0-9]*:freezer://p' /proc/$pid/cgroup)
	grep -q FROZEN "/sys/fs/cgroup/freezer$freezer/freezer.state" && echo frozen && exit
	grep -q 'frozen 1' "/sys/fs/cgroup/unified$own/cgroup.events" 2>/dev/null && echo frozen && exit
fi
echo running`))
}

// expectThawed waits until the jobs go on, lets them come to their end, and checks
// that each ran once, with a pause.
func (s *site) expectThawed(t *testing.T, ids map[*host]job.ID) {
	t.Helper()
	for h, id := range ids {
		s.waitLines(t, h, id, lines(h.executions(t, id)))
		h.output(t, "touch %s", stopFile(t))
	}
	for h, id := range ids {
		if pause := longestPause(s.expectOneResult(t, id, 1)); pause < 2*leaseRenew {
			t.Errorf("job %s on %s was to stand still, and paused for %s at most", id, h.role, pause)
		}
	}
}

// expectTakenOver waits until another host runs the job, by the ledger and by the
// job's own witness, and returns that host.
func (s *site) expectTakenOver(t *testing.T, id job.ID, from *host) *host {
	t.Helper()
	j := s.waitFor(t, id, leaseTimeout, "running on another host", func(j *job.Job) bool {
		return j.State == job.Running && j.Owner.Host != from.role
	})
	to := s.owner(t, j)
	s.waitWitness(t, to, id, j.Attempt)
	return to
}

// cut drops all frames between svc and these hosts.
func (s *site) cut(t *testing.T, hosts ...*host) {
	t.Helper()
	var names []string
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	if err := s.lab.Partition(t.Context(), []string{s.svc.Name}, names); err != nil {
		t.Fatal(err)
	}
}

func (s *site) heal(t *testing.T) {
	t.Helper()
	if err := s.lab.Heal(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestAllHostsCutOffFreezeAndThaw(t *testing.T) {
	s := need(t)
	ids := s.startEverywhere(t)
	s.cut(t, s.gpus...)
	s.expectFrozen(t, ids)
	hold(t, leaseTTL+leaseGrace) // and nobody is expired by those who are cut off themselves
	s.heal(t)
	s.expectThawed(t, ids)
}

func TestHostThatIsCutOffIsTakenOver(t *testing.T) {
	s := need(t)
	id := s.submit(t, s.gpus[0], "--", payload, "--until", stopFile(t))
	h := s.waitRunning(t, id)
	s.cut(t, h)
	h.waitFrozen(t, id)
	to := s.expectTakenOver(t, id, h)
	s.heal(t)
	wait.For(t, leaseTimeout, func() error {
		if state := h.freezer(t, id); state != "gone" {
			return fmt.Errorf("the attempt on %s, which was taken over, is %s", h.role, state)
		}
		return nil
	})
	to.output(t, "touch %s", stopFile(t))
	s.expectOneResult(t, id, 2)
	s.expectWhole(t, h)
}

func TestLateResultOfAHostThatWasCutOffIsRefused(t *testing.T) {
	s := need(t)
	id := s.submit(t, s.gpus[0], "--", payload, "--until", stopFile(t))
	h := s.waitRunning(t, id)
	s.cut(t, h)
	h.output(t, "touch %s", stopFile(t)) // it comes to its end within its lease, and can tell nobody
	to := s.expectTakenOver(t, id, h)
	s.heal(t)
	s.expectWhole(t, s.others(to)...) // it has said what it had to say
	if j, err := s.show(t, id); err != nil || j.State != job.Running || j.Owner.Host != to.role {
		t.Errorf("after the late result the job is %+v (%v), want it running on %s", j, err, to.role)
	}
	to.output(t, "touch %s", stopFile(t))
	j := s.waitEnd(t, id)
	all := s.executions(t, id)
	if j.State != job.Succeeded || j.Result.Host != to.role || j.Result.Attempt != 2 || terminalRows(j) != 1 || len(all) != 2 || !all[0].Ended || !all[1].Ended {
		t.Errorf("job is %s (%s) by %+v after executions %+v; want the second's result alone", j.State, j.Reason, j.Result, all)
	}
}

func TestRebootedHostHandsItsJobsOverAtOnce(t *testing.T) {
	s := need(t)
	id := s.submit(t, s.gpus[0], "--", payload, "--until", stopFile(t))
	h := s.waitRunning(t, id)
	boot, err := h.BootID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	to := s.expectTakenOver(t, id, h)
	ctx, cancel := context.WithTimeout(t.Context(), wholeTimeout)
	defer cancel()
	if err := h.WaitBooted(ctx, boot); err != nil {
		t.Fatal(err)
	}
	s.expectWhole(t, s.others(to)...) // gpuqd is started with its host
	to.output(t, "touch %s", stopFile(t))
	all := s.expectOneResult(t, id, 2)
	var gap time.Duration
	for _, x := range all {
		if x.on == h {
			for _, y := range all {
				if y.on != h {
					gap = time.Duration(y.First.At-x.Last.At) * time.Millisecond
				}
			}
		}
	}
	t.Logf("handed over within %s; the lease is %s", gap, leaseTTL)
	if gap <= 0 || gap >= leaseTTL {
		t.Errorf("the job went on %s after it was stopped: before the lease of %s was over is at once", gap, leaseTTL)
	}
}

func TestPowerCutIsTakenOverAfterTheLease(t *testing.T) {
	s := need(t)
	id := s.submit(t, s.gpus[0], "--", payload, "--until", stopFile(t))
	h := s.waitRunning(t, id)
	if err := h.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	to := s.expectTakenOver(t, id, h)
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.expectWhole(t, s.others(to)...)
	to.output(t, "touch %s", stopFile(t))
	s.expectOneResult(t, id, 2)
}

// hold lets a fault last: its length is what is tested.
func hold(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}
