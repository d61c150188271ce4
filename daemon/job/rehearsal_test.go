package job

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestRehearsalPoolIsAReservedPoolOfOneHost(t *testing.T) {
	if got := RehearsalPool("worker_3"); got != "simulate-worker_3" {
		t.Errorf("the pool of worker_3 is %s", got)
	}
	long := strings.Repeat("a", 40)
	if a, b := RehearsalPool(long+"1"), RehearsalPool(long+"2"); a == b || strings.Contains(a, "aaaa") {
		t.Errorf("two hosts of long names have the pools %s and %s", a, b)
	}
	for pool, want := range map[string]bool{"default": false, "simulated": false, "simulate": false, "simulate-x": true} {
		if got := IsRehearsalPool(pool); got != want {
			t.Errorf("pool %s is reserved: %t, want %t", pool, got, want)
		}
	}
}

func TestEveryHostsRehearsalPoolMakesAQueue(t *testing.T) {
	name := rapid.StringMatching(`[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?`)
	fits := regexp.MustCompile(`^[a-z0-9_-]{1,32}$`)
	rapid.Check(t, func(t *rapid.T) {
		pool := RehearsalPool(name.Draw(t, "host"))
		s := Shape{Pool: pool, Priority: Normal, GPUs: 1, Class: ClassAny}
		back, err := ParseQueue(s.AgainQueue())
		if err != nil || back != s || !fits.MatchString(pool) || !IsRehearsalPool(pool) {
			t.Fatalf("pool %q: %+v, %v", pool, back, err)
		}
	})
}
