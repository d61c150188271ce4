package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// packages are our programs and where their code is. gpuqd-device, which needs
// cgo, is only for real GPUs.
var packages = map[string]string{
	"gpuqd":        "gpuqd/daemon",
	"gpuqctl":      "gpuqd/ctl",
	"gpuqd-shim":   "gpuqd/daemon/shim",
	"gpuqd-device": "gpuqd/daemon/nvml",
	"gpuq-cluster": "gpuqd/test/cluster/gpuq-cluster",

	"gpuq-campaign": "gpuqd/test/campaign/gpuq-campaign",

	"gpuq-bench":      "gpuqd/test/bench/gpuq-bench",
	"gpuq-stamp":      "gpuqd/test/bench/gpuq-stamp",
	"gpuq-floor-shim": "gpuqd/test/bench/gpuq-floor-shim",
}

// Build builds programs into a directory, for tests: what they run is then the
// code beside them. The caller works somewhere inside this module.
func Build(ctx context.Context, dir string, programs ...string) error {
	for _, name := range programs {
		path, ok := packages[name]
		if !ok {
			return fmt.Errorf("build %s: there is no such program", name)
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", filepath.Join(dir, name), path)
		cgo := "CGO_ENABLED=0"
		if name == "gpuqd-device" {
			cgo = "CGO_ENABLED=1"
		}
		cmd.Env = append(os.Environ(), cgo)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build %s: %w: %s", name, err, strings.TrimSpace(out.String()))
		}
	}
	return nil
}
