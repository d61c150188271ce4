package campaign

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"gpuqd/test/cluster"
)

// binDir is where the programs under test are built, once they are needed.
var binDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "gpuq-campaign-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binDir = dir
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// buildTimeout bounds the build of all programs with a cold cache.
const buildTimeout = 5 * time.Minute

var buildAll = sync.OnceValue(func() error {
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	return cluster.Build(ctx, binDir, "gpuqd", "gpuqctl", "gpuqd-shim", "gpuq-campaign")
})

// program returns the path of gpuq-campaign, with the daemon's programs beside it.
func program(t *testing.T) string {
	t.Helper()
	if err := buildAll(); err != nil {
		t.Fatal(err)
	}
	return binDir + "/gpuq-campaign"
}
