package runner

import "testing"

// TestIntentIsAsOldAsItCanBe: a shim of an earlier release runs what it
// understands, and refuses what it would run otherwise than asked.
func TestIntentIsAsOldAsItCanBe(t *testing.T) {
	for _, c := range []struct {
		in   Intent
		want int
	}{
		{Intent{}, 1},
		{Intent{Devices: []string{"GPU-1"}}, 1},
		{Intent{Account: &Account{}}, 2},
		{Intent{GPUMemoryBytes: 1}, 3},
		{Intent{GPUMemoryBytes: 1, Account: &Account{}}, 3},
	} {
		if got := c.in.schema(); got != c.want || got > Schema {
			t.Errorf("%+v is of version %d, want %d", c.in, got, c.want)
		}
	}
}
