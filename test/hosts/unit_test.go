package hosts

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/test/hosts/witness"
	"gpuqd/test/wait"
)

// unitOf is the unit of a job's attempt on its host.
func unitOf(id job.ID) string { return "gpuqd-job-" + string(id) + ".service" }

// property returns one property of a unit.
func (h *host) property(t *testing.T, unit, name string) string {
	t.Helper()
	return h.output(t, "systemctl show --value -p %s %s", name, unit)
}

func TestStatusLineIsTrue(t *testing.T) {
	s := need(t)
	h := s.gpus[0]
	says := func(want string) {
		t.Helper()
		wait.For(t, stepTimeout, func() error {
			out := h.output(t, "systemctl --no-pager status gpuqd")
			if !strings.Contains(out, "active (running)") {
				return fmt.Errorf("gpuqd is not active: %s", out)
			}
			line := regexp.MustCompile(`(?m)^ *Status: "(.*)"`).FindStringSubmatch(out)
			if line == nil || line[1] != want {
				return fmt.Errorf("systemctl status has the line %q, want %q", line, want)
			}
			return nil
		})
	}
	says("2 simulated devices: 2 free; no job running")
	id := s.submit(t, h, "--pool", h.role, "--", payload, "--until", stopFile(t))
	s.waitRunning(t, id)
	says("2 simulated devices: 1 busy, 1 free; 1 job running")
	h.output(t, "touch %s", stopFile(t))
	s.expectOneResult(t, id, 1)
	says("2 simulated devices: 2 free; no job running")
}

// stopFile is where jobs of a test look whether they are to come to their end.
func stopFile(t *testing.T) string { return "/var/tmp/gpuq-stop-" + t.Name() }

func TestJobHasAUnitInTheSliceOfItsAccount(t *testing.T) {
	s := need(t)
	h := s.gpus[0]
	id := s.submit(t, h, "--pool", h.role, "--", payload, "--until", stopFile(t))
	s.waitRunning(t, id)
	tree := h.output(t, "systemd-cgls --no-pager --full --unit gpuq.slice")
	t.Log(tree)
	slice, unit, command := strings.Index(tree, "gpuq-"+person+".slice"), strings.Index(tree, unitOf(id)), strings.Index(tree, payload)
	if slice < 0 || unit < slice || command < unit {
		t.Errorf("systemd-cgls shows no %s with the job's command in gpuq-%s.slice:\n%s", unitOf(id), person, tree)
	}
	for name, want := range map[string]string{"Slice": "gpuq-" + person + ".slice", "ActiveState": "active", "DevicePolicy": "closed"} {
		if got := h.property(t, unitOf(id), name); got != want {
			t.Errorf("%s of the job's unit is %q, want %q", name, got, want)
		}
	}
	h.output(t, "touch %s", stopFile(t))
	s.expectOneResult(t, id, 1)
	wait.For(t, stepTimeout, func() error {
		if left := h.output(t, "systemctl list-units --all --plain --no-legend 'gpuqd-job-*'"); left != "" {
			return fmt.Errorf("units are left after the job's end: %s", left)
		}
		return nil
	})
}

func TestJobRunsAsItsSubmitter(t *testing.T) {
	s := need(t)
	h := s.gpus[0]
	id := s.submit(t, h, "--pool", h.role, "--", payload, "--work", "1s")
	x := s.expectOneResult(t, id, 1)[0].First
	slices.Sort(x.Groups)
	groups := slices.Compact(x.Groups)
	if x.UID != personUID || x.GID != personGID || x.Home != "/home/"+person || !slices.Equal(groups, []int{personGID, extraGID}) {
		t.Errorf("the job saw uid %d, gid %d, groups %v, HOME %q; want %d, %d, %v, /home/%s",
			x.UID, x.GID, groups, x.Home, personUID, personGID, []int{personGID, extraGID}, person)
	}
}

func TestJobOfRootIsRefused(t *testing.T) {
	s := need(t)
	h := s.gpus[0]
	out := h.output(t, "cd /tmp; gpuqctl submit --pool %s -- %s --work 1s 2>&1 || true", h.role, payload)
	id, err := job.ParseID(out)
	if err != nil {
		t.Logf("the submission is refused: %s", out)
		return
	}
	j := s.waitFor(t, id, stepTimeout, "dead or failed", func(j *job.Job) bool { return j.State == job.Dead || j.State == job.Failed })
	t.Logf("the job is %s: %s", j.State, j.Reason)
	if len(s.executions(t, id)) > 0 || !strings.Contains(j.Reason, "root") {
		t.Errorf("a job of root's ran, or was refused without saying why: %s, %s", j.State, j.Reason)
	}
}

// nodes stand for the device files of the two simulated devices: what opening
// them does to the machine is nothing.
var nodes = []string{"/dev/gpuq-e2e0", "/dev/gpuq-e2e1"}

// makeNodes makes them. They are the kernel's userspace file system and its loop
// control, which a closed DevicePolicy does not allow by itself.
func (h *host) makeNodes(t *testing.T) {
	t.Helper()
	h.output(t, "rm -f %[1]s %[2]s; mknod -m 666 %[1]s c 10 229; mknod -m 666 %[2]s c 10 237", nodes[0], nodes[1])
}

func TestJobOpensTheDeviceItWasGrantedAlone(t *testing.T) {
	s := need(t)
	h := s.gpus[0]
	h.makeNodes(t)
	both := "--open " + nodes[0] + " --open " + nodes[1]
	// What the test rests on: outside of a unit, this person opens both.
	free := h.output(t, "runuser -u %[2]s -- env GPUQ_JOB_ID=control GPUQ_ATTEMPT=1 %[3]s %[4]s; cat %[1]s/control.1; rm %[1]s/control.1",
		witness.Dir, person, payload, both)
	if strings.Count(free, `:"opened"`) != 2 {
		t.Fatalf("the files cannot both be opened without gpuqd: %s", free)
	}
	// Two jobs at one time have a device each, so each of the files is one's own.
	var ids []job.ID
	for range 2 {
		ids = append(ids, s.submit(t, h, append([]string{"--pool", h.role, "--", payload, "--until", stopFile(t)}, strings.Fields(both)...)...))
	}
	for _, id := range ids {
		s.waitRunning(t, id)
	}
	h.output(t, "touch %s", stopFile(t))
	granted := map[string]int{}
	for _, id := range ids {
		x := s.expectOneResult(t, id, 1)[0].First
		opened := 0
		for path, how := range x.Opened {
			switch how {
			case "opened":
				opened++
				granted[path]++
			case "EPERM":
			default:
				t.Errorf("job %s could not open %s: %s, want EPERM", id, path, how)
			}
		}
		if opened != 1 || len(x.Opened) != 2 {
			t.Errorf("job %s with the device %s opened %v, want one of two", id, x.Devices, x.Opened)
		}
	}
	if granted[nodes[0]] != 1 || granted[nodes[1]] != 1 {
		t.Errorf("files opened: %v, want each by one job", granted)
	}
}

func TestDaemonsOwnStopLeavesTheJobAlone(t *testing.T) {
	s := need(t)
	h := s.gpus[0]
	id := s.submit(t, h, "--pool", h.role, "--", payload, "--work", "12s")
	s.waitRunning(t, id)
	invocation := h.property(t, unitOf(id), "InvocationID")
	h.output(t, "systemctl stop gpuqd")
	before := lines(h.executions(t, id))
	s.waitLines(t, h, id, before)
	h.output(t, "systemctl start gpuqd")
	if now := h.property(t, unitOf(id), "InvocationID"); now != invocation {
		t.Errorf("the job's unit was invoked as %s, now as %s", invocation, now)
	}
	s.expectUninterrupted(t, id)
}

// expectUninterrupted checks that the job ended well by its only execution, which
// was never stopped for long.
func (s *site) expectUninterrupted(t *testing.T, id job.ID) {
	t.Helper()
	all := s.expectOneResult(t, id, 1)
	if pause := longestPause(all); pause > unnoticed {
		t.Errorf("the job stood still for %s", pause)
	}
}

// unnoticed is what a busy machine may do to a process that nobody stops.
const unnoticed = 5 * time.Second
