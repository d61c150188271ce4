package sim

import (
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/test/history"
)

// A host that shuts down gives its jobs to others at once: not after a lease, and
// not before they are ended here.
func TestShutdownReleasesTheSessionAtOnce(t *testing.T) {
	p := Plan{
		Jobs: []Job{
			{At: time.Second, GPUs: 1, Run: 60 * time.Second, MaxAttempts: 1},
			{At: time.Second, GPUs: 1, Run: 60 * time.Second, MaxAttempts: 1, IgnoresTERM: true},
		},
		Faults: []Fault{{Kind: ShutDown, Host: "host_1", At: 10 * time.Second, For: 8 * time.Minute}},
	}.told(0)
	p.Hosts[0].Devices, p.Hosts[1].Devices = 2, 2
	out := Run(t, p, nil)
	if len(out.Violations) > 0 {
		fail(t, out)
	}
	var told, released time.Time
	ended, began := map[job.ID]time.Time{}, map[job.ID]time.Time{}
	for _, e := range out.Events {
		switch {
		case e.Kind == history.Fault:
			told = e.At
		case told.IsZero():
		case e.Kind == history.SessionReleased && e.Host == "host_1" && released.IsZero():
			released = e.At
		case e.Kind == history.Finished && e.Host == "host_1":
			ended[e.Job] = e.At
		case e.Kind == history.Began:
			began[e.Job] = e.At
		}
	}
	if released.IsZero() || released.Sub(told) > shutDownWithin {
		t.Fatalf("the session was released %s after the word", released.Sub(told))
	}
	if len(ended) == 0 {
		t.Fatal("nothing ran on the host that went down: this test shows nothing")
	}
	for id, at := range ended {
		next, ok := began[id]
		if !ok || next.Before(at) || next.Sub(told) > 2*shutDownWithin {
			t.Errorf("job %s was ended %s after the word, and began elsewhere after %s", id, at.Sub(told), next.Sub(told))
		}
	}
}

// A shutdown that does not happen costs what was ended for it, and no more: the
// host takes work again, under a new session where it had released the last.
func TestShutdownThatIsCalledOffLeavesTheHostAtWork(t *testing.T) {
	for _, after := range []time.Duration{50 * time.Millisecond, 500 * time.Millisecond, 4 * time.Second, 20 * time.Second} {
		p := Plan{
			Jobs: []Job{
				{At: time.Second, GPUs: 1, Run: 20 * time.Second, MaxAttempts: 1},
				{At: 8 * time.Second, GPUs: 1, Run: 5 * time.Second, MaxAttempts: 1},
			},
			Faults: []Fault{{Kind: CallOff, Host: "host_1", At: 6 * time.Second, For: after}},
		}.told(0)
		p.Hosts = p.Hosts[:1]
		out := Run(t, p, nil)
		if len(out.Violations) > 0 {
			fail(t, out)
		}
		last := map[job.ID]job.State{}
		for _, e := range out.Events {
			if e.Kind == history.Changed {
				last[e.Job] = e.State
			}
		}
		for id, state := range last {
			if state != job.Succeeded {
				t.Errorf("called off after %s: job %s is %s", after, id, state)
			}
		}
	}
}
