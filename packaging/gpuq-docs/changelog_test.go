package main

import (
	"path/filepath"
	"strings"
	"testing"
)

const twoReleases = `# Changelog

For operators.

## [Unreleased]

### Added

- A thing of [ours](docs/ours.md), with a line that is long enough to be broken at least once when dpkg shows it
  and its end.

### Fixed

Found by looking:

- ` + "`gpuqctl`" + ` did not.

## [1.2.2] - 2026-11-01

### Changed

- Older.
`

func TestChangelogsOfBothKinds(t *testing.T) {
	log, err := parseChangelog(twoReleases)
	if err != nil {
		t.Fatal(err)
	}
	log[0].version, log[0].date = testBuild.version, testBuild.date
	want := `gpuqd (1.2.3-1) unstable; urgency=medium

  [ Added ]
  * A thing of ours, with a line that is long enough to be broken at least
    once when dpkg shows it and its end.

  [ Fixed ]
  * Found by looking:
  * gpuqctl did not.

 -- gpuqd maintainers <maintainers@gpuqd.example>  Sat, 28 Nov 2026 12:00:00 +0000

gpuqd (1.2.2-1) unstable; urgency=medium

  [ Changed ]
  * Older.

 -- gpuqd maintainers <maintainers@gpuqd.example>  Sun, 01 Nov 2026 00:00:00 +0000
`
	if got := debianChangelog(log, "gpuqd", testBuild); got != want {
		t.Errorf("dpkg's is\n%s\nwant\n%s", got, want)
	}
	rpm := rpmChangelog(log, testBuild)
	for _, part := range []string{`semver: "1.2.3-1"`, `semver: "1.2.2-1"`, `date: 2026-11-01T00:00:00Z`, `note: "Fixed: gpuqctl did not."`} {
		if !strings.Contains(rpm, part) {
			t.Errorf("rpm's lacks %s:\n%s", part, rpm)
		}
	}
}

// The first entry is that of the version being built, whatever the file says:
// dpkg and rpm compare it with the package's.
func TestChangelogBeginsWithTheVersionBuilt(t *testing.T) {
	for name, version := range map[string]string{"OfWhatIsUnreleased": "1.2.3", "OfARelease": "1.2.2"} {
		t.Run(name, func(t *testing.T) {
			b := testBuild
			b.version = version
			log, err := readChangelog(filepath.Join(root, "CHANGELOG.md"), b)
			if err != nil {
				t.Fatal(err)
			}
			if log[0].version != version || len(log[0].groups) == 0 {
				t.Errorf("it begins with %+v", log[0])
			}
		})
	}
}

func TestChangelogThatIsNotUnderstoodIsAnError(t *testing.T) {
	for name, text := range map[string]string{
		"NoDate":    "## [1.0.0]\n",
		"NoHeading": "## [Unreleased]\n\n- a change\n",
		"NoItem":    "## [Unreleased]\n\n### Added\n\n  goes on\n",
	} {
		t.Run(name, func(t *testing.T) {
			if log, err := parseChangelog(text); err == nil {
				t.Errorf("it was read as %+v", log)
			}
		})
	}
}

func TestLicencesAreTold(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"Apache License\n Version 2.0, January 2004", "Apache-2.0"},
		{"Permission is hereby granted, free of\ncharge, to any person", "Expat"},
		{"Redistribution and use in source and binary forms, ... nor to endorse or promote products", "BSD-3-clause"},
		{"Redistribution and use in source and binary forms", "BSD-2-clause"},
		{"Apache License\nVersion 2.0\n\nPermission is hereby granted, free of charge", "Apache-2.0 and Expat"},
		{"All rights reserved. You may not.", ""},
	} {
		if got := licences(c.text); got != c.want {
			t.Errorf("%q is %q, want %q", c.text, got, c.want)
		}
	}
}

// Every module that a package links is named in its copyright file, with a
// licence; this fails when a new dependency comes without a known one.
func TestCopyrightNamesWhatIsLinked(t *testing.T) {
	for name, programs := range linked {
		text, err := copyright(root, name, programs)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"Files: *\n", "Files: go@1.", "Files: github.com/BurntSushi/toml@", "License: Apache-2.0\n", "License: Expat\n", "License: BSD-3-clause\n"} {
			if !strings.Contains(text, part) {
				t.Errorf("the copyright of %s lacks %q", name, part)
			}
		}
		if strings.Contains(text, "END OF TERMS AND CONDITIONS") {
			t.Errorf("the copyright of %s has the text of the Apache licence, which Debian has in one place", name)
		}
	}
}
