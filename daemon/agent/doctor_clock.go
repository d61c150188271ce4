package agent

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"gpuqd/daemon/health"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/runner"

	"golang.org/x/sys/unix"
)

// Names of the checks.
const (
	checkSynchronised = "synchronised"
	checkBootClock    = "boot clock"
	checkOffset       = "offset"
	checkRenewals     = "renewals"
)

// offsetWarn is how far two hosts' wall clocks may be apart. No promise rests on
// them; times that people compare do, and take.slack bounds what the sweeper
// makes of them.
const offsetWarn = time.Second

const clockAdvice = "run a time service on every host (chrony or systemd-timesyncd) and see that its servers answer: chronyc tracking, timedatectl"

// examineClock looks at this host's clocks, and at its wall clock beside those
// of the others as they are in the ledger.
func (a *Agent) examineClock(ctx context.Context) []health.Check {
	return append([]health.Check{examineKernelClock(ctx), examineBootClock()}, a.examineRenewals(ctx)...)
}

// examineKernelClock asks the kernel whether something disciplines its clock.
//
// Source: adjtimex(2). The sandbox of gpuqd.service refuses it (ProtectClock=), though
// it only reads; systemd-timedated asks for whoever may not.
func examineKernelClock(ctx context.Context) health.Check {
	var t unix.Timex // modes 0: it only reads
	state, err := unix.Adjtimex(&t)
	if errors.Is(err, unix.EPERM) {
		ctx, cancel := context.WithTimeout(ctx, timedateTimeout)
		defer cancel()
		return judgeTimedate(exec.CommandContext(ctx, "timedatectl", "show", "--property=NTPSynchronized", "--value").Output())
	}
	if err != nil {
		return health.Bad(checkSynchronised, health.Unknown, "by hand: timedatectl, or chronyc tracking", "the kernel does not say: %v", err)
	}
	const unsynchronised = 5 // TIME_ERROR
	if state == unsynchronised || t.Status&unix.STA_UNSYNC != 0 {
		return health.Bad(checkSynchronised, health.Warn, clockAdvice, "the kernel says that nothing keeps its clock to the time")
	}
	return health.Good(checkSynchronised, "the kernel says so, to within %s", health.Figure(time.Duration(t.Maxerror)*time.Microsecond))
}

// timedateTimeout bounds the question to systemd-timedated, which may have to start.
const timedateTimeout = 5 * time.Second

// judgeTimedate judges what timedatectl answered, or could not.
func judgeTimedate(answer []byte, err error) health.Check {
	switch said := strings.TrimSpace(string(answer)); {
	case err == nil && said == "yes":
		return health.Good(checkSynchronised, "systemd-timedated says so")
	case err == nil && said == "no":
		return health.Bad(checkSynchronised, health.Warn, clockAdvice, "systemd-timedated says that nothing keeps the kernel's clock to the time")
	case err == nil:
		err = fmt.Errorf("it says %q", said)
	}
	return health.Bad(checkSynchronised, health.Unknown, "by hand: timedatectl, or chronyc tracking", "the kernel may not be asked, and systemd-timedated does not say: %v", err)
}

// examineBootClock looks at the clock that leases are kept by. It goes on while
// the host is suspended; what it has more than the monotonic one was such sleep.
func examineBootClock() health.Check {
	var mono, tick unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono); err != nil {
		return health.Bad(checkBootClock, health.Unknown, "this kernel is not one that gpuqd is made for", "CLOCK_MONOTONIC: %v", err)
	}
	boot := runner.Boottime()
	if err := unix.ClockGetres(unix.CLOCK_BOOTTIME, &tick); err != nil {
		return health.Bad(checkBootClock, health.Unknown, "this kernel is not one that gpuqd is made for", "CLOCK_BOOTTIME: %v", err)
	}
	if asleep := boot - time.Duration(mono.Nano()); asleep > time.Second {
		return health.Bad(checkBootClock, health.Warn, "keep the host awake: systemctl mask sleep.target suspend.target hibernate.target; the leases of a host that sleeps run out",
			"the host was suspended for %s since its boot %s ago", health.Figure(asleep), health.Figure(boot))
	}
	return health.Good(checkBootClock, "CLOCK_BOOTTIME ticks every %s; never suspended since the boot %s ago",
		health.Figure(time.Duration(tick.Nano())), health.Figure(boot))
}

// examineRenewals compares this host's wall clock with the times that the others
// wrote at their last renewals: one in the future is ahead by at least so much;
// one of long ago is behind, or its host no longer renews.
func (a *Agent) examineRenewals(ctx context.Context) []health.Check {
	hosts, err := a.freshHosts(ctx)
	if err != nil {
		return []health.Check{health.Bad(checkRenewals, health.Unknown, "mend the ledger first", "the ledger does not tell them: %v", err)}
	}
	now, seen := a.clock.Now(), 0
	var checks []health.Check
	for _, h := range hosts {
		if h.Name == a.host || h.Session.State != ledger.Live || h.Session.RenewedAt.IsZero() {
			continue
		}
		seen++
		// A host that renews does so at least three times in its ttl.
		age, late := now.Sub(h.Session.RenewedAt.Time), h.Session.TTL.Std()/3+offsetWarn
		switch {
		case age < -offsetWarn:
			checks = append(checks, a.judgeOffset(checkRenewals, -age, "%s renewed its lease %s in this host's future: the two clocks differ by that at least", h.Name, health.Figure(-age)))
		case age > late:
			checks = append(checks, a.judgeOffset(checkRenewals, age-late, "%s renewed its lease last %s ago by this host's clock, and should every %s: the clocks differ, or it has lost the ledger",
				h.Name, health.Figure(age), health.Figure(late)))
		}
	}
	if len(checks) == 0 {
		return []health.Check{health.Good(checkRenewals, "%d other live hosts renewed their leases when they should, by this host's clock", seen)}
	}
	return checks
}

// judgeOffset is a check on a difference of two clocks of at least that much.
func (a *Agent) judgeOffset(name string, least time.Duration, format string, args ...any) health.Check {
	slack := a.cfg.Take.Slack.Std()
	switch {
	case least > slack/2:
		return health.Bad(name, health.Fail, clockAdvice+"; past half of take.slack the sweeper takes messages for lost that are not, and looks for lost ones late", format, args...)
	case least > offsetWarn:
		return health.Bad(name, health.Warn, clockAdvice, format, args...)
	}
	return health.Good(name, format, args...)
}

// freshHosts reads the hosts, within the time of one operation.
func (a *Agent) freshHosts(ctx context.Context) ([]*ledger.Host, error) {
	l, err := a.book()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Ledger.Timeout.Std())
	defer cancel()
	return l.HostList(ctx)
}
