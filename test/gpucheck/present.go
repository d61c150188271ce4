package gpucheck

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// gpu reports whether there is an NVIDIA GPU on this machine. One that the driver
// does not tell of is there all the same: then the checks are made, and fail.
func (b *bench) gpu(ctx context.Context) (there bool, why string) {
	err := b.await(ctx, func() string {
		select {
		case <-b.manager.Ready():
			return ""
		default:
			return "gpuqd-device has said nothing"
		}
	})
	if err != nil || len(b.manager.Snapshot()) > 0 {
		return true, ""
	}
	list, err := b.smi(ctx, "-L")
	if err == nil && strings.Contains(list, "UUID:") {
		return true, ""
	}
	if len(b.evidence()) > 0 {
		return true, ""
	}
	smi := "nvidia-smi lists none"
	if err != nil {
		smi = err.Error()
	}
	driver := b.manager.Problem()
	if driver == "" {
		driver = "it finds no device"
	}
	return false, fmt.Sprintf("no display controller of NVIDIA on the PCI bus; no /dev/nvidiaN; %s; gpuqd-device: %s", smi, driver)
}

// evidence returns the signs of a GPU that need no working driver.
func evidence() []string {
	nodes, _ := filepath.Glob("/dev/nvidia[0-9]*") // the pattern is right
	vendors, _ := filepath.Glob("/sys/bus/pci/devices/*/vendor")
	for _, path := range vendors {
		vendor, _ := os.ReadFile(path) // a device that is gone is none
		class, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "class"))
		// Source: the PCI ID repository: vendor 10de; class 03, display controller.
		if strings.TrimSpace(string(vendor)) == "0x10de" && strings.HasPrefix(string(class), "0x03") {
			nodes = append(nodes, filepath.Base(filepath.Dir(path)))
		}
	}
	return nodes
}

// introduce prints on what the checks are made.
func (b *bench) introduce(ctx context.Context) {
	host, _ := os.Hostname() // for people
	driver := "a driver that nvidia-smi cannot name"
	if all, err := b.gpus(ctx); err == nil && len(all) > 0 {
		driver = "driver " + all[0].driver
	}
	fmt.Fprintf(b.Out, "gpu-check on %s (%s): %s, %d devices\n", host, runtime.GOARCH, driver, len(b.manager.Snapshot()))
	if problem := b.manager.Problem(); problem != "" {
		fmt.Fprintf(b.Out, "gpuqd-device complains: %s\n", problem)
	}
	for _, sign := range b.evidence() {
		fmt.Fprintf(b.Out, "found: %s\n", sign)
	}
}

// whyNoneFree says what keeps every device from taking work.
func (b *bench) whyNoneFree() string {
	all := b.manager.Snapshot()
	if len(all) == 0 {
		return "gpuqd-device finds no device: " + b.manager.Problem()
	}
	parts := make([]string, len(all))
	for i, s := range all {
		parts[i] = fmt.Sprintf("%s is %s: %s", s.UUID, s.State, s.Reason)
	}
	return strings.Join(parts, "; ")
}
