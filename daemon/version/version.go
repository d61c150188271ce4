// Package version says which build of gpuqd this is. Releases set the variables
// with -ldflags "-X gpuqd/daemon/version.Version=…"; a build without them
// answers with what the toolchain has recorded.
package version

import (
	"runtime/debug"
	"strings"
	"sync"
)

// The build, as the linker sets it. Read them through Get.
var (
	Version string // such as 0.3.1
	Commit  string // the commit's hash
	Date    string // of the commit, RFC 3339
)

// Info is a build.
type Info struct {
	Version string `json:"version"` // "dev" for a build that is no release
	Commit  string `json:"commit"`  // ends in "-dirty" where the tree had changes; "" when nobody knows
	Date    string `json:"date"`
	Go      string `json:"go"` // the toolchain
}

// Get returns this program's build.
var Get = sync.OnceValue(func() Info {
	build, _ := debug.ReadBuildInfo() // nil in a program built without modules
	return describe(Info{Version: Version, Commit: Commit, Date: Date}, build)
})

// describe fills in what the linker was not given.
func describe(i Info, build *debug.BuildInfo) Info {
	if i.Version == "" {
		i.Version = "dev"
	}
	if build == nil {
		return i
	}
	i.Go = build.GoVersion
	if i.Commit != "" {
		return i // the linker's word is about all of it
	}
	for _, s := range build.Settings {
		switch {
		case s.Key == "vcs.revision":
			i.Commit = s.Value + i.Commit
		case s.Key == "vcs.time" && i.Date == "":
			i.Date = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			i.Commit += "-dirty"
		}
	}
	if i.Commit == "-dirty" {
		i.Commit = ""
	}
	return i
}

// String returns the build on one line, such as "0.3.1 (0123456789ab, go1.26.8)".
func (i Info) String() string {
	var facts []string
	if i.Commit != "" {
		short, dirty := strings.CutSuffix(i.Commit, "-dirty")
		short = short[:min(len(short), 12)]
		if dirty {
			short += "-dirty"
		}
		facts = append(facts, short)
	}
	if i.Go != "" {
		facts = append(facts, i.Go)
	}
	if len(facts) == 0 {
		return i.Version
	}
	return i.Version + " (" + strings.Join(facts, ", ") + ")"
}
