package campaign

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullDiskTakesNothingNewAndKeepsWhatItHas: that is what the class disk_full
// rests on.
func TestFullDiskTakesNothingNewAndKeepsWhatItHas(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may mount a disk")
	}
	dir := t.TempDir()
	failed := make(chan error)
	go func() {
		// The thread gets a mount namespace of its own, and ends with it.
		runtime.LockOSThread()
		failed <- fullDisk(dir)
	}()
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

func fullDisk(dir string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	disk, err := mountDisk(dir)
	if err != nil {
		return err
	}
	record := filepath.Join(dir, "record")
	if err := os.WriteFile(record, make([]byte, 8192), 0o600); err != nil {
		return err
	}
	filler, err := os.Create(disk.filler())
	if err != nil {
		return err
	}
	if err := errors.Join(fill(filler), filler.Close()); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "new"), []byte("x"), 0o600); !errors.Is(err, unix.ENOSPC) {
		return errors.Join(errors.New("a full disk took a new file"), err)
	}
	file, err := os.OpenFile(record, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteAt([]byte("exit"), 4096)
	return errors.Join(err, file.Close(), os.Remove(disk.filler()), disk.unmount())
}
