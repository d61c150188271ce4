package broker

import "time"

// RetryLadder lists the delays for which there is a retry queue, shortest
// first. It is fixed: a queue cannot change its TTL, and messages behind a
// longer TTL would wait for it.
var RetryLadder = []time.Duration{
	1 * time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
	1 * time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute,
	1 * time.Hour,
}

// RetryStep returns the shortest step of RetryLadder that is not shorter than
// d, or the longest step. A job that comes back before its not_before is
// answered by its claim.
func RetryStep(d time.Duration) time.Duration {
	for _, step := range RetryLadder {
		if step >= d {
			return step
		}
	}
	return RetryLadder[len(RetryLadder)-1]
}
