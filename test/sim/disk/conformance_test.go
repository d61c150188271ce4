package disk_test

import (
	"strings"
	"testing"
	"testing/synctest"
)

// TestConformance plays every scene on this machine, with the real journal, shim
// and processes, and on simulated hosts. Where they differ the simulation is
// wrong.
func TestConformance(t *testing.T) {
	for _, c := range scenes {
		t.Run("Real/"+c.name, func(t *testing.T) {
			t.Parallel()
			s := &scene{rig: newRealRig(t), t: t}
			c.play(s)
			s.wantSeen(c.want)
		})
		t.Run("Simulated/"+c.name, func(t *testing.T) {
			for seed := range uint64(20) {
				synctest.Test(t, func(t *testing.T) {
					r := newSimRig(t, seed)
					defer r.close()
					s := &scene{rig: r, t: t}
					c.play(s)
					s.wantSeen(c.want)
				})
			}
		})
	}
}

func (s *scene) wantSeen(want string) {
	s.t.Helper()
	if seen := strings.Join(s.seen, "; "); seen != want {
		s.t.Errorf("seen\n%s\nwant\n%s", seen, want)
	}
}
