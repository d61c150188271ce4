//go:build planted

package sim

import (
	"flag"

	"gpuqd/daemon/agent"
)

func init() {
	flag.Func("sim.bug", "bug to plant in every test", func(name string) error {
		agent.Planted = agent.Bug(name)
		return nil
	})
}
