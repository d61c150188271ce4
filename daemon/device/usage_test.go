package device

import (
	"testing"
	"testing/synctest"
	"time"

	"gpuqd/daemon/job"
)

func TestUsage(t *testing.T) {
	t.Run("TimeIsSpentInTheStateThatTheDeviceWasIn", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m, id := newManager("a", "b"), job.NewID()
			time.Sleep(10 * time.Second)
			if err := m.Acquire(id, 1, []string{"a"}, 0); err != nil {
				t.Fatal(err)
			}
			time.Sleep(7 * time.Second)
			m.Release(id, 1)
			time.Sleep(3 * time.Second)
			// a: 10 s free, 7 s busy, 3 s free; b: 20 s free.
			spent := m.Spent()
			if spent[Busy] != 7*time.Second || spent[Free] != 33*time.Second || spent[Sick]+spent[Draining]+spent[Cordoned] != 0 {
				t.Errorf("spent %v, want 7 s busy and 33 s free", spent)
			}
		})
	})
	t.Run("TimeOfADeviceThatIsForgottenStays", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m, id := newManager(), job.NewID()
			if err := m.Adopt(id, 1, []string{"unseen"}, 0); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
			m.Release(id, 1)
			time.Sleep(time.Second)
			if spent := m.Spent(); spent[Sick] != 5*time.Second || len(m.Snapshot()) != 0 {
				t.Errorf("spent %v, want 5 s sick; devices %v, want none", spent, m.Snapshot())
			}
		})
	})
	t.Run("GapIsFromReleaseToTheNextGrant", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var gaps []time.Duration
			m, id := newManager("a"), job.NewID()
			m.ObserveGaps(func(gap time.Duration) { gaps = append(gaps, gap) })
			for _, pause := range []time.Duration{time.Hour, 20 * time.Millisecond, 0} {
				time.Sleep(pause)
				if err := m.Acquire(id, 1, []string{"a"}, 0); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				m.Release(id, 1)
				m.Release(id, 1) // a second release is none
			}
			if len(gaps) != 2 || gaps[0] != 20*time.Millisecond || gaps[1] != 0 {
				t.Errorf("gaps %v, want 20ms and 0s: the first grant follows nothing", gaps)
			}
		})
	})
}
