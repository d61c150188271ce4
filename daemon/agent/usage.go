package agent

import (
	"maps"
	"sync"
	"time"
)

const (
	// usersMax bounds the users that a daemon's metrics name, by when they first held a
	// device; the time of all others is added up.
	usersMax = 64
	// usersRest is the name under which it is.
	usersRest = "other"
)

// usage is how long each user's attempts have held devices since this daemon started.
// It only grows, and does so while an attempt runs: who asks brings it up to date.
type usage struct {
	mu      sync.Mutex
	seconds map[string]float64
	until   map[*run]time.Time // up to when a run is counted; absent before its first time
}

func newUsage() *usage {
	return &usage{seconds: map[string]float64{}, until: map[*run]time.Time{}}
}

// advance counts what the runs have held since they were counted last.
func (u *usage) advance(now time.Time, runs []*run) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range runs {
		u.count(now, r)
	}
}

// end counts a run for the last time. It is over, and the daemon must not ask for it
// again: a list of runs that was made before may still have it.
func (u *usage) end(now time.Time, r *run) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.count(now, r)
	delete(u.until, r)
	r.counted = true
}

// count counts one run; u.mu is held.
func (u *usage) count(now time.Time, r *run) {
	if r.counted || len(r.devices) == 0 {
		return
	}
	since, ok := u.until[r]
	if !ok {
		since = r.heldSince
	}
	u.until[r] = now
	u.seconds[u.name(r.job.Submitter)] += max(0, now.Sub(since).Seconds()) * r.devicesHeld()
}

// name is what a user is called: by name while there is room for one more.
func (u *usage) name(user string) string {
	if _, ok := u.seconds[user]; ok || len(u.seconds) < usersMax {
		return user
	}
	return usersRest
}

// byUser returns the seconds of each user.
func (u *usage) byUser() map[string]float64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := make(map[string]float64, len(u.seconds))
	maps.Copy(all, u.seconds)
	return all
}
