package runner

import "testing"

func TestInOwnUnitNamesTheServiceAlone(t *testing.T) {
	for text, want := range map[string]bool{
		"0::/system.slice/gpuqd.service\n":                       true,
		"1:name=systemd:/system.slice/gpuqd.service/sub\n0::/\n": true,
		"0::/user.slice/user-1000.slice/session-3.scope\n":       false,
		"0::/system.slice/gpuqd.service.slice/other.service\n":   false,
		"0::/system.slice/not-gpuqd.service\n":                   false,
		"":                                                       false,
	} {
		if got := inOwnUnit(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
