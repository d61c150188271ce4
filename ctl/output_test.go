package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"

	"github.com/spf13/cobra"
)

func ago(d time.Duration) job.Time { return job.At(now.Add(-d)) }

// someJobs are rows of every kind.
func someJobs() []control.JobRow {
	return []control.JobRow{
		{
			ID: idA, Name: "train", State: job.Running, Attempt: 2, Host: "gpu1", Submitter: "ada", Queue: "gpuq.job.default.high.g8.any",
			Priority: job.High, GPUs: 8, SubmittedAt: ago(26 * time.Hour), StartedAt: ago(3 * time.Minute), Class: job.ClassUser,
		},
		{
			ID: idB, Name: "a name\twith \x1b[31mcolour", State: job.Waiting, Reason: "the submitter has 4 jobs running, as many as are allowed at a time; it is released when one of them ends",
			Submitter: "bartholomew", Queue: "gpuq.job.default.normal.g1.share12", Priority: job.Normal, GPUs: 1, GPUMemory: 12 << 30, SubmittedAt: ago(90 * time.Second),
		},
		{
			ID: idC, State: job.Failed, Reason: "attempt 3 of 3 failed", Attempt: 3, Host: "gpu2", Submitter: "ada", Queue: "gpuq.job.default.low.g0.any",
			Priority: job.Low, SubmittedAt: ago(50 * time.Hour), StartedAt: ago(2 * time.Hour), EndedAt: ago(time.Hour),
			ExitCode: exitCodeOf(137), Signal: "SIGKILL", Class: job.ClassOOMHost, Labels: map[string]string{"sweep": "7"},
		},
		{
			ID: idD, Name: "학습 작업", State: job.Waiting, Held: true, Reason: "held by ada: 데이터를 고치는 중", Submitter: "지우", Queue: "gpuq.job.default.normal.g2.any",
			Priority: job.Normal, GPUs: 2, SubmittedAt: ago(time.Minute), RequeueOf: idC,
		},
	}
}

// someDocument is a job that failed, was retried, and is running again.
func someDocument() *job.Job {
	spec := job.DefaultSpec()
	spec.Command = []string{"python", "train.py", "--note", "it's <new>"}
	spec.Name, spec.Key, spec.MaxAttempts, spec.RetryOn = "train", "sweep-7/1", 3, []int{75, 111}
	spec.TimeLimit = job.Duration(12 * time.Hour)
	spec.MemoryMax, spec.TasksMax, spec.CPUWeight = 64<<30, 4096, 50
	spec.GPUs, spec.GPUModel, spec.MinGPUMemory, spec.MinComputeCapability = 2, "h100", 80<<30, "9.0"
	spec.Env = map[string]string{"SEED": "1", "NOTE": "two words"}
	spec.Labels = map[string]string{"sweep": "7"}
	j := job.New(idA, "ada", spec, ago(2*time.Hour))
	j.State, j.Attempt, j.Fence, j.Failures, j.Requeues = job.Running, 2, 2, 1, 1
	j.Reason = "attempt 2 is running"
	j.Owner = &job.Owner{Host: "gpu2", Session: "s2", ClaimID: "c2", Devices: []string{"GPU-2a", "GPU-2b"}, Running: ago(3 * time.Second)}
	j.RequeueOf = idC
	j.Kill = &job.Kill{ID: "k", Who: "root", Reason: "maintenance", At: ago(time.Second)}
	j.Result = &job.Result{
		Attempt: 1, Host: "gpu1", Outcome: job.Retrying, Class: job.ClassUser, ExitCode: 75, Reason: "exit code 75",
		StartedAt: ago(time.Hour), EndedAt: ago(time.Hour - 90*time.Second), GPUSeconds: 90, CPUSeconds: 12.34,
		MemoryBytesMax: 3 << 29, Devices: []string{"GPU-1a"}, LogTail: "line 1\nline 2\n", LogDroppedBytes: 2048,
	}
	j.History = append(j.History,
		job.Change{State: job.Claimed, At: ago(time.Hour + time.Second), Host: "gpu1"},
		job.Change{State: job.Running, At: ago(time.Hour), Host: "gpu1"},
		job.Change{State: job.Retrying, At: ago(time.Hour - 90*time.Second), Host: "gpu1", Class: job.ClassUser, Reason: "attempt 1 of 3 failed; the next is due in 1s"},
		job.Change{State: job.Claimed, At: ago(4 * time.Second), Host: "gpu2"},
		job.Change{State: job.Running, At: ago(3 * time.Second), Host: "gpu2"})
	return j
}

func TestOutput(t *testing.T) {
	d := startDaemon(t)
	golden(t, "list-empty", gpuqctl(t, d, "list"))
	golden(t, "list-empty-json", gpuqctl(t, d, "list", "--json"))
	golden(t, "hosts-empty-json", gpuqctl(t, d, "hosts", "--json"))
	golden(t, "devices-empty-json", gpuqctl(t, d, "devices", "--json"))
	d.put(someJobs()...)
	d.docs[idA] = someDocument()
	held := someDocument()
	held.ID, held.State, held.Reason, held.Owner, held.Kill = idD, job.Waiting, "held by ada: data", nil, nil
	held.Hold = &job.Hold{ID: "h", Who: "ada", Reason: "data", At: ago(time.Minute)}
	d.docs[idD] = held
	d.docs[idB] = job.New(idB, "ada", func() job.Spec { s := job.DefaultSpec(); s.Command = []string{"true"}; return s }(), ago(0))
	d.hosts = []control.HostRow{
		{
			Name: "gpu1", Live: true, State: "live", RenewedAgeSeconds: 3.2, Version: "1.2.2", BootID: "b1", Pools: []string{"default", "large"},
			DevicesTotal: 8, DevicesFree: 1, DevicesBusy: 6, Running: 5,
			Sick: []control.SickDevice{{UUID: "GPU-7a2b", Index: 1, Reason: "XID 79: fallen off the bus"}, {UUID: "GPU-0", Index: -1, Reason: "lost"}},
		},
		{
			Name: "gpu2", State: "expired", RenewedAgeSeconds: 86400 * 3, Version: "1.2.1", BootID: "b2", Pools: []string{"default"}, DevicesTotal: 8, Drain: "drained by root: row remap pending",
			Drained: &control.Drain{Who: "root", Reason: "row remap pending", At: ago(3 * time.Hour), Mode: control.DrainFinish},
		},
		{
			Name: "gpu3", Live: true, State: "live", Version: "1.2.2", Pools: []string{"default"}, DevicesTotal: 8, DevicesBusy: 2, Running: 2,
			Drained: &control.Drain{Who: "ada", Reason: "new kernel", At: ago(time.Minute), Mode: control.DrainFinish, Deadline: job.At(now.Add(29 * time.Minute))},
		},
		{Name: "login1", Live: true, State: "live", RenewedAgeSeconds: -1, Version: "1.2.2", BootID: "b3", Pools: []string{}},
	}
	d.devices = control.DevicesReply{
		Devices: []control.DeviceRow{
			{
				Host: "gpu1", UUID: "GPU-6f1e", Model: "NVIDIA H200", MemoryBytes: 150_754_820_096, State: "busy", JobID: idA, Attempt: 2,
				DeviceFacts: control.DeviceFacts{
					Since: ago(time.Hour), Holders: []control.DeviceHolder{{JobID: idA, Attempt: 2}}, PCIAddress: "0000:1b:00.0",
					ComputeCapability: "9.0", NUMANode: new(1), MemoryUsedBytes: 12 << 30, UtilisationPercent: new(97), TemperatureCelsius: new(81),
					PowerWatts: new(612.4), PowerLimitWatts: new(700.), Throttle: []string{"sw_power_cap", "hw_thermal_slowdown"},
					ECC: &control.DeviceECC{Corrected: 3}, Processes: []control.DeviceProcess{{PID: 4711, MemoryUsedBytes: 12 << 30}, {PID: 4712}},
				},
			},
			{
				Host: "gpu1", UUID: "GPU-7a2b", Index: 1, Model: "NVIDIA H200", MemoryBytes: 150_754_820_096, State: "sick", Reason: "XID 79: fallen off the bus",
				DeviceFacts: control.DeviceFacts{
					Since: ago(3 * time.Minute), Recovery: "gpu_reset",
					ECC: &control.DeviceECC{Uncorrected: 2, UncorrectedAggregate: 5, RemapPending: true, RemapFailed: true},
				},
				Drained: &control.Drain{Who: "ada", Reason: "to be replaced", At: ago(time.Minute), Mode: control.DrainFinish},
			},
			{
				Host: "gpu1", UUID: "MIG-9d4e", Index: 3, Model: "NVIDIA H200", MemoryBytes: 18 << 30, State: "busy", JobID: idB, Attempt: 1,
				DeviceFacts: control.DeviceFacts{
					Since: ago(time.Minute), ParentUUID: "GPU-8c3d", MIGProfile: "1g.18gb", MemoryUsedBytes: 3 << 30,
					Holders: []control.DeviceHolder{{JobID: idB, Attempt: 1, MemoryBytes: 4 << 30}, {JobID: idC, Attempt: 3, MemoryBytes: 2 << 30}},
				},
			},
			{
				Host: "gpu1", UUID: "MIG-9d4f", Index: 4, Model: "NVIDIA H200", MemoryBytes: 18 << 30, State: "checking",
				DeviceFacts: control.DeviceFacts{Since: ago(0), ParentUUID: "GPU-8c3d", MIGProfile: "1g.18gb", Faults: []string{"memory 3 GiB", "throttle \"hot\""}, Throttle: []string{"hot"}},
			},
			{
				Host: "gpu1", UUID: "GPU-8c3d", Index: 2, Model: "NVIDIA H200", MemoryBytes: 150_754_820_096, State: "cordoned", Reason: "drained by ada: fan",
				Drained: &control.Drain{Who: "ada", Reason: "fan", At: ago(0), Mode: control.DrainKill, Deadline: ago(0)},
			},
			{Host: "gpu2", UUID: "GPU-sim-0", Index: -1, Model: "Simulated GPU", MemoryBytes: 80 << 30, Simulated: true, State: "free", AgeSeconds: 12},
		},
		Warnings: []string{"gpu3 does not answer: its devices are not shown"},
	}
	for name, args := range map[string][]string{
		"list": {"list"}, "list-json": {"list", "--json"},
		"show": {"show", string(idA)}, "show-json": {"show", "--json", string(idA)}, "show-fresh": {"show", string(idB)}, "show-held": {"show", string(idD)},
		"hosts": {"hosts"}, "hosts-json": {"hosts", "--json"},
		"devices": {"devices"}, "devices-json": {"devices", "--json"}, "devices-host": {"devices", "--host", "gpu2"},
		"devices-busy": {"devices", "gpu1/0"}, "devices-sick": {"devices", "--host", "gpu1", "--device", "GPU-7a"}, "devices-shared": {"devices", "gpu1/MIG-9d4e"},
		"devices-checking": {"devices", "gpu1/4"}, "devices-one-json": {"devices", "gpu1/0", "--json"},
		"version": {"version"}, "version-json": {"version", "--json"}, "version-client": {"version", "--client"},
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, gpuqctl(t, d, args...)) })
	}
	t.Run("list-narrow", func(t *testing.T) {
		golden(t, "list-narrow", (&run{width: 130}).exec(t.Context(), d, "list"))
	})
	for _, columns := range []int{80, 120, 160} {
		name := fmt.Sprintf("devices-%d", columns)
		t.Run(name, func(t *testing.T) {
			golden(t, name, (&run{width: columns}).exec(t.Context(), d, "devices"))
		})
	}
	t.Run("list-more", func(t *testing.T) {
		d.more = true
		golden(t, "list-more", gpuqctl(t, d, "list", "--limit", "3"))
	})
	t.Run("ShowJSONIsTheDocument", func(t *testing.T) {
		var got job.Job
		if err := json.Unmarshal([]byte(gpuqctl(t, d, "show", "--json", string(idA)).out.String()), &got); err != nil {
			t.Fatal(err)
		}
		if got.SpecHash != d.docs[idA].SpecHash || got.Spec.Hash() != got.SpecHash || len(got.History) != 6 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestHelp(t *testing.T) {
	golden(t, "help/gpuqctl", gpuqctl(t, nil, "--help"))
	var look func(cmd *cobra.Command, path ...string)
	look = func(cmd *cobra.Command, path ...string) {
		name := strings.Join(path, "-")
		t.Run(name, func(t *testing.T) {
			golden(t, "help/"+name, gpuqctl(t, nil, append(path, "--help")...))
			if cmd.Example == "" || cmd.Long == "" {
				t.Errorf("the help of %s teaches by no example", name)
			}
			for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
				if len(line) > 90 {
					t.Errorf("%d columns: %s", len(line), line)
				}
			}
		})
		for _, sub := range cmd.Commands() {
			look(sub, append(slices.Clone(path), sub.Name())...)
		}
	}
	for _, cmd := range (&app{out: io.Discard}).root().Commands() {
		look(cmd, cmd.Name())
	}
}

func TestListAsksForWhatItWasAsked(t *testing.T) {
	d := startDaemon(t)
	gpuqctl(t, d, "list", "--state", "queued,running", "--state", "failed", "--user", "ada", "--since", "24h", "--limit", "7").want(t, 0, "", "no jobs")
	got := d.lists[0]
	if !slices.Equal(got.States, []job.State{job.Queued, job.Running, job.Failed}) || got.User != "ada" || got.Limit != 7 || got.Since != ago(24*time.Hour) {
		t.Errorf("asked %+v", got)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "now", 0: "now", 999 * time.Millisecond: "now", time.Second: "1s", 119 * time.Second: "119s", 2 * time.Minute: "2m",
		119 * time.Minute: "119m", 2 * time.Hour: "2h", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 1000 * 24 * time.Hour: "1000d",
	} {
		if got := span(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 80 << 30: "80 GiB", 1 << 60: "1048576 TiB"} {
		if got := size(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

// TestImports keeps gpuqctl small and out of the daemon's business: it may not
// know a store, a device or an attempt.
func TestImports(t *testing.T) {
	list := func(args ...string) []string {
		out, err := exec.CommandContext(t.Context(), "go", append([]string{"list", "-f"}, args...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(out))
	}
	allowed := []string{"job", "config", "control", "fault", "version"}
	for _, path := range list(`{{join .Imports "\n"}}`, ".") {
		if name, ours := strings.CutPrefix(path, "gpuqd/daemon/"); ours && !slices.Contains(allowed, name) {
			t.Errorf("gpuqctl imports %s; it may import %s", path, allowed)
		}
	}
	for _, path := range list(`{{.ImportPath}}`, "-deps", ".") {
		for _, forbidden := range []string{"gpuqd/daemon/ledger", "gpuqd/daemon/device", "gpuqd/daemon/nvml", "gpuqd/daemon/runner", "gpuqd/daemon/agent", "gpuqd/daemon/dedup", "go-nvml", "mongo-driver", "go-redis", "modernc.org/sqlite", "go-systemd", "client_golang", "testing"} {
			if strings.Contains(path, forbidden) {
				t.Errorf("gpuqctl is linked with %s", path)
			}
		}
	}
}

func TestDevicesRefusesAWrongCommandLine(t *testing.T) {
	d := startDaemon(t)
	hosted(d)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"gpu1/9"}, exitNotFound, "host gpu1 has no device 9: gpuqctl devices gpu1 lists them"},
		{[]string{"gpu1/GPU-"}, exitUsage, "GPU- begins several UUIDs"},
		{[]string{"gpu1/"}, exitUsage, `"gpu1/" is neither HOST nor HOST/DEVICE`},
		{[]string{"gpu1", "gpu2"}, exitUsage, "want one HOST or HOST/DEVICE"},
		{[]string{"--device", "0"}, exitUsage, "name its host, too: --host HOST --device 0"},
		{[]string{"gpu1", "--device", "0"}, exitUsage, "not both"},
	} {
		gpuqctl(t, d, append([]string{"devices"}, c.args...)...).want(t, c.code, "", c.says)
	}
}
