package runner

import (
	"fmt"
	"os"

	"gpuqd/daemon/runner/proctree"
)

// TryCgroup says why attempts get no cgroup of their own; nil where they do. It
// makes one and removes it.
func TryCgroup() error {
	c, err := proctree.NewCgroup(fmt.Sprintf("gpuqd-doctor-%d", os.Getpid()))
	if err != nil {
		return err
	}
	return c.Remove()
}
