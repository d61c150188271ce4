package services

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
)

// BuildMongowire returns the program mongowire, built from its sources unless
// the cache has it for these very sources and this Go. Any number of processes
// may call it at once; one builds.
func BuildMongowire(ctx context.Context) (string, error) {
	source, err := mongowireSource()
	if err != nil {
		return "", err
	}
	key, err := mongowireKey(source)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache directory: %w", err)
	}
	cache = filepath.Join(cache, "gpuqd", "mongowire")
	program := filepath.Join(cache, key, "mongowire")
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(cache, "build.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	// Built aside and renamed: a build that is cut off leaves no half program.
	partial := program + ".partial"
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", partial, ".")
	build.Dir = source
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build in %s: %w\n%s", source, err, out)
	}
	return program, os.Rename(partial, program)
}

// mongowireSource finds the tool's directory: above the working directory, as in
// a checkout, else beside the source of this file.
func mongowireSource() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	var candidates []string
	for ; filepath.Dir(dir) != dir; dir = filepath.Dir(dir) {
		candidates = append(candidates, filepath.Join(dir, "test", "tools", "mongowire"))
	}
	if _, file, _, ok := runtime.Caller(0); ok {
		candidates = append(candidates, filepath.Join(filepath.Dir(file), "..", "tools", "mongowire"))
	}
	for _, c := range candidates {
		if _, err := os.Stat(filepath.Join(c, "go.mod")); err == nil {
			return c, nil
		}
	}
	return "", errors.New("its sources, test/tools/mongowire, are not above the working directory: run from the checkout")
}

// mongowireKey names a build: the sources, the pinned modules and the compiler.
func mongowireKey(source string) (string, error) {
	files, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return "", err
	}
	files = append(files, filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum"))
	slices.Sort(files)
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n", filepath.Base(f), len(text))
		sum.Write(text)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// lockFile waits for an exclusive lock, which ends with the process at the
// latest.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
