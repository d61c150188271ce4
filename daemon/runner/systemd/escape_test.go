package systemd

import (
	"strings"
	"testing"

	"gpuqd/daemon/runner"
)

// As systemd-escape(1) of systemd 252 writes them.
func TestEscapeUnit(t *testing.T) {
	for text, want := range map[string]string{
		"alice": "alice", "a.b": "a.b", ".a": `\x2ea`, "ml-team": `ml\x2dteam`, "a/b": "a-b", "bob@x": `bob\x40x`, "a b": `a\x20b`,
	} {
		if got := escapeUnit(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestSliceOfAnAccount(t *testing.T) {
	for _, c := range []struct {
		account runner.Account
		want    string
	}{
		{runner.Account{Name: "ml-team"}, `gpuq-ml\x2dteam.slice`},
		{runner.Account{Name: strings.Repeat("-", 100), UID: 7}, "gpuq-7.slice"},
		{runner.Account{Name: "x", Problem: "no such account"}, "gpuq.slice"},
	} {
		if got := sliceName(&c.account); got != c.want {
			t.Errorf("%+v: %q, want %q", c.account, got, c.want)
		}
	}
}
