package sqlite

import (
	"fmt"

	"gpuqd/daemon/health"

	"golang.org/x/sys/unix"
)

// networkFS returns the name of a network file system, or "" for a local one:
// SQLite's locks and its shared memory do not hold between hosts.
func networkFS(magic int64) string {
	if name, network := health.KindOf(magic); network {
		return name
	}
	return ""
}

// fsType returns the magic number of the file system that holds path.
func fsType(path string) (int64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", path, err)
	}
	return int64(uint32(stat.Type)), nil // 32 bits, sign-extended on some architectures
}
