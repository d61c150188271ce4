package agent

import (
	"context"
	"reflect"
	"testing"

	"gpuqd/daemon/config"
	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
)

// oneReport is a device.Source that reports once.
type oneReport []device.Facts

func (o oneReport) Run(ctx context.Context, deliver func(device.Report)) error {
	deliver(device.Report{Version: device.WireVersion, Devices: o})
	<-ctx.Done()
	return nil
}

// An attempt is bound to its devices' nodes as the settings say, and one without
// devices to none.
func TestAttemptBelongsToItsDevicesNodes(t *testing.T) {
	m := device.New("h", oneReport{
		{Device: device.Device{UUID: "a", Simulated: true, NUMANode: 1}},
		{Device: device.Device{UUID: "b", Simulated: true, NUMANode: device.UnknownIndex}},
	}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	<-m.Ready()
	for _, c := range []struct {
		setting string
		devices []string
		want    *runner.NUMA
	}{
		{config.NUMAPrefer, []string{"a"}, &runner.NUMA{Nodes: []int{1}}},
		{config.NUMABind, []string{"a"}, &runner.NUMA{Nodes: []int{1}, Strict: true}},
		{config.NUMAOff, []string{"a"}, nil},
		{config.NUMABind, []string{"a", "b"}, nil},
		{config.NUMABind, nil, nil},
	} {
		r, _ := accountRun(t, job.DefaultSpec().Pool, nil)
		cfg := config.Default()
		cfg.Runner.NUMA = c.setting
		r.a = New(Options{Config: cfg, Devices: m, Runner: &begunRunner{}})
		r.devices = c.devices
		if in, err := r.intent(); err != nil || !reflect.DeepEqual(in.NUMA, c.want) {
			t.Errorf("%s, %v: %+v, %v; want %+v", c.setting, c.devices, in.NUMA, err, c.want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
