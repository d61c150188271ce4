package main

import (
	"fmt"
	"strconv"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

const (
	// rehearsalStep is how long the payload takes for one step.
	rehearsalStep = 500 * time.Millisecond
	// Bounds of --length. An armed fault waits for its step for five minutes.
	rehearsalLengthMin = 2 * rehearsalStep
	rehearsalLengthMax = 2 * time.Minute
)

// payloadScript is the payload of a rehearsal: a shell and what every Linux has
// beside it. Each line of its witness is on disk before it is printed. $1 is the
// number of steps; with $2 = fail the first attempt exits 1 half way.
const payloadScript = `f="$GPUQ_WORKDIR/witness.jsonl" n=0
say() {
  line="{\"event\":\"$1\",\"step\":$n,\"job\":\"$GPUQ_JOB_ID\",\"attempt\":$GPUQ_ATTEMPT,\"machine\":\"$(uname -n)\",\"pid\":$$,\"devices\":\"$CUDA_VISIBLE_DEVICES\",\"time\":\"$(date -u +%Y-%m-%dT%H:%M:%S.%NZ)\"}"
  printf '%s\n' "$line" >>"$f" && { sync "$f" 2>/dev/null || sync; }
  printf '%s\n' "$line"
}
say start
while [ "$n" -lt "$1" ]; do
  sleep 0.5
  n=$((n + 1))
  if [ "$2" = fail ] && [ "$GPUQ_ATTEMPT" = 1 ] && [ $((2 * n)) -ge "$1" ]; then say fail; exit 1; fi
  say step
done
say end
`

// rehearsalSpec returns the job that a scenario is played with.
func rehearsalSpec(host, pool string, s control.Scenario, gpus int, length, within time.Duration) job.Spec {
	fail, steps := "", int(length/rehearsalStep)
	spec := job.DefaultSpec()
	if s == control.ScenarioError {
		fail, spec.MaxAttempts = "fail", 2
		spec.Backoff = []job.Duration{job.Duration(time.Second)}
	}
	spec.Command = []string{"/bin/sh", "-c", payloadScript, "gpuq-rehearsal", strconv.Itoa(steps), fail}
	spec.Name = fmt.Sprintf("simulate-%d", s)
	spec.Pool, spec.GPUs = pool, gpus
	// It must not outlive its rehearsal by much, whoever looks after it.
	spec.TimeLimit, spec.Expires = job.Duration(2*length+time.Minute), job.Duration(within)
	spec.Labels = map[string]string{"rehearsal": strconv.Itoa(int(s)), "host": host}
	return spec
}
