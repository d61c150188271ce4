package agent

import (
	"testing"

	"gpuqd/daemon/ledger"
)

func TestFirstLiveHostCounts(t *testing.T) {
	host := func(name, state string) *ledger.Host {
		h := &ledger.Host{Name: name}
		h.Session.State = ledger.SessionState(state)
		return h
	}
	live := string(ledger.Live)
	for name, c := range map[string]struct {
		hosts []*ledger.Host
		want  bool
	}{
		"Alone":              {[]*ledger.Host{host("b", live)}, true},
		"AfterAnother":       {[]*ledger.Host{host("a", live), host("b", live)}, false},
		"BeforeAnother":      {[]*ledger.Host{host("c", live), host("b", live)}, true},
		"TheFirstIsNotLive":  {[]*ledger.Host{host("a", "expired"), host("b", live)}, true},
		"ItsOwnSessionEnded": {[]*ledger.Host{host("b", "expired"), host("c", live)}, false},
	} {
		if got := firstLive("b", c.hosts); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
