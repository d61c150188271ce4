package campaign

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"gpuqd/daemon/job"
)

// Kind says how a job behaves.
type Kind string

// The kinds of jobs.
const (
	Plain    Kind = "plain"    // runs and succeeds
	Long     Kind = "long"     // as plain, for longer than the broker's consumer_timeout
	Deaf     Kind = "deaf"     // as plain, and ignores SIGTERM
	Flaky    Kind = "flaky"    // fails once or twice, then succeeds
	Hopeless Kind = "hopeless" // fails until no attempts are left
	Endless  Kind = "endless"  // ignores SIGTERM and runs until its time limit
	Unwanted Kind = "unwanted" // is killed by its owner
	Probe    Kind = "probe"    // asks a host whether it works; see probe.go
)

// Job is one planned job.
type Job struct {
	Number   int
	ID       job.ID
	Kind     Kind
	At       time.Duration // when it is submitted, since the first could be
	Runs     time.Duration // of an attempt that comes to its end by itself
	GPUs     int
	Failures int           // attempts that exit with Code before one that does not
	Code     int           // exit code of those
	KillAt   time.Duration // when its owner kills it, after its submission
	Want     job.State     // how it has to end
}

// WorkOptions say how jobs are drawn.
type WorkOptions struct {
	Jobs int
	Span time.Duration // over which they are submitted
	// Brief scales run times to a quarter, and has no long jobs.
	Brief bool
}

// Work returns the jobs of a seed, in the order of At: bursts, with pauses
// between.
func Work(seed uint64, o WorkOptions) []Job {
	r := source(seed, streamWork)
	var jobs []Job
	for len(jobs) < o.Jobs {
		at := between(r, 0, o.Span)
		for range min(1+r.IntN(8), o.Jobs-len(jobs)) {
			j := draw(r, o.Brief)
			j.At = at + between(r, 0, 500*time.Millisecond)
			jobs = append(jobs, j)
		}
	}
	slices.SortStableFunc(jobs, func(a, b Job) int { return int(a.At - b.At) })
	for i := range jobs {
		jobs[i].Number = i + 1
	}
	return jobs
}

// weights of the kinds, in percent.
var weights = []struct {
	kind   Kind
	weight int
}{
	{Plain, 62}, {Long, 5}, {Deaf, 6}, {Flaky, 13}, {Hopeless, 6}, {Endless, 4}, {Unwanted, 4},
}

func draw(r *rand.Rand, brief bool) Job {
	n := r.IntN(100)
	kind := Plain
	for _, w := range weights {
		if n < w.weight {
			kind = w.kind
			break
		}
		n -= w.weight
	}
	if brief && kind == Long {
		kind = Plain
	}
	j := Job{ID: drawID(r), Kind: kind, Runs: drawRun(r), GPUs: drawGPUs(r), Want: job.Succeeded}
	j.Failures, j.Code = 1+r.IntN(2), 2+r.IntN(30)
	j.KillAt = between(r, 0, sec(12))
	if j.GPUs == 0 {
		j.Runs = min(j.Runs, sec(4)) // slots are few, and probes need them too
	}
	if brief {
		j.Runs /= 4
	}
	switch kind {
	case Long:
		j.Runs, j.GPUs = between(r, sec(80), sec(110)), 1
	case Hopeless:
		j.Want, j.Runs, j.Failures = job.Failed, j.Runs/4, forever
	case Endless:
		j.Want, j.Runs = job.Failed, 0
	case Unwanted:
		j.Want, j.Runs = job.Killed, 0
	}
	if kind != Flaky && kind != Hopeless {
		j.Failures, j.Code = 0, 0
	}
	if kind != Unwanted {
		j.KillAt = 0
	}
	return j
}

// forever is more failures than a job has attempts.
const forever = 1000

// drawRun draws how long an attempt runs: most for some seconds, some for half a
// minute, so that each fault finds work in progress.
func drawRun(r *rand.Rand) time.Duration {
	switch n := r.IntN(100); {
	case n < 38:
		return between(r, 200*time.Millisecond, sec(3))
	case n < 80:
		return between(r, sec(3), sec(12))
	default:
		return between(r, sec(12), sec(35))
	}
}

func drawGPUs(r *rand.Rand) int {
	switch n := r.IntN(100); {
	case n < 20:
		return 0
	case n < 88:
		return 1
	default:
		return 2
	}
}

// drawID makes a version 4 UUID of the campaign's own chance.
func drawID(r *rand.Rand) job.ID {
	var id uuid.UUID
	for i := range id {
		id[i] = byte(r.Uint32())
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return job.ID(id.String())
}

// Attempts that a job may fail before it is failed. Those that are to succeed
// get more than faults will take from them.
const (
	attemptsHopeless = 3
	attemptsEndless  = 1
	attemptsOthers   = 10
)

const timeLimit = 3 * time.Second // of an endless job

// Spec returns what is submitted: program is the path of gpuq-campaign, and
// witness the directory of the payloads' files.
func (j Job) Spec(program, witness string) job.Spec {
	s := job.DefaultSpec()
	s.Name = string(j.Kind) + "-" + strconv.Itoa(j.Number)
	s.GPUs = j.GPUs
	s.Labels = map[string]string{"kind": string(j.Kind)}
	s.MaxAttempts = attemptsOthers
	s.Backoff = []job.Duration{job.Duration(time.Second), job.Duration(2 * time.Second)}
	s.Grace = job.Duration(time.Second)
	s.Command = []string{program, "payload", "--dir", witness, "--runs", j.Runs.String()}
	switch j.Kind {
	case Hopeless:
		s.MaxAttempts = attemptsHopeless
	case Endless:
		s.MaxAttempts, s.TimeLimit = attemptsEndless, job.Duration(timeLimit)
	}
	if j.Kind == Deaf || j.Kind == Endless {
		s.Command = append(s.Command, "--deaf")
	}
	if j.Kind == Endless || j.Kind == Unwanted {
		s.Command = append(s.Command, "--endless")
	}
	if j.Failures > 0 {
		s.Command = append(s.Command, "--failures", strconv.Itoa(j.Failures), "--code", strconv.Itoa(j.Code))
	}
	return s
}
