// Package account finds the local account that a submitter's jobs run as. It asks
// the host's own programs, getent and id, so that accounts of a directory service
// are found, which gpuqd, without libc, could not ask itself.
package account

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"gpuqd/daemon/runner"
)

// Rules say who runs as whom.
type Rules struct {
	Accounts  map[string]string // local account by submitter; goes before all else
	Default   string            // of submitters without a local account; "" is none
	AllowRoot bool              // whether UID 0 may run jobs
}

// Resolver finds accounts, and remembers them for a while. Its methods may be
// called from any goroutine.
type Resolver struct {
	rules Rules
	now   func() time.Time

	mu    sync.Mutex
	known map[string]answer // by account name
}

// answer is what the host said of a name.
type answer struct {
	account *runner.Account // nil: there is none of that name
	until   time.Time
}

const (
	// keep is how long an account is believed: a new group counts for a job so much
	// later. keepNone is short, since somebody may be making the account just now.
	keep     = time.Minute
	keepNone = 5 * time.Second
	// missed is how long an account that was there before is not believed to be
	// gone: getent says of a directory service that is away what it says of a name
	// that nobody has, and the jobs would fail for good, or run as the default.
	missed = time.Hour
	// knownMax bounds what is remembered.
	knownMax = 10_000
	// askWait bounds one question; a directory service may hang.
	askWait = 10 * time.Second
)

// New returns a resolver.
func New(rules Rules) *Resolver {
	return &Resolver{rules: rules, now: time.Now, known: map[string]answer{}}
}

// Resolve returns the account that a submitter's jobs run as. Where the submitter
// has none here, or one that may run nothing, its Problem says so, with what to
// do. An error means that the host could not be asked: it may answer later.
func (r *Resolver) Resolve(ctx context.Context, submitter string) (*runner.Account, error) {
	name, mapped := r.rules.Accounts[submitter]
	if !mapped {
		name = submitter
	}
	account, err := r.lookUp(ctx, name)
	if err == nil && account == nil && !mapped && r.rules.Default != "" {
		name, mapped = r.rules.Default, true
		account, err = r.lookUp(ctx, name)
	}
	if err != nil {
		return nil, fmt.Errorf("find the account of submitter %s: %w", submitter, err)
	}
	if account == nil {
		return &runner.Account{Name: submitter, UID: -1, GID: -1, Problem: noAccount(submitter, name, mapped)}, nil
	}
	found := *account
	if found.UID == 0 && !r.rules.AllowRoot {
		found.Problem = fmt.Sprintf("jobs do not run as root here (submitter %s, account %s): submit as yourself, or have the operator of this host map the submitter to another account in runner.accounts of gpuqd.toml", submitter, name)
	}
	found.AllowRoot = r.rules.AllowRoot
	return &found, nil
}

func noAccount(submitter, name string, mapped bool) string {
	if mapped {
		return fmt.Sprintf("this host has no account %s, which gpuqd.toml names for submitter %s: the operator makes it, or corrects runner.accounts or runner.account_default", name, submitter)
	}
	return fmt.Sprintf("submitter %s has no account on this host: the operator makes one, or maps the submitter to one in runner.accounts or runner.account_default of gpuqd.toml", submitter)
}

// lookUp returns an account by its name, nil where there is none.
func (r *Resolver) lookUp(ctx context.Context, name string) (*runner.Account, error) {
	r.mu.Lock()
	known, ok := r.known[name]
	r.mu.Unlock()
	if ok && r.now().Before(known.until) {
		return known.account, nil
	}
	account, err := ask(ctx, name)
	if err != nil {
		return nil, err
	}
	if account == nil && known.account != nil && r.now().Before(known.until.Add(missed)) {
		return nil, fmt.Errorf("the host does not know account %s any more, as it did a while ago: see whether its directory service is up (getent passwd %[1]s); if the account was removed, kill its jobs", name)
	}
	until := r.now().Add(keep)
	if account == nil {
		until = r.now().Add(keepNone)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.known) >= knownMax {
		clear(r.known)
	}
	r.known[name] = answer{account, until}
	return account, nil
}

// ask asks the host.
//
// Source: getent(1), passwd(5), id(1).
func ask(ctx context.Context, name string) (*runner.Account, error) {
	if !askable(name) {
		return nil, nil
	}
	line, err := output(ctx, "getent", "passwd", "--", name)
	var status *exec.ExitError
	if errors.As(err, &status) && status.ExitCode() == 2 {
		return nil, nil // "one or more supplied keys could not be found"
	}
	if err != nil {
		return nil, err
	}
	account, err := parse(line)
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(account.Name, name) {
		return nil, nil // it was found by something else than its name
	}
	groups, err := output(ctx, "id", "-G", "--", account.Name)
	if err != nil {
		return nil, err
	}
	for _, text := range strings.Fields(groups) {
		gid, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("id -G %s says %q", account.Name, groups)
		}
		account.Groups = append(account.Groups, gid)
	}
	return account, nil
}

// askable reports whether a name can be one of an account. A number would be taken
// for a UID, and a name of another file's form found by chance.
func askable(name string) bool {
	return name != "" && len(name) <= 256 && strings.Trim(name, "0123456789") != "" && !strings.ContainsAny(name, ":\x00\n/")
}

// parse reads a line of passwd(5).
func parse(line string) (*runner.Account, error) {
	line, _, _ = strings.Cut(line, "\n")
	f := strings.Split(line, ":")
	if len(f) != 7 {
		return nil, fmt.Errorf("getent passwd says %q, which is no account", line)
	}
	uid, uidErr := strconv.Atoi(f[2])
	gid, gidErr := strconv.Atoi(f[3])
	if err := errors.Join(uidErr, gidErr); err != nil || uid < 0 || gid < 0 {
		return nil, fmt.Errorf("getent passwd says %q, which is no account", line)
	}
	account := &runner.Account{Name: f[0], UID: uid, GID: gid, Home: f[5], Shell: f[6]}
	if account.Home == "" {
		account.Home = "/"
	}
	if account.Shell == "" {
		account.Shell = "/bin/sh" // passwd(5)
	}
	return account, nil
}

// output runs a program of the host.
func output(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askWait, fmt.Errorf("no answer within %s", askWait))
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("ask the host for accounts (%s %s): %w", name, strings.Join(args, " "), err)
	}
	return string(out), nil
}
