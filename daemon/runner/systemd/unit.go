package systemd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"

	"github.com/godbus/dbus/v5"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
)

// UnitName returns the name of the unit that runs a job's attempts.
func UnitName(id job.ID) string { return "gpuqd-job-" + string(id) + ".service" }

// sliceName returns the slice that all units of an account are in. Where there is
// no account, nothing of the job runs.
func sliceName(a *runner.Account) string {
	if a.Problem != "" {
		return "gpuq.slice"
	}
	name := "gpuq-" + escapeUnit(a.Name) + ".slice"
	if len(name) > unitNameMax {
		name = fmt.Sprintf("gpuq-%d.slice", a.UID)
	}
	return name
}

// unitNameMax is the longest name of a unit: systemd.unit(5).
const unitNameMax = 255

// property is one setting of a unit, as StartTransientUnit takes it.
type property struct {
	Name  string
	Value dbus.Variant
}

// command is one line of ExecStart= and the like.
type unitCommand struct {
	Path          string
	Args          []string
	IgnoreFailure bool
}

// deviceRule is one line of DeviceAllow=.
type deviceRule struct{ Node, Access string }

const (
	infinity = math.MaxUint64
	// stopMargin is what a stop may take beyond the job's grace: the shim's own
	// writes, and processes that die slowly.
	stopMargin = 30 * time.Second
	// shimTasks is what the shim itself takes of a unit's TasksMax: its threads,
	// and the second stage for a moment.
	shimTasks = 20
	// filesSoft is the command's soft limit of open files. Loaders of training data
	// run into systemd's 1024; who calls select(2) has as few open as before.
	filesSoft, filesHard = 1 << 16, 1 << 19
	// journald drops what a unit logs beyond this, and tells of it only when the
	// unit logs again after the interval. Its own limit, 10000 lines where the journal
	// has little room, is below what a shim offers: 5000 at once, and 1000 a second.
	logInterval, logBurst = 30 * time.Second, 50_000
)

// properties are the settings of an attempt's unit.
//
// The shim is the unit, as root; its second stage becomes the account. So User= is
// not set: the shim would be the account's own process, which the command could
// stop, trace, and forge the record of. What narrows the unit narrows the command
// too, for good, so only what no job needs is taken: device files. Not set, since
// users' programs rely on them as in a login session: NoNewPrivileges= and
// CapabilityBoundingSet= (nvidia-modprobe, the starter of Apptainer and
// newuidmap are set-user-ID or have file capabilities), MemoryDenyWriteExecute=
// (everything that compiles at run time), PrivateDevices= (hides /dev/nvidia*),
// Private*= and Protect*= (jobs share files and sockets with the host they were
// submitted to), RestrictAddressFamilies= (NCCL, RDMA).
func properties(shim string, run []string, a *runner.Attempt) []property {
	in := a.Intent()
	props := []property{
		prop("Description", fmt.Sprintf("GPU job %s, attempt %d, of %s", in.JobID, in.Attempt, oneLine(in.Submitter))),
		prop("Slice", sliceName(in.Account)),
		// At the host's shutdown jobs end before gpuqd, which then commits. Nothing
		// else ties them: a stop of gpuqd touches no job.
		prop("After", []string{"gpuqd.service"}),
		// What has ended goes, failed or not: its record says all.
		prop("CollectMode", "inactive-or-failed"),

		// exec: a shim that is missing fails at the start.
		prop("Type", "exec"),
		prop("ExecStart", []unitCommand{{shim, run, false}}),
		prop("ExecStopPost", []unitCommand{{shim, []string{"gpuqd-shim", "witness", a.Dir()}, true}}),
		prop("Environment", runner.ShimEnviron),
		prop("StandardInput", "null"),
		prop("StandardOutput", "null"),
		prop("StandardErrorFileToAppend", a.ShimLogPath()),
		prop("SyslogIdentifier", "gpuqd-shim"),
		// More than the shim offers in that time: it is what bounds the output of a
		// job. What a job tells journald by itself counts, too.
		prop("LogRateLimitIntervalUSec", micros(logInterval)),
		prop("LogRateLimitBurst", uint32(logBurst)),
		prop("IgnoreSIGPIPE", false),

		// A stop is for the shim alone, which writes down why before it tells the
		// command. Were the command signalled beside it, its end could be taken for
		// its own doing. What then is left, systemd ends: it is the control group's.
		prop("KillMode", "mixed"),
		prop("SendSIGHUP", false),
		prop("TimeoutStopUSec", micros(in.GraceOrDefault()+stopMargin)),

		// The kernel chooses the command, never the shim, and the shim says what
		// happened: systemd would end the rest, whatever the job had to say to it.
		prop("OOMPolicy", "continue"),
		prop("OOMScoreAdjust", int32(-1000)),
		// The shim makes cgroups of its own: its, and the command's, which it freezes.
		prop("Delegate", true),

		prop("LimitNOFILE", uint64(filesHard)),
		prop("LimitNOFILESoft", uint64(filesSoft)),
		// RDMA and pinned host memory are locked memory, in any amount.
		prop("LimitMEMLOCK", uint64(infinity)),
		prop("LimitMEMLOCKSoft", uint64(infinity)),

		prop("DevicePolicy", "closed"),
		prop("DeviceAllow", deviceRules(in.DeviceNodes)),
	}
	return append(props, limits(in.Limits)...)
}

// oneLine keeps a broker's name of a submitter from being more than a description:
// systemd writes it as a line of the unit's file.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

// limits are the settings of what the job may use.
func limits(l runner.Limits) []property {
	tasks := uint64(infinity) // not systemd's default, a share of all PIDs
	if l.TasksMax > 0 {
		tasks = uint64(l.TasksMax) + shimTasks
	}
	props := []property{
		prop("TasksAccounting", true), prop("TasksMax", tasks),
		prop("MemoryAccounting", true), // for the peak, limit or not
	}
	if l.MemoryBytesMax > 0 {
		// Without swap: a job that swaps slows every other on the host down, for
		// hours, where one that ends is known within seconds and can be given more.
		props = append(props, prop("MemoryMax", uint64(l.MemoryBytesMax)), prop("MemorySwapMax", uint64(0)))
	}
	if l.CPUWeight > 0 {
		props = append(props, prop("CPUWeight", uint64(l.CPUWeight)))
	}
	return props
}

func deviceRules(nodes []string) []deviceRule {
	rules := make([]deviceRule, 0, len(nodes))
	for _, node := range nodes {
		rules = append(rules, deviceRule{node, "rw"})
	}
	return rules
}

func prop(name string, value any) property { return property{name, dbus.MakeVariant(value)} }

func micros(d time.Duration) uint64 { return uint64(d.Microseconds()) }

// describeSlice starts the account's slice with a description, once. Without, it
// comes into being with its first unit, and has none.
func (s *Starter) describeSlice(ctx context.Context, account *runner.Account) {
	if account.Problem != "" {
		return
	}
	slice := sliceName(account)
	if _, done := s.slices.LoadOrStore(slice, true); done {
		return
	}
	err := s.bus.startTransient(ctx, slice, []property{prop("Description", "GPU jobs of "+account.Name)})
	if err != nil && !errors.Is(err, errUnitExists) {
		s.slices.Delete(slice) // the next start tries again; this one goes on without
	}
}
