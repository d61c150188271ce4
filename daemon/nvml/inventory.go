package main

import (
	"fmt"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuqd/daemon/device"
)

// hangs is why a device is sick whose calls the driver keeps.
const hangs = "the driver does not answer about it; look at the kernel log, and restart the host if that stays"

// desk is where one GPU is asked about: by a goroutine of its own, which the driver
// may keep. The sampler's owner owns the rest.
type desk struct {
	answers chan finding // capacity 1: who comes back late finds room
	away    bool         // the goroutine has not come back
	late    bool         // it was sent for an earlier inventory, which has gone on without it
	// known are the devices that it was when it last said: one that is lost, or hangs,
	// cannot say any more who it is.
	known []device.Device
}

// finding is what was learned of one GPU.
type finding struct {
	facts []device.Facts
	err   error // not even the identities could be had
}

// send has a GPU asked about.
func (s *sampler) send(index int) {
	d := s.desks[index]
	d.away, d.late = true, false
	go func() {
		facts, err := s.gpu(index)
		d.answers <- finding{facts, err}
		poke(s.stepped)
	}()
}

// inventory returns all devices. One that fails is sick, the others are not; so is
// one whose calls the driver keeps for longer than the patience. Where the driver
// keeps the calls of all, this waits, and the silence tells.
func (s *sampler) inventory() device.Report {
	count, ret := s.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return device.Report{Error: &device.ReportError{
			Kind: device.DriverFailed,
			Message: fmt.Sprintf("the driver does not count its devices: %s; run nvidia-smi and look at the kernel log",
				s.lib.ErrorString(ret)),
		}}
	}
	s.forgetCapabilities()
	for len(s.desks) < count {
		s.desks = append(s.desks, &desk{answers: make(chan finding, 1)})
	}
	r := device.Report{Devices: []device.Facts{}}
	for i, a := range s.await(count) {
		s.add(&r, i, a)
	}
	return r
}

// await asks about the first count GPUs and returns the answers, nil for those that
// the others are not to wait for.
func (s *sampler) await(count int) []*finding {
	got := make([]*finding, count)
	for i := range count {
		if d := s.desks[i]; d.away {
			d.late = true
		} else {
			s.send(i)
		}
	}
	patience := time.NewTimer(s.patience)
	defer patience.Stop()
	for patient := true; ; {
		answered, awaited := 0, 0
		for i := range count {
			s.collect(i, &got[i])
			switch d := s.desks[i]; {
			case got[i] != nil:
				answered++
			case !d.late:
				awaited++
			}
		}
		if answered == count || answered > 0 && (awaited == 0 || !patient) {
			return got
		}
		select {
		case <-s.stepped:
			s.beat()
		case <-patience.C:
			patient = false
		}
	}
}

// collect takes an answer that has come. A late one is of an earlier time: its GPU is
// asked about anew.
func (s *sampler) collect(index int, into **finding) {
	d := s.desks[index]
	select {
	case a := <-d.answers:
		if d.away = false; d.late {
			s.send(index)
			return
		}
		*into = &a
	default:
	}
}

// add puts what was learned of one GPU into a report.
func (s *sampler) add(r *device.Report, index int, a *finding) {
	d := s.desks[index]
	why, lost := hangs, false
	if a != nil {
		if a.err == nil {
			d.known = nil
			for _, f := range a.facts {
				d.known = append(d.known, f.Device)
			}
			r.Devices = append(r.Devices, a.facts...)
			return
		}
		why, lost = sick(a.err)
	}
	if d.known == nil {
		r.Problems = append(r.Problems, fmt.Sprintf("device %d does not say its name: %s", index, why))
	}
	for _, known := range d.known {
		r.Devices = append(r.Devices, device.Facts{Device: known, Sick: why, Lost: lost})
	}
}

// leave waits until the driver keeps no call of the sampler: the process must not end
// in one.
func (s *sampler) leave() {
	for _, d := range s.desks {
		if d.away {
			<-d.answers
		}
	}
}
