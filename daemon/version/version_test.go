package version

import (
	"runtime/debug"
	"testing"
)

func TestBuildIsDescribed(t *testing.T) {
	recorded := &debug.BuildInfo{GoVersion: "go1.26.8", Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "0123456789abcdef"},
		{Key: "vcs.time", Value: "2026-11-22T14:00:00Z"},
		{Key: "vcs.modified", Value: "true"},
	}}
	for _, c := range []struct {
		name   string
		linker Info
		build  *debug.BuildInfo
		want   string
		date   string
	}{
		{"NothingIsKnown", Info{}, nil, "dev", ""},
		{"OnlyTheToolchainIsKnown", Info{}, &debug.BuildInfo{GoVersion: "go1.26.8"}, "dev (go1.26.8)", ""},
		{"TheToolchainRecordedTheCommit", Info{}, recorded, "dev (0123456789ab-dirty, go1.26.8)", "2026-11-22T14:00:00Z"},
		{"TheLinkerIsBelieved", Info{Version: "1.2.3", Commit: "feed", Date: "2026-01-01T00:00:00Z"}, recorded, "1.2.3 (feed, go1.26.8)", "2026-01-01T00:00:00Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := describe(c.linker, c.build)
			if got.String() != c.want || got.Date != c.date {
				t.Errorf("got %q of %q, want %q of %q", got, got.Date, c.want, c.date)
			}
		})
	}
}
