package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"gpuqd/daemon/runner/proctree"
)

// The states of a session as its deadline file tells them.
const (
	SessionLive    = "live"
	SessionExpired = "expired" // for good: its attempts must end
)

// Deadline is a session's word to its shims: until when they may run.
type Deadline struct {
	Session string        `json:"session"`
	BootID  string        `json:"boot_id"`
	At      time.Duration `json:"deadline_ns"` // on CLOCK_BOOTTIME
	State   string        `json:"state"`       // SessionLive or SessionExpired
}

// Live reports whether attempts of session may run at now, a reading of
// Boottime in the boot named bootID.
func (d Deadline) Live(session, bootID string, now time.Duration) bool {
	return d.Session == session && d.BootID == bootID && d.State == SessionLive && now < d.At
}

// Boottime reads CLOCK_BOOTTIME: time since boot, with suspended time counted.
func Boottime() time.Duration { return proctree.Boottime() }

// BootID returns the kernel's random ID of this boot.
func BootID() (string, error) { return proctree.BootID() }

// WriteDeadline puts d into the file at path. The first write makes the file;
// the later ones are in place and need no disk space, so that a full disk does
// not freeze a host's jobs. It is not synced: after a reboot it is void anyway.
func WriteDeadline(path string, d Deadline) error {
	data, err := sealSlot(d)
	if err != nil {
		return fmt.Errorf("write deadline: %w", err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return wrapDeadline(syncs(nil).writeFile(path, data))
	}
	if err != nil {
		return wrapDeadline(err)
	}
	_, err = file.WriteAt(data, 0)
	return wrapDeadline(errors.Join(err, file.Close()))
}

func wrapDeadline(err error) error {
	if err != nil {
		return fmt.Errorf("write deadline: %w", err)
	}
	return nil
}

// ReadDeadline reads what WriteDeadline wrote. A read that met a write half
// done is repeated a few times, then reported as ErrDamaged.
func ReadDeadline(path string) (Deadline, error) {
	var d Deadline
	for try := 0; ; try++ {
		data, err := os.ReadFile(path)
		if err != nil {
			return Deadline{}, fmt.Errorf("read deadline: %w", err)
		}
		ok, err := unseal(data, &d)
		if ok {
			return d, nil
		}
		if try == 3 {
			return Deadline{}, fmt.Errorf("read deadline %s: %w", path, errors.Join(ErrDamaged, err))
		}
	}
}
