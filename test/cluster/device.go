package cluster

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/device"
)

// share is what one worker gets of this machine's GPUs; empty means simulated
// devices.
type share []device.Facts

// shareOut deals the real GPUs to n workers in turn.
func shareOut(gpus []device.Facts, n int) []share {
	shares := make([]share, n)
	for i, gpu := range gpus {
		shares[i%n] = append(shares[i%n], gpu)
	}
	return shares
}

// config returns the worker's device settings.
func (s share) config(binDir string, simulated int) config.Device {
	cfg := config.Default().Device
	cfg.Helper = filepath.Join(binDir, "gpuqd-device")
	if len(s) == 0 {
		cfg.Kind, cfg.SimulatedCount = config.DeviceSim, simulated
		return cfg
	}
	for _, gpu := range s {
		cfg.Include = append(cfg.Include, gpu.UUID)
	}
	return cfg
}

// describe says in a few words what the worker has.
func (s share) describe(simulated int) string {
	if len(s) == 0 {
		return plural(simulated, "simulated device")
	}
	return fmt.Sprintf("%s (%s)", plural(len(s), "real GPU"), s[0].Model)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// probeTimeout bounds the look for GPUs: a driver that hangs is no reason for
// `make up` to hang.
const probeTimeout = 20 * time.Second

// realDevices returns the GPUs of this machine, none where there is no driver.
func realDevices(ctx context.Context, binDir string) ([]device.Facts, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, "gpuqd-device"), "--once")
	out, err := cmd.Output()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == device.ExitNoDriver {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for GPUs with gpuqd-device: %w", err)
	}
	report, err := device.ParseLine(out)
	if err != nil {
		return nil, err
	}
	if report.Error != nil {
		return nil, fmt.Errorf("look for GPUs: %w", report.Error)
	}
	var well []device.Facts
	for _, gpu := range report.Devices {
		if gpu.Sick == "" {
			well = append(well, gpu)
		}
	}
	return well, nil
}

// devices returns the GPUs to share out.
func (c *Cluster) devices(ctx context.Context) []device.Facts {
	if !c.opts.RealDevices {
		return nil
	}
	gpus, err := realDevices(ctx, c.opts.BinDir)
	if err != nil {
		c.progress.say("devices", "simulated: %v", err)
	}
	return gpus
}
