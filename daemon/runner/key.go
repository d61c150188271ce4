package runner

import (
	"fmt"
	"strconv"
	"strings"

	"gpuqd/daemon/job"
)

// Key names one attempt of one job. Its text is the attempt directory's name.
type Key struct {
	JobID   job.ID
	Attempt int // from 1
}

// String returns "<job id>.<attempt>".
func (k Key) String() string { return string(k.JobID) + "." + strconv.Itoa(k.Attempt) }

// CgroupName returns the name of the attempt's own cgroup.
func (k Key) CgroupName() string { return "gpuqd-" + k.String() }

// ParseKey reads what String writes, and nothing else: a key is used as a path.
func ParseKey(s string) (Key, error) {
	id, n, _ := strings.Cut(s, ".")
	jobID, err := job.ParseID(id)
	if err != nil {
		return Key{}, fmt.Errorf("%q names no attempt: %w", s, err)
	}
	attempt, err := strconv.Atoi(n)
	if k := (Key{jobID, attempt}); err == nil && attempt >= 1 && k.String() == s {
		return k, nil
	}
	return Key{}, fmt.Errorf("%q names no attempt: want <job id>.<attempt>", s)
}
