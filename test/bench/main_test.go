package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gpuqd/test/cluster"
)

// binDir is where the programs under test are built, once they are needed.
var binDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "gpuq-bench-bin-")
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
	return cluster.Build(ctx, binDir, "gpuqd", "gpuqctl", "gpuqd-shim", "gpuq-bench", stampProgram, floorShim)
})

// program returns the path of one of the programs, with the others beside it.
func program(t *testing.T, name string) string {
	t.Helper()
	if err := buildAll(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(binDir, name)
}
