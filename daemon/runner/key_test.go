package runner_test

import (
	"testing"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
)

func TestParseKeyReadsItsOwnTextOnly(t *testing.T) {
	k := runner.Key{JobID: job.NewID(), Attempt: 12}
	if got, err := runner.ParseKey(k.String()); err != nil || got != k {
		t.Errorf("%s reads back as %v, %v", k, got, err)
	}
	id := string(k.JobID)
	for _, bad := range []string{"", ".", "..", "../x.1", id, id + ".", id + ".0", id + ".-1", id + ".01", id + ".1.2", id + ".+1", "x.1", "/" + id + ".1"} {
		if k, err := runner.ParseKey(bad); err == nil {
			t.Errorf("%q was read as %v", bad, k)
		}
	}
}
