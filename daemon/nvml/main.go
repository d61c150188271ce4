// Program gpuqd-device reports the NVIDIA devices of this host, one JSON line
// (device.Report) at a time, on standard output. gpuqd runs it as a child: it is
// the only program of gpuqd that links NVML, so that a driver which hangs or
// crashes its caller takes this process and nothing else.
//
// It ends by itself when standard input or output closes: then gpuqd is gone.
//
// Exit codes: 0 done, 1 the driver failed later or output closed, 2 wrong usage,
// 3 NVML did not initialise (device.ExitNoDriver).
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

func main() { os.Exit(start(os.Args[1:])) }

func start(args []string) int {
	flags := flag.NewFlagSet("gpuqd-device", flag.ContinueOnError)
	var opts options
	flags.DurationVar(&opts.interval, "interval", 5*time.Second, "time between two inventories")
	flags.DurationVar(&opts.heartbeat, "heartbeat", time.Second, "time between two signs of life")
	flags.BoolVar(&opts.once, "once", false, "print one inventory and exit")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 || opts.interval <= 0 || opts.heartbeat <= 0 {
		fmt.Fprintln(os.Stderr, "gpuqd-device: takes flags only, and times above zero; see --help")
		return 2
	}
	// With SIGPIPE ignored a closed output is an error of the write, and NVML is
	// shut down properly.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if !opts.once {
		ctx = untilClosed(ctx, os.Stdin)
	}
	return run(ctx, nvml.New(), os.Stdout, opts)
}

// untilClosed returns a context that also ends when in does, as it does when the
// process at its other end dies. Its goroutine lives as long as in.
func untilClosed(ctx context.Context, in io.Reader) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, in) // an error is an end too
		cancel()
	}()
	return ctx
}
