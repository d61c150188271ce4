package sim

import (
	"strings"

	"gpuqd/daemon/job"
)

// kinds are the devices that hosts of one site can differ in.
var kinds = []Host{{Model: "NVIDIA A100-SXM4-40GB", GiB: 40}, {Model: "NVIDIA H100 80GB HBM3", GiB: 80}}

// diversify gives the hosts devices of kinds, and has jobs share them or ask for
// one kind.
func (g generator) diversify(p *Plan) {
	for i := range p.Hosts {
		kind := pick(g, kinds...)
		p.Hosts[i].Model, p.Hosts[i].GiB = kind.Model, kind.GiB
	}
	for i := range p.Jobs {
		j := &p.Jobs[i]
		before := *j
		if j.GPUs == 1 && g.chance(0.7) {
			j.ShareGiB = pick(g, uint64(10), 20, 25, 40)
		}
		if j.GPUs > 0 && g.chance(0.3) {
			j.Model = pick(g, "a100", "h100")
		}
		if j.GPUs > 0 && g.chance(0.3) {
			j.LeastGiB = 80
		}
		if !p.placeable() {
			*j = before
		}
	}
}

// fits reports whether a host has the devices for a job. It is apart from what
// decides so in the daemon.
func (j Job) fits(h Host) bool {
	return h.Devices >= j.GPUs && h.GiB >= max(j.ShareGiB, j.LeastGiB) && strings.Contains(strings.ToLower(h.Model), j.Model)
}

// deviceBytes is the memory of the devices of each host.
func (p Plan) deviceBytes() map[string]uint64 {
	all := map[string]uint64{}
	for _, h := range p.Hosts {
		all[h.Name] = h.GiB << 30
	}
	return all
}

// serve names the hosts that have the devices for each job.
func (p Plan) serve() map[job.ID][]string {
	all := map[job.ID][]string{}
	for _, j := range p.Jobs {
		all[j.ID] = []string{}
		for _, h := range p.Hosts {
			if j.fits(h) {
				all[j.ID] = append(all[j.ID], h.Name)
			}
		}
	}
	return all
}
