package main

import (
	"testing"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
)

// A host that is told to notice silence soon has no inventory between two: its devices
// must not be sick for most of the time.
func TestDevicesOutliveTheTimeBetweenTwoInventories(t *testing.T) {
	cfg := config.Default().Device
	for _, silence := range []time.Duration{time.Second, 2 * time.Second, cfg.Silence.Std()} {
		cfg.Silence = job.Duration(silence)
		if stale := staleAfter(cfg); stale < device.DefaultInterval+silence {
			t.Errorf("with a silence of %s an inventory is stale after %s, and the next comes after %s", silence, stale, device.DefaultInterval)
		}
	}
}
