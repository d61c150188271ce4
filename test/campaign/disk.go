package campaign

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// diskBytes is the size of a worker's state directory: ample for the attempts of
// a campaign, and filled in an instant.
const diskBytes = 128 << 20

// smallDisk is a file system of its own in memory, which can be filled.
type smallDisk struct{ dir string }

// mountDisk mounts a small disk at a directory, which it makes. It needs the
// right to mount; a private mount namespace keeps it from everybody else.
func mountDisk(dir string) (smallDisk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return smallDisk{}, err
	}
	err := unix.Mount("gpuq-campaign", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, fmt.Sprintf("size=%d,mode=700", diskBytes))
	if err != nil {
		return smallDisk{}, fmt.Errorf("mount a small disk at %s: %w", dir, err)
	}
	return smallDisk{dir: dir}, nil
}

func (d smallDisk) unmount() error {
	err := unix.Unmount(d.dir, 0)
	if err == nil || errors.Is(err, unix.EINVAL) { // EINVAL: it is not mounted any more
		return nil
	}
	// A process that nobody knows of keeps it busy.
	return errors.Join(fmt.Errorf("unmount %s: %w", d.dir, err), unix.Unmount(d.dir, unix.MNT_DETACH))
}

func (d smallDisk) filler() string { return filepath.Join(d.dir, "filler") }

// refill is how often what became free meanwhile is taken again.
const refill = 100 * time.Millisecond

// keepFull leaves no space on the disk until ctx ends, then gives it back.
func (d smallDisk) keepFull(ctx context.Context) error {
	file, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(d.filler())
	defer file.Close()
	if err := fill(file); err != nil {
		return err
	}
	tick := time.NewTicker(refill)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := fill(file); err != nil {
				return err
			}
		}
	}
}

// fill appends to a file until there is no space.
func fill(file *os.File) error {
	for chunk := 1 << 20; chunk > 0; {
		_, err := file.Write(make([]byte, chunk))
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOSPC):
			chunk /= 16
		default:
			return fmt.Errorf("fill the disk: %w", err)
		}
	}
	return nil
}
