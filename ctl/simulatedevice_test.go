package main

import (
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/fault"
	"gpuqd/daemon/job"
)

func TestSimulateDevice(t *testing.T) {
	for name, c := range map[string]struct {
		args      []string
		want      fault.Fault
		out, says string
	}{
		"XID": {
			[]string{"0", "xid", "--xid", "79", "--count", "2"},
			fault.Fault{Kind: fault.XID, Device: "0", XID: 79, Count: 2},
			"gpu1/GPU-aa01: xid 79, 2 times\n", "",
		},
		"Process": {
			[]string{"1", "process", "--pid", "4711", "--memory", "3GiB"},
			fault.Fault{Kind: fault.Process, Device: "1", PID: 4711, MemoryBytes: 3 << 30},
			"gpu1/GPU-bb02: process 4711 3 GiB\n", "gpuqctl simulate device gpu1 1 clear ends it",
		},
		"All": {
			[]string{"all", "sick", "--reason", "it smokes", "--for", "90s"},
			fault.Fault{Kind: fault.Sick, Device: "all", Reason: "it smokes", For: job.Duration(90 * time.Second)},
			"gpu1/GPU-aa01: sick \"it smokes\", for 1m30s\ngpu1/GPU-bb02: sick \"it smokes\", for 1m30s\n", "",
		},
		"Driver": {
			[]string{"all", "driver_gone"},
			fault.Fault{Kind: fault.DriverGone, Device: "all"},
			"gpu1: driver_gone\n", "gpuqctl simulate device gpu1 all driver_back ends it",
		},
		"Lost": {
			[]string{"0", "lost"},
			fault.Fault{Kind: fault.Lost, Device: "0"},
			"gpu1/GPU-aa01: lost\n", "gpuqctl simulate device gpu1 0 back ends it",
		},
		"Clear": {[]string{"0", "clear"}, fault.Fault{Kind: fault.Clear, Device: "0"}, "gpu1/GPU-aa01: clear\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t)
			hosted(d)
			r := gpuqctl(t, d, append([]string{"simulate", "device", "gpu1"}, c.args...)...)
			r.want(t, 0, c.out, c.says)
			if c.says == "" && r.err.String() != "" {
				t.Errorf("it says %q", r.err.String())
			}
			if len(d.faults) != 1 || d.faults[0].Host != "gpu1" || d.faults[0].Fault != c.want || d.faults[0].ID == "" {
				t.Errorf("asked %+v, want %+v", d.faults, c.want)
			}
		})
	}
}

func TestSimulateDeviceRefusesAWrongCommandLine(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"", "want HOST, DEVICE and FAULT, such as worker_2 0 lost, but 0 are given"},
		{"gpu1 0", "but 2 are given"},
		{"gpu1 0 fire", "there is no fault \"fire\": want xid,"},
		{"gpu1 0 xid", "--xid: xid needs it: want 1 to 999"},
		{"gpu1 0 xid --xid 1000", "--xid: want 1 to 999"},
		{"gpu1 0 xid --xid many", "see gpuqctl simulate device --help"},
		{"gpu1 0 lost --xid 79", "--xid: lost has none: leave it out"},
		{"gpu1 0 memory --memory 3", "--memory: \"3\" is no size: want a number with its unit"},
		{"gpu1 0 memory", "--memory: memory needs it"},
		{"gpu1 0 process --memory 3GiB", "--pid: process needs it"},
		{"gpu1 0 recovery --action pray", "--action: want gpu_reset, node_reboot,"},
		{"gpu1 0 driver_gone", "device \"0\": driver_gone concerns all devices of the host: want all"},
		{"gpu1 0 lost --for 1d2", "--for"},
		{"gpu1 0 lost --for 48h", "--for: want 100ms to 24h"},
	} {
		d := startDaemon(t)
		gpuqctl(t, d, append([]string{"simulate", "device"}, strings.Fields(c.args)...)...).want(t, exitUsage, "", c.says)
		if len(d.faults) > 0 {
			t.Errorf("%s: the daemon was asked", c.args)
		}
	}
}

func TestSimulateDeviceSaysTheWayOut(t *testing.T) {
	d := startDaemon(t)
	d.err = control.Errorf(control.CodeConflict, "choose a host with simulated devices (gpuqctl devices)", "host gpu1: the devices are real")
	gpuqctl(t, d, "simulate", "device", "gpu1", "0", "lost").want(t, exitConflict, "", "choose a host with simulated devices")
}
