package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"gpuqd/daemon/runner/proctree"
)

// record says on disk which process a unit is, so that a later supervisor
// finds exactly it: process numbers are used again, their start times are not.
type record struct {
	Name        string `json:"name"`
	Pid         int    `json:"pid"`
	StartTicks  uint64 `json:"start_ticks"` // since boot, of the kernel's clock tick
	BootID      string `json:"boot_id"`
	Fingerprint string `json:"fingerprint"`
}

// newRecord describes a process that runs now.
func newRecord(name string, pid int, fingerprint string) (record, error) {
	stat, err := proctree.ReadStat(pid)
	if err != nil {
		return record{}, err
	}
	boot, err := proctree.BootID()
	if err != nil {
		return record{}, err
	}
	return record{Name: name, Pid: pid, StartTicks: stat.Ticks, BootID: boot, Fingerprint: fingerprint}, nil
}

// alive reports whether the recorded process runs. A zombie does not.
func (r record) alive() bool {
	if boot, err := proctree.BootID(); err != nil || r.BootID != boot {
		return false
	}
	stat, err := proctree.ReadStat(r.Pid)
	return err == nil && stat.Ticks == r.StartTicks && stat.Alive()
}

func (r record) write(dir string) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := recordPath(dir, r.Name)
	if err := os.WriteFile(path+".tmp", append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func recordPath(dir, name string) string { return filepath.Join(dir, name+".process") }

// readRecords returns the records in dir, by name. One that cannot be read is
// reported: the process behind it would be lost.
func readRecords(dir string) (map[string]record, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.process"))
	if err != nil {
		return nil, fmt.Errorf("read process records: %w", err)
	}
	records := make(map[string]record, len(paths))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read process records: %w", err)
		}
		var r record
		if err := json.Unmarshal(text, &r); err != nil || path != recordPath(dir, r.Name) {
			return nil, fmt.Errorf("process record %s is damaged: end its process, then remove the file", path)
		}
		records[r.Name] = r
	}
	return records, nil
}

// removeRecord forgets a unit whose process is gone.
func removeRecord(dir, name string) error {
	if err := os.Remove(recordPath(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
