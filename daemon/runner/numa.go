package runner

import "fmt"

// NUMA says on which of the host's NUMA nodes a command belongs: it runs on their
// CPUs, as far as the shim may use them, and takes their memory first. Where that
// cannot be had it runs all the same, and shim.log says so. A shim that does not
// know this runs the command anywhere, which does no harm, so that no version of
// the intent comes with it.
type NUMA struct {
	Nodes []int `json:"nodes"`
	// Strict: memory of these nodes and of no others. When theirs is used up the
	// kernel ends the command, whatever is free elsewhere.
	Strict bool `json:"strict,omitempty"`
}

// NUMANodesMax is how many nodes a host can have. Source: NODES_SHIFT in the
// kernel's configuration, at most 10.
const NUMANodesMax = 1 << 10

// validate refuses what no kernel takes. A nil NUMA is fine.
func (n *NUMA) validate() error {
	if n == nil {
		return nil
	}
	if len(n.Nodes) == 0 {
		return fmt.Errorf("its command is to be bound to NUMA nodes, and none is named")
	}
	for _, node := range n.Nodes {
		if node < 0 || node >= NUMANodesMax {
			return fmt.Errorf("NUMA node %d: want 0 to %d", node, NUMANodesMax-1)
		}
	}
	return nil
}
