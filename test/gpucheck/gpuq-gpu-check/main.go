// Program gpuq-gpu-check is behind make gpu-check: it tries gpuqd's way to GPUs on
// this machine's. See package gpuqd/test/gpucheck.
//
// Exit code 0: all checks passed, or there is no GPU; 1: a check failed, or could
// not be made; 2: usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"gpuqd/test/gpucheck"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx)
	stop()
	os.Exit(code)
}

func run(ctx context.Context) int {
	beside, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gpuq-gpu-check:", err)
		return 1
	}
	o := gpucheck.Options{Out: os.Stdout, Log: slog.New(slog.DiscardHandler)}
	flags := flag.NewFlagSet("gpuq-gpu-check", flag.ContinueOnError)
	flags.StringVar(&o.Dir, "bin", filepath.Dir(beside), "where gpuqd-device, gpuqd-shim and gpuq-gpu-payload are")
	flags.StringVar(&o.SMI, "nvidia-smi", "nvidia-smi", "the nvidia-smi to compare with")
	flags.DurationVar(&o.Patience, "patience", time.Minute, "how long each thing may take that is waited for")
	most := flags.Duration("timeout", 10*time.Minute, "how long all may take")
	verbose := flags.Bool("verbose", false, "print what gpuqd's parts log, on stderr")
	if err := flags.Parse(os.Args[1:]); err != nil || flags.NArg() > 0 {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		fmt.Fprintln(os.Stderr, "gpuq-gpu-check:", err)
		return 1
	}
	if *verbose {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, *most, fmt.Errorf("not done after %s (--timeout)", *most))
	defer cancel()
	passed, err := gpucheck.Run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gpuq-gpu-check:", err)
	}
	if err != nil || !passed {
		return 1
	}
	return 0
}
