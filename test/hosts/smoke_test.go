package hosts

import "testing"

func TestJobRunsOnAHost(t *testing.T) {
	s := need(t)
	id := s.submit(t, s.gpus[0], "--", payload, "--work", "3s")
	s.waitRunning(t, id)
	s.expectOneResult(t, id, 1)
}
