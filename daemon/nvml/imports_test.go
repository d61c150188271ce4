package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// deps returns all packages that go into one.
func deps(t *testing.T, pkg string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", pkg).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// Only this program links NVML, and it carries nothing that it does not need: it
// may be stuck in a driver for a long time.
func TestImports(t *testing.T) {
	const library = "github.com/NVIDIA/go-nvml/pkg/nvml"
	helper, client := deps(t, "gpuqd/daemon/nvml"), deps(t, "gpuqd/daemon/device")
	if !slices.Contains(helper, library) {
		t.Error("gpuqd-device does not link NVML")
	}
	if slices.Contains(client, library) {
		t.Error("daemon/device links NVML, and so would gpuqd")
	}
	allowed := []string{"gpuqd/daemon/nvml", "gpuqd/daemon/device", "gpuqd/daemon/durable", "gpuqd/daemon/fault", "gpuqd/daemon/job"}
	for _, pkg := range helper {
		if strings.HasPrefix(pkg, "gpuqd/") && !slices.Contains(allowed, pkg) || pkg == "net/http" {
			t.Errorf("gpuqd-device links %s", pkg)
		}
	}
}
