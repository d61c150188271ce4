package campaign

import (
	"fmt"
	"time"

	"gpuqd/daemon/runner"
)

// attemptKey names an attempt on a host: after a takeover the numbers differ, but
// a judge takes nothing for granted.
type attemptKey struct {
	host string
	key  runner.Key
}

// journalled is what a host's journal has of an attempt.
type journalled struct {
	claimID string
	fence   int64
	devices []string
	begun   time.Time
	started bool
	exit    *runner.Exit // nil: none was recorded
	lost    bool
	commit  string // the ID of its commit; "" where there was none
}

// journals reads the journals of all hosts, whose daemons must have ended.
func (r *rig) journals() (map[attemptKey]journalled, error) {
	all := map[attemptKey]journalled{}
	for _, worker := range r.Workers() {
		if err := readJournal(r.StateDir(worker), worker, all); err != nil {
			return nil, fmt.Errorf("read the journal of %s: %w", worker, err)
		}
	}
	return all, nil
}

func readJournal(state, host string, into map[attemptKey]journalled) error {
	journal, err := runner.OpenJournal(state)
	if err != nil {
		return err
	}
	defer journal.Close()
	attempts, err := journal.List()
	if err != nil {
		return err
	}
	for _, a := range attempts {
		in := a.Intent()
		j := journalled{claimID: in.ClaimID, fence: in.Fence, devices: in.Devices, begun: in.ClaimedAt}
		if _, j.started, err = a.Started(); err != nil {
			return err
		}
		exit, ok, err := a.Exit()
		if err != nil {
			return err
		}
		if ok {
			j.exit, j.lost = exit, exit.Lost
		}
		verdict, ok, err := a.Verdict()
		if err != nil {
			return err
		}
		if ok {
			j.commit = verdict.CommitID
		}
		into[attemptKey{host, a.Key()}] = j
	}
	return nil
}
