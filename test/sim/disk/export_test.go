package disk

import "gpuqd/daemon/runner"

// Stopping reports whether the reason of an attempt's stop is on the disk.
func (d *Disk) Stopping(key runner.Key) (is bool) {
	d.world.Do(func() { is = d.entries[key].stopping != nil })
	return is
}
