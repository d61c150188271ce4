package health

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Disk is the file system that holds a path.
type Disk struct {
	Kind         string // such as "ext4"; its magic number where the kind has no name here
	Network      bool   // its server can hang
	Volatile     bool   // it is gone after a reboot
	FreeBytes    uint64 // for those who are not root
	TotalBytes   uint64
	FreeInodes   uint64
	TotalInodes  uint64 // 0 where the file system does not count them
	Path         string
	DeviceNumber uint64 // the same for two paths on one file system
}

// kind is one file system.
type kind struct {
	name    string
	network bool
}

// kinds names file systems by their magic number. FUSE counts as one of the
// network as a whole: nothing tells sshfs from a local one.
//
// Source: statfs(2) and linux/magic.h; ZFS, Lustre, GlusterFS (a FUSE client),
// BeeGFS and GPFS from their own sources and manuals.
var kinds = map[int64]kind{
	unix.EXT4_SUPER_MAGIC:      {"ext4", false},
	unix.XFS_SUPER_MAGIC:       {"xfs", false},
	unix.BTRFS_SUPER_MAGIC:     {"btrfs", false},
	unix.F2FS_SUPER_MAGIC:      {"f2fs", false},
	unix.OVERLAYFS_SUPER_MAGIC: {"overlayfs", false},
	unix.TMPFS_MAGIC:           {"tmpfs", false},
	unix.RAMFS_MAGIC:           {"ramfs", false},
	0x2fc12fc1:                 {"ZFS", false},

	unix.NFS_SUPER_MAGIC:   {"NFS", true},
	unix.SMB_SUPER_MAGIC:   {"SMB", true},
	unix.SMB2_SUPER_MAGIC:  {"SMB", true},
	unix.CIFS_SUPER_MAGIC:  {"CIFS", true},
	unix.FUSE_SUPER_MAGIC:  {"FUSE (such as sshfs or GlusterFS)", true},
	unix.V9FS_MAGIC:        {"9p", true},
	unix.CEPH_SUPER_MAGIC:  {"CephFS", true},
	unix.AFS_SUPER_MAGIC:   {"AFS", true},
	unix.AFS_FS_MAGIC:      {"AFS", true},
	unix.CODA_SUPER_MAGIC:  {"Coda", true},
	unix.NCP_SUPER_MAGIC:   {"NCP", true},
	unix.OCFS2_SUPER_MAGIC: {"OCFS2", true},
	0x01161970:             {"GFS2", true},
	0x0bd00bd0:             {"Lustre", true},
	0x19830326:             {"BeeGFS", true},
	0x47504653:             {"GPFS", true},
	0xaad7aaea:             {"PanFS", true},
}

// KindOf names the file system of a magic number, as statfs(2) returns it in its
// lower 32 bits. On one of the network, locks and shared memory do not hold
// between hosts, and its server can hang.
func KindOf(magic int64) (name string, network bool) {
	if k, ok := kinds[magic]; ok {
		return k.name, k.network
	}
	return fmt.Sprintf("a file system of magic %#x", magic), false
}

// DiskOf looks at the file system that holds a path, which must exist.
func DiskOf(path string) (Disk, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return Disk{}, fmt.Errorf("statfs %s: %w", path, err)
	}
	var file unix.Stat_t
	if err := unix.Stat(path, &file); err != nil {
		return Disk{}, fmt.Errorf("stat %s: %w", path, err)
	}
	magic := int64(uint32(fs.Type)) // 32 bits, sign-extended on some architectures
	kind, network := KindOf(magic)
	block := uint64(fs.Frsize)
	return Disk{
		Kind: kind, Network: network, Volatile: kind == "tmpfs" || kind == "ramfs", Path: path,
		FreeBytes: fs.Bavail * block, TotalBytes: fs.Blocks * block,
		FreeInodes: fs.Ffree, TotalInodes: fs.Files, DeviceNumber: uint64(file.Dev),
	}, nil
}

// Room judges what is left on a disk that must take small records at all times.
// A full one stops the host; the bounds leave a person a day.
func (d Disk) Room(name, advice string) Check {
	saw := fmt.Sprintf("%s is %s: %s of %s free", d.Path, d.Kind, Bytes(d.FreeBytes), Bytes(d.TotalBytes))
	if d.TotalInodes > 0 {
		saw += fmt.Sprintf(", %d of %d inodes free", d.FreeInodes, d.TotalInodes)
	}
	switch {
	case d.FreeBytes < roomFail || d.TotalInodes > 0 && d.FreeInodes < inodesFail:
		return Bad(name, Fail, advice, "%s", saw)
	case d.FreeBytes < roomWarn && d.FreeBytes < d.TotalBytes/10, d.TotalInodes > 0 && d.FreeInodes < inodesWarn:
		return Bad(name, Warn, advice, "%s", saw)
	}
	return Good(name, "%s", saw)
}

// The bounds of Room, in bytes and inodes.
const (
	roomWarn   = 5 << 30
	roomFail   = 100 << 20
	inodesWarn = 10_000
	inodesFail = 500
)

// Bytes writes a size with the digits that a person reads.
func Bytes(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	size, unit := float64(n), 0
	for size >= 1024 && unit < len(units)-1 {
		size, unit = size/1024, unit+1
	}
	if unit == 0 || size >= 100 {
		return fmt.Sprintf("%.0f %s", size, units[unit])
	}
	return fmt.Sprintf("%.1f %s", size, units[unit])
}
