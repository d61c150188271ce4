// Package durable replaces files so that a crash at any moment leaves the old one or
// the new one, whole.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// Replace puts data into the file of a name, whole, or leaves what was there. When it
// returns nil the file is on disk, under its name. Only its owner can read it.
func Replace(path string, data []byte) error {
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // gone already after the rename
	_, err = file.Write(data)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir puts a directory's names on disk.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
