package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// CommandResult is what a program said and how it ended.
type CommandResult struct {
	Stdout, Stderr string
	Code           int // exit code; below 0 where a signal ended it
}

// Gpuqctl runs gpuqctl against this cluster. The error says that it did not run
// to an exit; an exit code other than 0 is no error.
func (c *Cluster) Gpuqctl(ctx context.Context, args ...string) (CommandResult, error) {
	return c.GpuqctlInput(ctx, nil, args...)
}

// GpuqctlInput is Gpuqctl with a standard input.
func (c *Cluster) GpuqctlInput(ctx context.Context, stdin io.Reader, args ...string) (CommandResult, error) {
	return runGpuqctl(ctx, c.files, c.opts.BinDir, stdin, args...)
}

func runGpuqctl(ctx context.Context, files layout, binDir string, stdin io.Reader, args ...string) (CommandResult, error) {
	program, err := Options{BinDir: binDir}.program("gpuqctl")
	if err != nil {
		return CommandResult{}, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "GPUQCTL_CONFIG="+files.gpuqctl())
	cmd.Stdin = stdin
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	result := CommandResult{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if err == nil || (errors.As(err, &exit) && ctx.Err() == nil) {
		return result, nil
	}
	return result, fmt.Errorf("run gpuqctl: %w", err)
}
