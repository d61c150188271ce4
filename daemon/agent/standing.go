package agent

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"gpuqd/daemon/device"
)

const (
	// statusTurn is how often the line is made anew. It is sent only where it says
	// something else.
	statusTurn = 2 * time.Second
	// statusBytesMax bounds the line; systemctl cuts long ones, in the middle.
	statusBytesMax = 1000
)

// standing is what only time or main knows of how the daemon stands.
type standing struct {
	mu       sync.Mutex
	waitsFor string               // of start-up; "" before and after
	settings string               // what is the matter with the settings on disk
	since    map[string]time.Time // when each part was first seen to be missing
}

// waits notes what start-up waits for.
func (s *standing) waits(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waitsFor = what
}

func (s *standing) waiting() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waitsFor
}

// SettingsNote says until further notice, in the status line, what is the matter
// with the settings on disk; "" is nothing.
func (a *Agent) SettingsNote(text string) {
	a.standing.mu.Lock()
	a.standing.settings = text
	a.standing.mu.Unlock()
	a.tellStatus()
}

func (s *standing) settingsNote() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}

// missed notes that a part is missing, or is not any more with why "", and returns
// since when.
func (s *standing) missed(part, why string, now time.Time) (since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if why == "" {
		delete(s.since, part)
		return time.Time{}
	}
	if s.since == nil {
		s.since = map[string]time.Time{}
	}
	if _, known := s.since[part]; !known {
		s.since[part] = now
	}
	return s.since[part]
}

// tellStatuses keeps the service manager's status line true.
func (a *Agent) tellStatuses(ctx context.Context) error {
	ticks := time.NewTicker(statusTurn)
	defer ticks.Stop()
	for ctx.Err() == nil {
		a.tellStatus()
		select {
		case <-ctx.Done():
		case <-ticks.C:
		}
	}
	return nil
}

// tellStatus sends the line if it has changed.
func (a *Agent) tellStatus() {
	if !a.managed {
		return
	}
	a.told.mu.Lock()
	defer a.told.mu.Unlock()
	if line := a.statusLine(); line != a.told.line && !a.told.over {
		a.told.line = line
		a.notify("STATUS=" + line)
	}
}

// told is the last line that was sent.
type told struct {
	mu   sync.Mutex
	line string
	over bool // the daemon has said its last
}

// tellLast sends a line that stays when the daemon is gone.
func (a *Agent) tellLast(line string) {
	a.told.mu.Lock()
	defer a.told.mu.Unlock()
	a.told.over = true
	a.notify("STOPPING=1\nSTATUS=" + oneLine(line))
}

// statusLine says in one line how this daemon fares: its devices, what runs, what
// is drained, what is missing.
func (a *Agent) statusLine() string {
	parts := []string{devicesLine(a.devices.Snapshot()), runningLine(a.runs.len())}
	parts = append(parts, a.drainLines()...)
	if why := a.parting.reason(); why != "" {
		parts = append(parts, why)
	}
	if left := a.lease.left(); a.lease.current() != "" && !a.lease.isClosed() && left < a.lease.ttl/2 {
		parts = append(parts, leaseLine(left, a.cfg.Lease.OnLoss))
	}
	if missing := a.missing(); len(missing) > 0 {
		parts = append(parts, "missing: "+strings.Join(missing, "; "))
	}
	if note := a.standing.settingsNote(); note != "" {
		parts = append(parts, note)
	}
	if what := a.standing.waiting(); what != "" {
		parts = []string{"starting: waiting for " + what}
	} else if !a.ready.Load() {
		parts = []string{"starting"}
	}
	return oneLine(strings.Join(parts, "; "))
}

// devicesLine counts the devices by their states.
func devicesLine(devices []device.Status) string {
	if len(devices) == 0 {
		return "no devices"
	}
	count := map[device.State]int{}
	simulated := 0
	for _, d := range devices {
		count[d.State]++
		if d.Simulated {
			simulated++
		}
	}
	var states []string
	for _, s := range []device.State{device.Busy, device.Draining, device.Checking, device.Free, device.Cordoned, device.Sick} {
		if n := count[s]; n > 0 {
			states = append(states, fmt.Sprintf("%d %s", n, s))
		}
	}
	kind := "device"
	if simulated == len(devices) {
		kind = "simulated device"
	}
	return fmt.Sprintf("%s: %s", plural(len(devices), kind), strings.Join(states, ", "))
}

func runningLine(running int) string {
	if running == 0 {
		return "no job running"
	}
	return plural(running, "job") + " running"
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// leaseLine says what becomes of the attempts that run when the lease ends.
func leaseLine(left time.Duration, onLoss string) string {
	end := map[string]string{"freeze": "frozen", "stop": "stopped", "continue": "left running, and may run elsewhere too"}[onLoss]
	if left <= 0 {
		return "the lease is over: jobs are " + end
	}
	// Rounded, so that the line changes every few seconds at most.
	return fmt.Sprintf("the lease ends in %s: then jobs are %s", max(left, 5*time.Second).Round(5*time.Second), end)
}

// stoppedLine says what becomes of what runs while no daemon does.
func stoppedLine(running int, until time.Time, onLoss string) string {
	if running == 0 {
		return "stopped; no job was running"
	}
	end := map[string]string{"freeze": "they are frozen", "stop": "they are stopped", "continue": "they may run elsewhere too"}[onLoss]
	return fmt.Sprintf("stopped; running on under shims: %s, until %s; then %s unless gpuqd is back",
		plural(running, "job"), until.UTC().Format(time.RFC3339), end)
}

// missing lists what keeps this host from its work, for people.
func (a *Agent) missing() []string {
	now := a.clock.Now()
	var list []string
	if !a.ready.Load() {
		list = append(list, "start-up is not over: waiting for "+cmp.Or(a.standing.waiting(), "its first step"))
	}
	add := func(part, why string) {
		since := a.standing.missed(part, why, now)
		switch {
		case why == "":
		case a.managed:
			list = append(list, fmt.Sprintf("%s, since %s: %s", part, since.UTC().Format(time.RFC3339), why))
		default: // nobody has looked before somebody asked
			list = append(list, part+": "+why)
		}
	}
	reached := a.reach.trouble()
	add("the ledger", reached)
	add("the broker", unhealthy(a.broker.Healthy()))
	add("the done-cache", unhealthy(a.done.Healthy()))
	add("the devices", a.devices.Problem())
	// That the host goes down is no lack; the line says it apart.
	if why := a.trouble(); a.ready.Load() && reached == "" && why != "" && why != a.parting.reason() {
		list = append(list, why)
	}
	return list
}

// unhealthy returns what is the matter with a part; "" is nothing.
func unhealthy(ok bool, why string) string {
	if ok {
		return ""
	}
	return cmp.Or(why, "out of order")
}

// oneLine makes a line of a text, and cuts one that is too long.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > statusBytesMax {
		text = strings.ToValidUTF8(text[:statusBytesMax], "") + "..."
	}
	return text
}

// waitingFor says in a few words what a step that fails needs.
func waitingFor(step string, err error) string {
	what := map[string]string{stepOpenLedger: "the ledger", stepReconcile: "what an earlier run left to be settled"}[step]
	return cmp.Or(what, step) + ": " + err.Error()
}
