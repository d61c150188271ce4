package agent

import (
	"fmt"
	"testing"
	"time"

	"gpuqd/daemon/job"
)

func heldBy(user string, since time.Time, devices ...string) *run {
	return &run{job: &job.Job{Submitter: user}, devices: devices, heldSince: since}
}

func TestUsage(t *testing.T) {
	t0 := time.Unix(1000, 0)
	after := func(seconds int) time.Time { return t0.Add(time.Duration(seconds) * time.Second) }
	expect := func(t *testing.T, u *usage, want map[string]float64) {
		t.Helper()
		got := u.byUser()
		for user, seconds := range want {
			if got[user] != seconds {
				t.Errorf("%s has %v s, want %v", user, got[user], seconds)
			}
		}
	}
	t.Run("GrowsWhileAnAttemptRuns", func(t *testing.T) {
		u, r := newUsage(), heldBy("ada", t0, "a", "b")
		u.advance(after(10), []*run{r})
		expect(t, u, map[string]float64{"ada": 20})
		u.advance(after(15), []*run{r})
		expect(t, u, map[string]float64{"ada": 30})
	})
	t.Run("AttemptBetweenTwoLooksIsCountedWhole", func(t *testing.T) {
		u, r := newUsage(), heldBy("ada", t0, "a")
		u.end(after(7), r)
		expect(t, u, map[string]float64{"ada": 7})
	})
	t.Run("AttemptThatIsOverIsNotCountedAgain", func(t *testing.T) {
		u, r := newUsage(), heldBy("ada", t0, "a")
		u.end(after(7), r)
		u.advance(after(20), []*run{r}) // of a list that was made before
		expect(t, u, map[string]float64{"ada": 7})
		if len(u.until) > 0 {
			t.Error("it is remembered")
		}
	})
	t.Run("AttemptWithoutADeviceHoldsNone", func(t *testing.T) {
		u, r := newUsage(), heldBy("ada", t0)
		u.advance(after(7), []*run{r})
		if got := u.byUser(); len(got) > 0 {
			t.Errorf("counted %v", got)
		}
	})
	t.Run("ClockThatStepsBackTakesNothingAway", func(t *testing.T) {
		u, r := newUsage(), heldBy("ada", t0, "a")
		u.advance(after(10), []*run{r})
		u.advance(after(5), []*run{r})
		expect(t, u, map[string]float64{"ada": 10})
	})
	t.Run("UsersAreBounded", func(t *testing.T) {
		u := newUsage()
		for i := range usersMax + 5 {
			u.end(after(1), heldBy(fmt.Sprintf("user%d", i), t0, "a"))
		}
		u.end(after(1), heldBy("user0", t0, "a"))
		expect(t, u, map[string]float64{"user0": 2, "user63": 1, "user64": 0, usersRest: 5})
		if got := u.byUser(); len(got) != usersMax+1 {
			t.Errorf("%d names", len(got))
		}
	})
}
