package account

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/runner"
)

// The accounts that every Linux host has are asked of the real programs.
func TestResolve(t *testing.T) {
	for _, c := range []struct {
		what, submitter string
		rules           Rules
		name            string
		uid             int
		problem         string
	}{
		{"SameName", "daemon", Rules{}, "daemon", 1, ""},
		{"Mapped", "alice@lab", Rules{Accounts: map[string]string{"alice@lab": "daemon"}}, "daemon", 1, ""},
		{"MappingGoesBeforeTheSameName", "bin", Rules{Accounts: map[string]string{"bin": "daemon"}}, "daemon", 1, ""},
		{"Default", "no-such-person", Rules{Default: "daemon"}, "daemon", 1, ""},
		{"DefaultIsNotForWhoHasAnAccount", "bin", Rules{Default: "daemon"}, "bin", 2, ""},
		{"NoAccount", "no-such-person", Rules{}, "no-such-person", -1, "has no account on this host"},
		{"MappedToNone", "x", Rules{Accounts: map[string]string{"x": "no-such-person"}}, "x", -1, "no account no-such-person"},
		{"MappedToNoneTakesNoDefault", "x", Rules{Accounts: map[string]string{"x": "no-such-person"}, Default: "daemon"}, "x", -1, "no account no-such-person"},
		{"DefaultIsNone", "x", Rules{Default: "no-such-person"}, "x", -1, "runner.account_default"},
		{"NumberIsNoName", "1", Rules{}, "1", -1, "has no account"},
		{"OptionIsNoName", "--help", Rules{}, "--help", -1, "has no account"},
		{"LineIsNoName", "a:b", Rules{}, "a:b", -1, "has no account"},
		{"Root", "root", Rules{}, "root", 0, "do not run as root"},
		{"MappedToRoot", "x", Rules{Accounts: map[string]string{"x": "root"}}, "root", 0, "do not run as root"},
		{"RootAllowed", "root", Rules{AllowRoot: true}, "root", 0, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			got, err := New(c.rules).Resolve(t.Context(), c.submitter)
			if err != nil {
				t.Fatal(err)
			}
			if got.Name != c.name || got.UID != c.uid || (got.Problem == "") != (c.problem == "") || !strings.Contains(got.Problem, c.problem) {
				t.Errorf("got %+v", got)
			}
			if got.Problem == "" && (got.Home == "" || got.Shell == "" || !slices.Contains(got.Groups, got.GID)) {
				t.Errorf("got %+v, which lacks something", got)
			}
		})
	}
}

// A host that cannot be asked is an error, not a missing account: the job would
// fail for good.
func TestHostThatDoesNotAnswerIsAnError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := New(Rules{Default: "daemon"})
	if got, err := r.Resolve(ctx, "daemon"); err == nil {
		t.Fatalf("got %+v", got)
	}
	if got, err := r.Resolve(t.Context(), "daemon"); err != nil || got.UID != 1 {
		t.Errorf("afterwards: %+v, %v", got, err)
	}
}

// What was asked is remembered, and asked again when it is old.
func TestAnswersAreKeptForAWhile(t *testing.T) {
	r := New(Rules{})
	now := time.Now()
	r.now = func() time.Time { return now }
	if _, err := r.Resolve(t.Context(), "daemon"); err != nil {
		t.Fatal(err)
	}
	broken, cancel := context.WithCancel(t.Context())
	cancel() // whoever asks the host now, fails
	if _, err := r.Resolve(broken, "daemon"); err != nil {
		t.Errorf("within a minute: %v", err)
	}
	now = now.Add(keep)
	if _, err := r.Resolve(broken, "daemon"); err == nil {
		t.Error("an old answer was believed")
	}
}

// To getent a directory service that is away and a name that nobody has are one.
func TestAccountThatVanishesIsMissedForAWhile(t *testing.T) {
	const name = "no-such-person"
	r := New(Rules{Default: "daemon"})
	now := time.Now()
	r.now = func() time.Time { return now }
	r.known[name] = answer{&runner.Account{Name: name, UID: 4321}, now}
	for range 2 {
		if got, err := r.Resolve(t.Context(), name); err == nil || !strings.Contains(err.Error(), "directory service") {
			t.Fatalf("got %+v, %v", got, err)
		}
		now = now.Add(missed - time.Second)
	}
	now = now.Add(time.Second)
	if got, err := r.Resolve(t.Context(), name); err != nil || got.Name != "daemon" {
		t.Errorf("after %s: %+v, %v", missed, got, err)
	}
}

func TestParseRefusesWhatIsNoAccount(t *testing.T) {
	for _, line := range []string{"", "x", "a:x:1:1:::", "a:x:y:1::/:/bin/sh", "a:x:-1:1::/:/bin/sh", "a:x:1:1::/:/bin/sh:more"} {
		got, err := parse(line)
		if line == "a:x:1:1:::" {
			if err != nil || got.Home != "/" || got.Shell != "/bin/sh" {
				t.Errorf("%q: %+v, %v", line, got, err)
			}
		} else if err == nil {
			t.Errorf("%q: %+v", line, got)
		}
	}
}

// A directory service that hangs holds nobody up for longer than a bound.
func TestHangingProgramIsGivenUp(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hang"), []byte("#!/bin/sh\nsleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := output(ctx, filepath.Join(dir, "hang")); err == nil {
		t.Error("it answered")
	}
}
