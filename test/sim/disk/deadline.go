package disk

import (
	"time"

	"gpuqd/daemon/runner"
)

// deadlineFile is a session's deadline file, with what it held before: a shim
// reads it at its own ticks.
type deadlineFile struct {
	versions []version // oldest first
}

// version is what a file holds from an instant on.
type version struct {
	at   time.Duration // of the world
	word runner.Deadline
	gone bool // there is no file
}

// versionsMax bounds what is remembered; a shim is a tick behind at most, and a
// few writes fall into one.
const versionsMax = 8

func (f *deadlineFile) newest() version {
	if f == nil || len(f.versions) == 0 {
		return version{gone: true}
	}
	return f.versions[len(f.versions)-1]
}

// read returns what the file held at an instant; the zero Deadline, which grants
// nothing, where there was none.
func (f *deadlineFile) read(at time.Duration) runner.Deadline {
	if f == nil {
		return runner.Deadline{}
	}
	for i := len(f.versions) - 1; i >= 0; i-- {
		if f.versions[i].at <= at {
			return f.versions[i].word
		}
	}
	return runner.Deadline{}
}

func (f *deadlineFile) put(v version) {
	if len(f.versions) == versionsMax {
		f.versions[1].at = f.versions[0].at
		copy(f.versions, f.versions[1:])
		f.versions = f.versions[:versionsMax-1]
	}
	f.versions = append(f.versions, v)
}

// putDeadline changes a file at this instant, and wakes the shims that may have
// to act on it before their next due look. Within Do.
func (d *Disk) putDeadline(path string, v version) {
	f := d.files[path]
	if f == nil {
		f = &deadlineFile{}
		d.files[path] = f
	}
	v.at = d.world.Now()
	last := f.newest().word
	longer := last.State == runner.SessionLive && v.word.State == last.State && v.word.BootID == last.BootID && v.word.At >= last.At
	f.put(v)
	for _, s := range d.shims {
		if s.e.in.DeadlineFile == path && (!longer || s.frozen) {
			s.ring()
		}
	}
}
