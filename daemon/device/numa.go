package device

import "slices"

// NUMANodes returns the NUMA nodes of the devices, sorted; nil where there is no
// device, or one of which nobody knows the node: what uses it belongs nowhere else.
func (m *Manager) NUMANodes(uuids []string) []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	var nodes []int
	for _, uuid := range uuids {
		e := m.entries[uuid]
		if e == nil || e.facts.NUMANode < 0 {
			return nil
		}
		nodes = append(nodes, e.facts.NUMANode)
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}
